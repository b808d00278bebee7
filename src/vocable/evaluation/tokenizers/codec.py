"""Any `Codec` as a tokenizer under test, and the recording itself."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vocable import audio
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.clips import layer_range
from vocable.codec.load import load_codec
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.tokenizers.base import NotAvailable, Tokenizer, Tokens, bits_of


class Recording(Tokenizer):
    """The clip itself, in 16 bits per sample: its scores are those of speech without loss."""

    name, made_by, bitrate = "recording", "recording", 16.0 * SAMPLE_RATE

    def encode(self, waveform: np.ndarray) -> Tokens:
        """Keep the samples."""
        return Tokens(len(waveform), 16.0 * len(waveform), stream=waveform.astype(np.float32).tobytes())

    def decode(self, tokens: Tokens) -> np.ndarray:
        """Return the samples."""
        return np.frombuffer(tokens.stream, np.float32)


class CodecTokenizer(Tokenizer):
    """A `Codec`, such as SpeechTokenizer or EnCodec, reduced to some of its layers."""

    def __init__(self, spec: str, codec: str, layers: slice | None) -> None:
        """spec: the name on the command line. codec: the name for `load_codec`. layers: None: all."""
        try:
            self.codec = load_codec(codec)
        except CheckpointError as error:
            raise NotAvailable(str(error)) from error
        self.name, self.made_by, self.layers = spec, self.codec.id, layers
        self.frame_rate, self.bitrate = self.codec.frame_rate, self.codec.bitrate(layers)
        start, stop = layer_range(layers, self.codec.num_quantizers)
        self.codebook_sizes = self.codec.codebook_sizes[start:stop]

    def encode(self, waveform: np.ndarray) -> Tokens:
        """Encode one clip: float32 [L] at 16 kHz."""
        encoded = self.codec.encode(waveform, sample_rate=SAMPLE_RATE, layers=self.layers)
        codes = encoded.codes[0]
        return Tokens(len(waveform), bits_of(codes, self.codebook_sizes), codes, encoded)

    def decode(self, tokens: Tokens) -> np.ndarray:
        """Decode to float32 [L] at 16 kHz."""
        assert tokens.encoded is not None
        decoded = self.codec.decode(tokens.encoded).waveform[0].numpy()
        return audio.resample(decoded, self.codec.sample_rate, SAMPLE_RATE)

    def embed(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, summed over layers: int64 [K', T] -> float32 [T, D]."""
        return self.codec.embed(codes[None], layers=self.layers)[0].T
