"""Batches of clips: choose clips of similar length, and pad them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

#: Lengths are padded to multiples of this: on a GPU each new shape costs memory and time.
PADDING_MULTIPLE = 64


def draw_similar_lengths(
    lengths: np.ndarray, max_frames: int, rng: np.random.Generator, noise: float = 0.1
) -> list[int]:
    """Draw the clips of a batch: indices into `lengths`, which are frames.

    The clips have similar lengths, and with padding about `max_frames` frames in all. Every clip is about equally
    likely. noise: fraction by which lengths are varied at random before they are compared.
    """
    order = np.argsort(lengths * rng.uniform(1 - noise, 1 + noise, len(lengths)))
    # Batches of short clips hold more clips, so a batch starts at a short clip less often.
    start = int(rng.choice(len(order), p=lengths[order] / lengths.sum()))
    chosen: list[int] = []
    longest = 0
    for i in order[start:].tolist():
        longest = max(longest, int(lengths[i]))
        if chosen and longest * (len(chosen) + 1) > max_frames:
            break
        chosen.append(i)
    return chosen


def pad(rows: Sequence[Tensor], value: int = 0) -> Tensor:
    """Stack tensors [n, ...] of several lengths n, padded with `value`: [B, N, ...], N a multiple of
    PADDING_MULTIPLE."""
    batch = pad_sequence(list(rows), batch_first=True, padding_value=value)
    added = batch.new_full((len(rows), -batch.shape[1] % PADDING_MULTIPLE, *batch.shape[2:]), value)
    return torch.cat([batch, added], 1)
