"""k-means units of a teacher, with a vocoder, as a tokenizer under test."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vocable.evaluation.tokenizers.base import NotAvailable, Tokenizer, Tokens, bits_of
from vocable.semantic.teacher import HOP_LENGTH, SAMPLE_RATE, Teacher
from vocable.semantic.units import UnitCodebook
from vocable.semantic.vocoder import Vocoder


class Units(Tokenizer):
    """k-means units of one layer of a teacher, and the vocoder that was trained on them."""

    frame_rate = SAMPLE_RATE / HOP_LENGTH

    def __init__(self, spec: str, folder: Path) -> None:
        """folder: of `vocable semantic units` and `vocable train vocoder`."""
        self.book = UnitCodebook(folder)
        try:
            self.teacher = Teacher(self.book.teacher, self.book.layer)
        except (OSError, ValueError) as error:
            raise NotAvailable(f"{self.book.teacher}: weights not available") from error
        if not Vocoder.is_trained(folder):
            raise NotAvailable(f"{spec} has no vocoder: run `vocable train vocoder` first")
        self.vocoder = Vocoder.load(folder)
        self.name = spec
        self.made_by = f"{self.book.num_units} units {self.book.hash}, vocoder {self.vocoder.hash}"
        self.codebook_sizes = (self.book.num_units,)
        self.bitrate = self.frame_rate * math.log2(self.book.num_units)

    def encode(self, waveform: np.ndarray) -> Tokens:
        """Encode one clip: float32 [L] at 16 kHz."""
        codes = torch.from_numpy(self.book.nearest(self.teacher([waveform])[0].numpy()))[None]
        return Tokens(len(waveform), bits_of(codes, self.codebook_sizes), codes)

    def decode(self, tokens: Tokens) -> np.ndarray:
        """Decode to float32 [L] at 16 kHz."""
        assert tokens.codes is not None
        return self.vocoder.decode(tokens.codes[0])[: tokens.num_samples]

    def embed(self, codes: Tensor) -> Tensor:
        """Return the centroids of units: int64 [1, T] -> float32 [T, D]."""
        return torch.from_numpy(self.book.centroids)[codes[0]]
