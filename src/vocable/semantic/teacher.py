"""Teachers: self-supervised or ASR encoders whose hidden states pull RVQ-1 towards content.

Every teacher gives ceil(L / 320) frames for L samples at 16 kHz, frame t centred on sample 320 t + 160, which is
where the codec's frame t is centred. (The official feature files are one frame short and up to 20 ms off.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vocable.extras import need

SAMPLE_RATE = 16_000
HOP_LENGTH = 320
#: The families that share HuBERT's convolutional front (receptive field 400, hop 320) and raw-waveform input.
WAVEFORM_MODELS = ("hubert", "wavlm", "wav2vec2")


class Teacher:
    """A transformers encoder, frozen.

    `name` is a folder or a hub id of a HuBERT, WavLM, wav2vec 2.0 or Whisper model. `layer` counts hidden states as
    transformers does (0: the input to the first block, n: the output of the n-th), or is "avg" for the mean of all.
    """

    def __init__(
        self,
        name: str,
        layer: int | Literal["avg"],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        transformers: Any = need("transformers", "train")
        try:
            config = transformers.AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"no teacher at {name!r}: give a transformers folder or a hub id") from error
        self.name, self.layer, self.device, self.dtype = name, layer, device, dtype
        self.is_whisper = config.model_type == "whisper"
        if self.is_whisper:
            self.model: nn.Module = _load_whisper_encoder(name, config)
            self.features = transformers.AutoFeatureExtractor.from_pretrained(name)
            num_layers = config.encoder_layers
        elif config.model_type in WAVEFORM_MODELS:
            self.model = transformers.AutoModel.from_pretrained(name)
            self.features = transformers.AutoFeatureExtractor.from_pretrained(name)
            num_layers = config.num_hidden_layers
        else:
            known = ", ".join((*WAVEFORM_MODELS, "whisper"))
            raise ValueError(f"{name!r} is a {config.model_type!r} model; a teacher is one of {known}")
        if isinstance(layer, int) and not 0 <= layer <= num_layers:
            raise ValueError(f"layer must be 0 to {num_layers} or 'avg' for {name!r}, not {layer}")
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

    def _select(self, output: Any) -> Tensor:
        states = output.hidden_states
        return torch.stack(states).mean(0) if self.layer == "avg" else states[self.layer]


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
