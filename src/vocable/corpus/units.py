"""Codes as a language model takes them: one sequence of ids, or text, and exactly back.

Three patterns lay the K layers of a clip out in time (Copet et al., arXiv 2306.05284, section 2.2):

flatten    frame after frame, each frame's K codes one after another     [K, T] <-> [K T]
delay      layer k comes k frames later, all layers side by side         [K, T] <-> [K, T + K - 1]
parallel   all layers of a frame at once                                 [K, T] <-> [T, K]

Codes are one clip's, int64 [K, T], and count from 0 in every layer. `offset` gives each layer ids of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocable.extras import need
from vocable.files import atomic_path

# ---- patterns --------------------------------------------------------------------------------------------------------


def flatten(codes: Tensor) -> Tensor:
    """[K, T] -> [K T]: all layers of the first frame, then of the second, and so on."""
    return codes.T.flatten()


def unflatten(sequence: Tensor, num_layers: int) -> Tensor:
    """[K T] -> [K, T]. Raises ValueError for a sequence that ends within a frame."""
    if len(sequence) % num_layers:
        raise ValueError(f"{len(sequence)} codes are no whole frames of {num_layers}: drop the last frame's first part")
    return sequence.view(-1, num_layers).T.contiguous()


def delay(codes: Tensor, pad: int) -> Tensor:
    """[K, T] -> [K, T + K - 1]: row k begins with k times `pad` and ends with K - 1 - k times."""
    layers, frames = codes.shape
    delayed = codes.new_full((layers, frames + layers - 1), pad)
    for k in range(layers):
        delayed[k, k : k + frames] = codes[k]
    return delayed


def undelay(delayed: Tensor) -> Tensor:
    """[K, T + K - 1] -> [K, T]; what stands in the padding does not matter. ValueError for under K - 1 steps."""
    layers, steps = delayed.shape
    frames = steps - layers + 1
    if frames < 0:
        raise ValueError(f"{steps} steps hold no whole frame of {layers} delayed layers")
    return torch.stack([delayed[k, k : k + frames] for k in range(layers)])


def parallel(codes: Tensor) -> Tensor:
    """[K, T] -> [T, K]."""
    return codes.T.contiguous()


def unparallel(steps: Tensor) -> Tensor:
    """[T, K] -> [K, T]."""
    return steps.T.contiguous()


# ---- ids -------------------------------------------------------------------------------------------------------------


def offset(codes: Tensor, codebook_size: int, first: int = 0) -> Tensor:
    """Ids of their own for every layer: code c of layer k -> first + k * codebook_size + c. [K, T] -> [K, T]."""
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= codebook_size):
        raise ValueError(f"codes run from 0 to {codebook_size - 1}, not {int(codes.min())} to {int(codes.max())}")
    return codes + first + codebook_size * torch.arange(len(codes), device=codes.device)[:, None]


def unoffset(ids: Tensor, codebook_size: int, first: int = 0) -> Tensor:
    """The codes of ids [K, T]. Raises ValueError for an id that is not of its row's layer, which a model may write."""
    codes = ids - first - codebook_size * torch.arange(len(ids), device=ids.device)[:, None]
    wrong = ((codes < 0) | (codes >= codebook_size)).nonzero()
    if len(wrong):
        k, t = wrong[0].tolist()
        raise ValueError(f"id {int(ids[k, t])} at frame {t} is none of layer {k}")
    return codes


# ---- text ------------------------------------------------------------------------------------------------------------


def write_units(codes: Tensor) -> str:
    """`<s0_512><s1_7>...`: layer and code, frame after frame. Codes [K, T]."""
    return "".join(f"<s{k}_{code}>" for frame in codes.T.tolist() for k, code in enumerate(frame))


