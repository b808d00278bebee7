"""The contract of a tokenizer under test."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vocable.codec.tokens import Encoded


class NotAvailable(ValueError):
    """Raised for a tokenizer whose weights or programs are missing: tables name it, and have no figures for it."""


@dataclass(frozen=True)
class Tokens:
    """A clip as a tokenizer encoded it."""

    num_samples: int  #: of the clip, at 16 kHz
    bits: float  #: without entropy coding
    codes: Tensor | None = None  #: int64 [K', T]; None: the tokenizer has no codes
    encoded: Encoded | None = None  #: the codes with their lengths and gain, of a `Codec`
    stream: bytes = b""  #: the bitstream of a tokenizer without codes


class Tokenizer(ABC):
    """Base class of the tokenizers under test: speech at 16 kHz, float32 [L], to tokens and back."""

    name: str  #: on the command line
    made_by: str  #: codec id, version, or anything else that determines the output
    frame_rate: float = 0.0  #: frames per second; 0: there are no frames
    bitrate: float  #: nominal, bits per second
    codebook_sizes: tuple[int, ...] = ()  #: the number of codes of each layer; (): there are no codes

    @abstractmethod
    def encode(self, waveform: np.ndarray) -> Tokens:
        """Encode one clip: float32 [L] at 16 kHz."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> np.ndarray:
        """Decode to float32 [L] at 16 kHz; the length may differ from the clip's by a few frames."""

    def embed(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, summed over layers: int64 [K', T] -> float32 [T, D].

        Raises ValueError if the tokenizer has no codes.
        """
        raise ValueError(f"{self.name} has no tokens")


def bits_of(codes: Tensor, codebook_sizes: Sequence[int]) -> float:
    """Return the bits of codes int64 [K, T] without entropy coding."""
    return codes.shape[1] * math.fsum(math.log2(size) for size in codebook_sizes)
