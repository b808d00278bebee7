"""Byte-pair encoding of codes: frequent sequences of codes become one id, so that sequences are shorter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocable.extras import need
from vocable.files import atomic_path

#: The character that represents code 0: in a private plane of Unicode, where text tokenizers change nothing.
FIRST_CHARACTER = 0xF0000


class CodeBPE:
    """Byte-pair encoding of one layer of codes, usually RVQ-1, with or without repetitions.

    Ids below the codebook size are the codes themselves.
    """

    def __init__(self, tokenizer: Any) -> None:
        """tokenizer: a `tokenizers.Tokenizer` that `train` or `load` made."""
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, sequences: Iterable[Tensor], *, codebook_size: int, vocabulary: int) -> CodeBPE:
        """Learn `vocabulary` ids, including the codes, from sequences of codes [T]."""
        tokenizers = need("tokenizers", "lm")
        if vocabulary < codebook_size:
            raise ValueError(f"a vocabulary of {vocabulary} is smaller than the codebook of {codebook_size} codes")
        alphabet = [chr(FIRST_CHARACTER + code) for code in range(codebook_size)]
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False, min_frequency=2
        )
        tokenizer.train_from_iterator((_to_characters(sequence) for sequence in sequences), trainer)
        return cls(tokenizer)

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        size: int = self._tokenizer.get_vocab_size()
        return size

    def encode(self, sequence: Tensor) -> Tensor:
        """Encode codes [T] as ids [U]. Raises ValueError for a code outside of the codebook."""
        ids = torch.tensor(self._tokenizer.encode(_to_characters(sequence)).ids, dtype=torch.int64)
        if len(self.decode(ids)) != len(sequence):
            raise ValueError("the sequence holds a code outside of the codebook that this encoding was trained for")
        return ids

    def decode(self, ids: Tensor) -> Tensor:
        """Decode ids [U] to codes [T]. Raises ValueError for an id outside of the vocabulary."""
        pieces = [self._tokenizer.id_to_token(i) for i in ids.tolist()]
        if None in pieces:
            raise ValueError(f"id {ids[pieces.index(None)]} is outside of the vocabulary of {self.vocabulary}")
        return torch.tensor([ord(c) - FIRST_CHARACTER for piece in pieces for c in piece], dtype=torch.int64)

    def compression(self, sequences: Sequence[Tensor]) -> float:
        """Return the number of codes per id, over all sequences."""
        num_codes = sum(len(sequence) for sequence in sequences)
        num_ids = sum(len(self.encode(sequence)) for sequence in sequences)
        return num_codes / max(num_ids, 1)

    def save(self, path: Path) -> None:
        """Write a JSON file, which the library `tokenizers` can read."""
        with atomic_path(path) as temporary:
            self._tokenizer.save(str(temporary))

    @classmethod
    def load(cls, path: Path) -> CodeBPE:
        """Read a file that `save` wrote. Raises ValueError for another file."""
        try:
            return cls(need("tokenizers", "lm").Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises no other class
            raise ValueError(f"{path}: not a byte-pair encoding of codes ({error})") from error


def _to_characters(sequence: Tensor) -> str:
    return "".join(chr(FIRST_CHARACTER + code) for code in sequence.tolist())