def read_units(text: str, num_layers: int | None = None) -> Tensor:
    """The codes [K, T] of unit strings; white space between them is passed over, an unfinished last frame is dropped.

    num_layers: K, where the text may hold less than a frame (None: the highest layer in it). Raises ValueError for
    anything else among them, and for layers that are out of turn.
    """
    units = re.findall(r"<s(\d+)_(\d+)>|(\S)", text)
    stray = next((other for _, _, other in units if other), None)
    if stray is not None:
        raise ValueError(f"{stray!r} is no unit: units look like <s0_512>")
    layers = [int(layer) for layer, _, _ in units]
    num_layers = num_layers or max(layers, default=0) + 1
    for position, layer in enumerate(layers):
        if layer != position % num_layers:
            raise ValueError(f"unit {position} is of layer {layer}, where layer {position % num_layers} has its turn")
    codes = [int(code) for _, code, _ in units]
    return unflatten(torch.tensor(codes[: len(codes) // num_layers * num_layers], dtype=torch.int64), num_layers)


def add_units(tokenizer: Any, num_layers: int, codebook_size: int) -> int:
    """Add the unit strings of so many layers to a transformers tokenizer; returns the id of `<s0_0>`.

    Ids follow one another, so `offset(codes, codebook_size, first)` is what the tokenizer makes of `write_units`.
    Resize the model's embeddings afterwards. Raises ValueError if some of the strings were there already.
    """
    add = need("tokenizers", "lm").AddedToken
    names = [f"<s{k}_{code}>" for k in range(num_layers) for code in range(codebook_size)]
    there = tokenizer.get_vocab().keys() & set(names)
    if there:
        raise ValueError(f"{len(there)} of {len(names)} units are in this tokenizer already")
    tokenizer.add_tokens([add(name, normalized=False) for name in names])
    first: int = tokenizer.convert_tokens_to_ids(names[0])
    return first


# ---- fewer tokens ----------------------------------------------------------------------------------------------------


def deduplicate(sequence: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of the same code as one: [T] -> codes [U] and durations in frames [U]."""
    codes, durations = torch.unique_consecutive(sequence, return_counts=True)
    return codes, durations


def repeat(codes: Tensor, durations: Tensor) -> Tensor:
    """What `deduplicate` was given: [U], [U] -> [T]."""
    return codes.repeat_interleave(durations)


#: Codes stand for characters of a plane without any: what a tokenizer of text does with them is nothing.
_FIRST_CHARACTER = 0xF0000


class UnitBPE:
    """Byte-pair encoding over codes, as over letters: sequences of codes that come often become one id.

    It learns from and applies to one layer, RVQ-1 as a rule, deduplicated or not. Ids below `codebook_size` are codes.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, sequences: Iterable[Tensor], codebook_size: int, vocabulary: int) -> UnitBPE:
        """Learn `vocabulary` ids, the codes included, from sequences [T]."""
        tokenizers = need("tokenizers", "lm")
        if vocabulary < codebook_size:
            raise ValueError(f"a vocabulary of {vocabulary} has no room for {codebook_size} codes")
        alphabet = [chr(_FIRST_CHARACTER + code) for code in range(codebook_size)]
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False, min_frequency=2
        )
        tokenizer.train_from_iterator((_text(sequence) for sequence in sequences), trainer)
        return cls(tokenizer)

    @property
    def vocabulary(self) -> int:
        size: int = self._tokenizer.get_vocab_size()
        return size

    def encode(self, sequence: Tensor) -> Tensor:
        """Codes [T] -> ids [U]. Raises ValueError for a code that is none."""
        ids = torch.tensor(self._tokenizer.encode(_text(sequence)).ids, dtype=torch.int64)
        if len(self.decode(ids)) != len(sequence):
            raise ValueError("a code is not among those that this encoding was made for")
        return ids

    def decode(self, ids: Tensor) -> Tensor:
        """Ids [U] -> codes [T]."""
        pieces = [self._tokenizer.id_to_token(i) for i in ids.tolist()]
        if None in pieces:
            raise ValueError(f"id {ids[pieces.index(None)]} is none of {self.vocabulary}")
        return torch.tensor([ord(c) - _FIRST_CHARACTER for piece in pieces for c in piece], dtype=torch.int64)

    def save(self, path: Path) -> None:
        """One JSON file, which the library `tokenizers` reads too."""
        with atomic_path(path) as temporary:
            self._tokenizer.save(str(temporary))

    @classmethod
    def load(cls, path: Path) -> UnitBPE:
        try:
            return cls(need("tokenizers", "lm").Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises Exception itself
            raise ValueError(f"{path}: not an encoding of units ({error})") from error


def _text(sequence: Tensor) -> str:
    return "".join(chr(_FIRST_CHARACTER + code) for code in sequence.tolist())


def compression(encoding: UnitBPE, sequences: Sequence[Tensor]) -> float:
    """Codes for each id, over all sequences."""
    counts: Counter[str] = Counter()
    for sequence in sequences:
        counts["codes"] += len(sequence)
        counts["ids"] += len(encoding.encode(sequence))
    return counts["codes"] / max(counts["ids"], 1)
