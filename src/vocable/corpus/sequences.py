"""Layouts of codes for language models, all without loss: sequences, ids that differ between layers, runs.

Three patterns arrange the K layers of a clip in time (Copet et al., arXiv 2306.05284, section 2.2):

flatten    the K codes of a frame one after another, frame by frame      [K, T] <-> [K T]
delay      layer k is k frames late, all layers in parallel              [K, T] <-> [K, T + K - 1]
parallel   all layers of a frame in one step                             [K, T] <-> [T, K]

Codes are those of one clip, int64 [K, T], and count from 0 in every layer. `offset` gives each layer ids of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor


def flatten(codes: Tensor) -> Tensor:
    """Arrange codes frame by frame: [K, T] -> [K T]."""
    return codes.T.flatten()


def unflatten(sequence: Tensor, *, num_layers: int) -> Tensor:
    """Invert `flatten`: [K T] -> [K, T]. Raises ValueError if the last frame is incomplete."""
    if len(sequence) % num_layers:
        raise ValueError(f"{len(sequence)} codes are no whole frames of {num_layers}: drop the incomplete last frame")
    return sequence.view(-1, num_layers).T.contiguous()


def delay(codes: Tensor, *, pad: int) -> Tensor:
    """Delay layer k by k frames: [K, T] -> [K, T + K - 1]. Row k has k times `pad` before and K - 1 - k times after."""
    layers, frames = codes.shape
    delayed = codes.new_full((layers, frames + layers - 1), pad)
    for k in range(layers):
        delayed[k, k : k + frames] = codes[k]
    return delayed


def undelay(delayed: Tensor) -> Tensor:
    """Invert `delay`, whatever the padding holds: [K, T + K - 1] -> [K, T]. Raises ValueError for under K - 1 steps."""
    layers, steps = delayed.shape
    frames = steps - layers + 1
    if frames < 0:
        raise ValueError(f"{steps} steps hold no whole frame of {layers} delayed layers")
    return torch.stack([delayed[k, k : k + frames] for k in range(layers)])


def parallel(codes: Tensor) -> Tensor:
    """Arrange codes step by step: [K, T] -> [T, K]."""
    return codes.T.contiguous()


def unparallel(steps: Tensor) -> Tensor:
    """Invert `parallel`: [T, K] -> [K, T]."""
    return steps.T.contiguous()


def offset(codes: Tensor, *, codebook_size: int, first: int = 0) -> Tensor:
    """Map code c of layer k to the id first + k * codebook_size + c: [K, T] -> [K, T].

    Raises ValueError for a code that is not below `codebook_size`.
    """
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= codebook_size):
        raise ValueError(f"codes run from 0 to {codebook_size - 1}, not {int(codes.min())} to {int(codes.max())}")
    return codes + first + codebook_size * torch.arange(len(codes), device=codes.device)[:, None]


def unoffset(ids: Tensor, *, codebook_size: int, first: int = 0) -> Tensor:
    """Invert `offset`: ids [K, T] -> codes [K, T].

    Raises ValueError for an id of another layer than its row's: a language model may generate one.
    """
    codes = ids - first - codebook_size * torch.arange(len(ids), device=ids.device)[:, None]
    wrong = ((codes < 0) | (codes >= codebook_size)).nonzero()
    if len(wrong):
        k, t = wrong[0].tolist()
        raise ValueError(f"id {int(ids[k, t])} at frame {t} is not of layer {k}")
    return codes


def deduplicate(sequence: Tensor) -> tuple[Tensor, Tensor]:
    """Merge runs of the same code: [T] -> codes [U] and durations in frames [U]."""
    codes, durations = torch.unique_consecutive(sequence, return_counts=True)
    return codes, durations


def repeat(codes: Tensor, durations: Tensor) -> Tensor:
    """Invert `deduplicate`: codes [U], durations [U] -> [T]."""
    return codes.repeat_interleave(durations)
