"""Teachers: self-supervised or ASR encoders whose hidden states pull RVQ-1 towards content.

Every teacher gives ceil(L / 320) frames for L samples at 16 kHz, frame t centred on sample 320 t + 160, which is
where the codec's frame t is centred. (The official feature files are one frame short and up to 20 ms off.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from vocable.extras import need

SAMPLE_RATE = 16_000
HOP_LENGTH = 320
#: The families that share HuBERT's convolutional front and raw-waveform input.
WAVEFORM_MODELS = ("hubert", "wavlm", "wav2vec2", "data2vec-audio")
#: That front: receptive field 400, hop 320.
FRONT_KERNELS, FRONT_STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)

#: A hidden state by number, "avg" for the mean of all, or several numbers for the mean of those.
Layer: TypeAlias = int | Literal["avg"] | tuple[int, ...]


class Teacher:
    """A transformers encoder, frozen.

    `name` is a folder or a hub id of a HuBERT, WavLM, wav2vec 2.0, data2vec-audio or Whisper model. `layer` counts
    hidden states as transformers does (0: the input to the first block, n: the output of the n-th; Whisper's last has
    passed the final layer norm). It is one number, "avg" for the mean of all of them, 0 included, or a list of numbers
    for the mean of those.
    """

    def __init__(
        self,
        name: str,
        layer: int | Literal["avg"] | Sequence[int],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        transformers: Any = need("transformers", "train")
        try:
            config = transformers.AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"no teacher at {name!r}: give a transformers folder or a hub id") from error
        self.name, self.layer, self.device, self.dtype = name, canonical_layer(layer), device, dtype
        self.is_whisper = config.model_type == "whisper"
        if self.is_whisper:
            self.model: nn.Module = _load_whisper_encoder(name, config)
            self.features = transformers.AutoFeatureExtractor.from_pretrained(name)
            num_layers = config.encoder_layers
        elif config.model_type in WAVEFORM_MODELS:
            if (tuple(config.conv_kernel), tuple(config.conv_stride)) != (FRONT_KERNELS, FRONT_STRIDES):
                raise ValueError(f"{name!r} has not HuBERT's convolutional front, so its frames are not the codec's")
            self.model = transformers.AutoModel.from_pretrained(name)
            self.features = transformers.AutoFeatureExtractor.from_pretrained(name)
            num_layers = config.num_hidden_layers
        else:
            known = ", ".join((*WAVEFORM_MODELS, "whisper"))
            raise ValueError(f"{name!r} is a {config.model_type!r} model; a teacher is one of {known}")
        wrong = [n for n in self._numbers if not 0 <= n <= num_layers]
        if wrong:
            raise ValueError(f"layer must be 0 to {num_layers} or 'avg' for {name!r}, not {wrong[0]}")
        if self.is_whisper and self._numbers:
            # Blocks above are not needed. One more is kept: the last one's output has passed the final layer norm.
            blocks: Any = self.model.layers
            del blocks[max(self._numbers) + 1 :]
        self.model = self.model.to(device, dtype).eval().requires_grad_(False)
        self.dimension: int = config.d_model if self.is_whisper else config.hidden_size

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Hidden states of each waveform [L] (float32, 16 kHz): a list of float32 [ceil(L / 320), D] on the CPU."""
        run = self._whisper if self.is_whisper else self._waveform_model
        return run([np.asarray(w, np.float32) for w in waveforms])

    def _whisper(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """Whisper's window is always 30 s, so utterances share windows: 4 times less work on LibriSpeech."""
        window_frames = self.features.n_samples // HOP_LENGTH
        longest = (window_frames - 1) * HOP_LENGTH
        pieces = [(i, w[at : at + longest]) for i, w in enumerate(waveforms) for at in range(0, len(w), longest)]
        frames = [-(-len(piece) // HOP_LENGTH) for _, piece in pieces]
        hidden_pieces = [torch.empty(0)] * len(pieces)
        for window in pack(frames, window_frames):
            audio = np.zeros(self.features.n_samples, np.float32)
            for index, start in window:
                # Whisper's frame t is centred on sample 320 t; half a hop earlier puts it on the codec's centre.
                begin = start * HOP_LENGTH - HOP_LENGTH // 2
                piece = pieces[index][1]
                audio[begin : begin + len(piece)] = piece
            mel = self.features(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            hidden = self._select(self.model(mel.to(self.device, self.dtype), output_hidden_states=True))
            for index, start in window:
                hidden_pieces[index] = hidden[0, start : start + frames[index]].float().cpu()
        owners = [i for i, _ in pieces]
        return [
            torch.cat([h for o, h in zip(owners, hidden_pieces, strict=True) if o == i]) for i in range(len(waveforms))
        ]

    def _waveform_model(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        out = []
        for waveform in waveforms:
            frames = -(-len(waveform) // HOP_LENGTH)
            values = self.features(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
            # 400 samples of receptive field at hop 320: 40 on either side give one centred frame per hop.
            values = nn.functional.pad(values, (40, frames * HOP_LENGTH - len(waveform) + 40))
            hidden = self._select(self.model(values.to(self.device, self.dtype), output_hidden_states=True))
            out.append(hidden[0].float().cpu())
        return out

    @property
    def _numbers(self) -> tuple[int, ...]:
        """The hidden states that are asked for by number; none for "avg"."""
        if isinstance(self.layer, int):
            return (self.layer,)
        return () if self.layer == "avg" else self.layer

    def _select(self, output: Any) -> Tensor:
        states = output.hidden_states
        return torch.stack([states[n] for n in self._numbers or range(len(states))]).mean(0)


def canonical_layer(layer: int | str | Sequence[int]) -> Layer:
    """The one form in which a layer is stored and compared: (6, 2) and [2, 6, 2] are (2, 6), [2] is 2."""
    if isinstance(layer, int) or layer == "avg":
        return layer  # type: ignore[return-value]
    if isinstance(layer, str) or not layer:
        raise ValueError(f"layer is a number, a list of numbers or 'avg', not {layer!r}")
    numbers = tuple(sorted(set(layer)))
    return numbers if len(numbers) > 1 else numbers[0]


def pack(lengths: Sequence[int], capacity: int) -> list[list[tuple[int, int]]]:
    """Pack items into windows, longest first into the first window with room: lists of (item, start), start >= 1.

    One frame is left free before each item; no item is longer than capacity - 1.
    """
    windows: list[list[tuple[int, int]]] = []
    used: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        slot = next((i for i, u in enumerate(used) if u + 1 + lengths[item] <= capacity), len(windows))
        if slot == len(windows):
            windows.append([])
            used.append(0)
        windows[slot].append((item, used[slot] + 1))
        used[slot] += 1 + lengths[item]
    return windows


def _load_whisper_encoder(name: str, config: Any) -> nn.Module:
    """The encoder of a Whisper model, from a full checkpoint or from one that holds the encoder alone."""
    from transformers import WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if config.architectures == ["WhisperEncoder"]:
        encoder: nn.Module = WhisperEncoder.from_pretrained(name)
        return encoder
    full: Any = WhisperModel.from_pretrained(name)
    return full.get_encoder()  # type: ignore[no-any-return]
