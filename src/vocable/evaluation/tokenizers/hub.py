"""DAC, Mimi and X-Codec through transformers, as tokenizers under test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocable import audio
from vocable.codec.identity import weights_digest
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.tokenizers.base import NotAvailable, Tokenizer, Tokens, bits_of
from vocable.extras import need


@dataclass(frozen=True)
class HubKind:
    """The differences between the codecs of transformers."""

    model: str  #: name of its class
    vectors: Callable[[Any, Tensor], Tensor]  #: the model, codes [1, K, T] -> vectors [1, D, T]
    sample_rate: Callable[[Any], int]  #: its config -> Hz
    frame_rate: Callable[[Any], float]  #: its config -> frames per second


HUB_CODECS = {
    "dac": HubKind(
        "DacModel",
        vectors=lambda model, codes: model.quantizer.from_codes(codes)[0],
        sample_rate=lambda config: int(config.sampling_rate),
        frame_rate=lambda config: config.sampling_rate / config.hop_length,
    ),
    "mimi": HubKind(
        "MimiModel",
        vectors=lambda model, codes: model.quantizer.decode(codes),
        sample_rate=lambda config: int(config.sampling_rate),
        frame_rate=lambda config: float(config.frame_rate),
    ),
    "xcodec": HubKind(
        "XcodecModel",
        vectors=lambda model, codes: model.quantizer.decode(codes.transpose(0, 1)),
        sample_rate=lambda config: int(config.sample_rate),
        frame_rate=lambda config: config.sample_rate / config.hop_length,
    ),
}


class HubCodec(Tokenizer):
    """A codec of transformers, by folder or hub id, reduced to its first K layers."""

    def __init__(self, spec: str, kind: str, model: str, layers: slice | None) -> None:
        """spec: the name on the command line. kind: a key of HUB_CODECS. model: a folder or a hub id."""
        transformers = need("transformers", "eval")
        hub = HUB_CODECS[kind]
        self._vectors = hub.vectors
        try:
            self.model = getattr(transformers, hub.model).from_pretrained(model).eval()
        except (OSError, ValueError) as error:
            raise NotAvailable(f"{model}: weights not available; name a folder that holds them") from error
        config = self.model.config
        # X-Codec encodes at a low bandwidth by default.
        self._options = {"bandwidth": max(config.target_bandwidths)} if kind == "xcodec" else {}
        self.name, self.made_by = spec, f"{hub.model} {model} {weights_digest(self.model.state_dict())}"
        self.sample_rate, self.frame_rate = hub.sample_rate(config), hub.frame_rate(config)
        num_layers = self._encode(np.zeros(self.sample_rate, np.float32)).shape[1]
        start, stop, _ = (layers or slice(None)).indices(num_layers)
        if start or stop <= start:
            raise ValueError(f"{spec}: layers must begin with the first, :1 to :{num_layers}")
        self.codebook_sizes = (int(config.codebook_size),) * stop
        self.bitrate = self.frame_rate * stop * math.log2(config.codebook_size)

    @torch.inference_mode()
    def _encode(self, waveform: np.ndarray) -> Tensor:
        """Return the codes of all layers: [L] at the codec's sample rate -> int64 [1, K, T]."""
        batch = torch.from_numpy(np.ascontiguousarray(waveform))[None, None]
        codes: Tensor = self.model.encode(batch, **self._options).audio_codes
        return codes.flatten(0, codes.ndim - 3)[:1] if codes.ndim == 4 else codes

    def encode(self, waveform: np.ndarray) -> Tokens:
        """Encode one clip: float32 [L] at 16 kHz."""
        codes = self._encode(audio.resample(waveform, SAMPLE_RATE, self.sample_rate))[0, : len(self.codebook_sizes)]
        return Tokens(len(waveform), bits_of(codes, self.codebook_sizes), codes)

    @torch.inference_mode()
    def decode(self, tokens: Tokens) -> np.ndarray:
        """Decode to float32 [L] at 16 kHz."""
        assert tokens.codes is not None
        decoded = self.model.decode(audio_codes=tokens.codes[None]).audio_values
        return audio.resample(decoded.flatten().numpy(), self.sample_rate, SAMPLE_RATE)

    @torch.inference_mode()
    def embed(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, summed over layers: int64 [K', T] -> float32 [T, D]."""
        return self._vectors(self.model, codes[None])[0].T
