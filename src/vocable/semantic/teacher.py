"""Teachers: self-supervised or ASR encoders, whose hidden states are the targets that RVQ-1 is distilled from.

Every teacher returns ceil(L / HOP_LENGTH) frames for L samples at SAMPLE_RATE. Frame t is centred on the middle of the
codec's frame t, sample (t + 1/2) HOP_LENGTH. (The official feature files are one frame short and up to 20 ms off.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from vocable.extras import need

SAMPLE_RATE = 16_000  #: of the speech that all these models were trained on, in Hz
#: Model types whose input is the waveform and whose first layers are the convolutions of HuBERT.
WAVEFORM_MODELS = ("hubert", "wavlm", "wav2vec2", "data2vec-audio")
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  #: of these convolutions
HOP_LENGTH = math.prod(STRIDES)  #: samples per frame: 320, of Whisper too
#: Samples that one frame of the convolutions depends on: 400.
RECEPTIVE_FIELD = 1 + sum((kernel - 1) * math.prod(STRIDES[:i]) for i, kernel in enumerate(KERNELS))

#: The number of a hidden state, several numbers for the mean of these, or "avg" for the mean of all.
Layer: TypeAlias = int | Literal["avg"] | tuple[int, ...]


class Teacher:
    """A frozen encoder from transformers.

    name: folder or hub id of a HuBERT, WavLM, wav2vec 2.0, data2vec-audio or Whisper model.

    layer: the number of a hidden state as transformers counts them (0: the input of the first block, n: the output of
    the n-th block; the last one of Whisper is the output of the final layer norm), a list of numbers for the mean of
    these, or "avg" for the mean of all, 0 included.

    Raises ValueError for a model that is missing or of another type, and for a layer that it does not have.
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
            if (tuple(config.conv_kernel), tuple(config.conv_stride)) != (KERNELS, STRIDES):
                raise ValueError(f"{name!r} has not the convolutions of HuBERT, so its frames are not the codec's")
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
            # The blocks after the highest layer are not needed. One of them is kept, because the output of the last
            # block has passed the final layer norm.
            blocks: Any = self.model.layers
            del blocks[max(self._numbers) + 1 :]
        self.model = self.model.to(device, dtype).eval().requires_grad_(False)
        self.dimension: int = config.d_model if self.is_whisper else config.hidden_size

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the hidden states of each waveform: float32 [L] -> float32 [ceil(L / HOP_LENGTH), D] on the CPU."""
        run = self._whisper if self.is_whisper else self._waveform_model
        return run([np.asarray(w, np.float32) for w in waveforms])

    def _whisper(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """Run Whisper, whose window is always 30 s: utterances are packed into windows, and long ones are cut.

        Packing saves three quarters of the time on LibriSpeech.
        """
        window_frames = self.features.n_samples // HOP_LENGTH
        longest = (window_frames - 1) * HOP_LENGTH
        # Each segment of a waveform, with the index of its waveform.
        segments = [(i, w[at : at + longest]) for i, w in enumerate(waveforms) for at in range(0, len(w), longest)]
        frames = [-(-len(segment) // HOP_LENGTH) for _, segment in segments]
        states = [torch.empty(0)] * len(segments)
        for window in pack(frames, window_frames):
            audio = np.zeros(self.features.n_samples, np.float32)
            for index, start in window:
                # Whisper's frame t is centred on sample t HOP_LENGTH. A segment begins half a hop before its first
                # frame, so that the centres are those of the codec's frames.
                begin = start * HOP_LENGTH - HOP_LENGTH // 2
                segment = segments[index][1]
                audio[begin : begin + len(segment)] = segment
            mel = self.features(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            hidden = self._select(self.model(mel.to(self.device, self.dtype), output_hidden_states=True))
            for index, start in window:
                states[index] = hidden[0, start : start + frames[index]].float().cpu()
        by_waveform: list[list[Tensor]] = [[] for _ in waveforms]
        for (index, _), state in zip(segments, states, strict=True):
            by_waveform[index].append(state)
        return [torch.cat(found) for found in by_waveform]

    def _waveform_model(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        out = []
        for waveform in waveforms:
            frames = -(-len(waveform) // HOP_LENGTH)
            values = self.features(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
            # With this padding on either side there is one frame per hop, centred on it.
            padding = (RECEPTIVE_FIELD - HOP_LENGTH) // 2
            values = nn.functional.pad(values, (padding, frames * HOP_LENGTH - len(waveform) + padding))
            hidden = self._select(self.model(values.to(self.device, self.dtype), output_hidden_states=True))
            out.append(hidden[0].float().cpu())
        return out

    @property
    def _numbers(self) -> tuple[int, ...]:
        """Numbers of the hidden states to average; empty for "avg"."""
        if isinstance(self.layer, int):
            return (self.layer,)
        return () if self.layer == "avg" else self.layer

    def _select(self, output: Any) -> Tensor:
        states = output.hidden_states
        return torch.stack([states[n] for n in self._numbers or range(len(states))]).mean(0)


def canonical_layer(layer: int | str | Sequence[int]) -> Layer:
    """Return the form in which a layer is stored and compared: (2, 6) for (6, 2) and [2, 6, 2], 2 for [2].

    Raises ValueError for an empty list and for a text other than "avg".
    """
    if isinstance(layer, int) or layer == "avg":
        return layer  # type: ignore[return-value]
    if isinstance(layer, str) or not layer:
        raise ValueError(f"layer is a number, a list of numbers or 'avg', not {layer!r}")
    numbers = tuple(sorted(set(layer)))
    return numbers if len(numbers) > 1 else numbers[0]


def pack(lengths: Sequence[int], capacity: int) -> list[list[tuple[int, int]]]:
    """Pack items into windows of `capacity` frames, the longest first, each into the first window that has room.

    lengths: of the items, in frames, at most capacity - 1. Returns (item, first frame) of all items in each window. One
    frame before each item is left free, so the first frame is at least 1.
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
    """Load the encoder of a Whisper model, from a full checkpoint or from one with the encoder only."""
    from transformers import WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if config.architectures == ["WhisperEncoder"]:
        encoder: nn.Module = WhisperEncoder.from_pretrained(name)
        return encoder
    full: Any = WhisperModel.from_pretrained(name)
    return full.get_encoder()  # type: ignore[no-any-return]
