"""Fold weight norm into the weights of a state dict, for inference, and unfold it, for training."""

from __future__ import annotations

import torch
from torch import Tensor

#: Names of the two tensors of weight norm in a state dict, after the prefix of the convolution.
GAIN, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"


def fold(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict without weight norm: weight = g v / |v| (Salimans and Kingma 2016, eq. 2).

    The tensors are removed from `tensors` and changed in place, so that memory never holds both versions.
    """
    folded = {}
    for key in sorted(tensors):
        if key.endswith(GAIN):
            stem = key.removesuffix(GAIN)
            gain, direction = tensors.pop(key), tensors.pop(stem + DIRECTION)
            scale = gain / torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
            folded[f"{stem}weight"] = direction.mul_(scale)
        elif not key.endswith(DIRECTION):
            folded[key] = tensors.pop(key)
    return folded


def unfold(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with weight norm, with v = weight: the inverse of `fold`.

    Only convolutions, whose weights have three axes, have weight norm. The tensors are removed from `tensors`.
    """
    unfolded = {}
    for key in sorted(tensors):
        weight = tensors.pop(key)
        if key.endswith(".weight") and weight.ndim == 3:
            stem = key.removesuffix("weight")
            unfolded[stem + GAIN] = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
            unfolded[stem + DIRECTION] = weight
        else:
            unfolded[key] = weight
    return unfolded


def unfolded_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the state dict with weight norm, from those of the state dict without."""
    unfolded: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if key.endswith(".weight") and len(shape) == 3:
            stem = key.removesuffix("weight")
            unfolded |= {stem + GAIN: (shape[0], 1, 1), stem + DIRECTION: shape}
        else:
            unfolded[key] = shape
    return unfolded
