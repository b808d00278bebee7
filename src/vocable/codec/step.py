"""`Step`: the state of an encoder or a decoder while it runs on the next frame of a batch of streams."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Step:
    """One frame of each stream of a batch: the state before the frame, the state after it, the index of the frame.

    A state is a dict of tensors whose first axis is the batch. The layers of a module read `old` and write `new`, each
    under its own name; they never change a tensor of `old`.

    frame: int64 [B] on the CPU, index of the frame that the module gets. end: int64 [B] on the CPU, the number of
    frames of each stream (None: the streams continue).
    """

    def __init__(self, old: Mapping[str, Tensor], frame: Tensor, end: Tensor | None = None) -> None:
        self.old, self.new = old, dict[str, Tensor]()
        self.frame, self.end = frame, end
        self.delay = 0  #: frames by which the input of the next layer is behind `frame`: the look-ahead of the layers
        self._least = int(frame.min())

    def extend(self, name: str, x: Tensor, rows: int) -> Tensor:
        """Return x [B, n, ...] with the `rows` rows before it: [B, rows + n, ...]; keep the last `rows` for later.

        The rows before a stream's first frame are zeros.
        """
        old = self.old.get(name)
        if old is None:
            old = x.new_zeros(len(x), rows, *x.shape[2:])
        held = torch.cat([old, x], 1)
        self.new[name] = held[:, held.shape[1] - rows :]
        return held

    def overlap(self, name: str, x: Tensor, rows: int) -> Tensor:
        """Add the rows kept from the previous step to x [B, n, ...]; return the first `rows` rows, keep the others."""
        old = self.old.get(name)
        if old is not None:
            x = torch.cat([x[:, : old.shape[1]] + old, x[:, old.shape[1] :]], 1)
        self.new[name] = x[:, rows:]
        return x[:, :rows]

    def mask(self, like: Tensor, before: int = 0) -> Tensor | None:
        """Return which frames belong to their stream: [B, 1 + before, 1] of 0 and 1, or None if all of them do.

        Frames do not if they are before the first frame, which are the first output of layers with look-ahead, or after
        the last one. like: a tensor of the device and dtype of the mask. before: number of frames before the layer's
        own frame.
        """
        if self.end is None and self._least >= self.delay + before:
            return None
        frame = self.frame[:, None] - self.delay + torch.arange(-before, 1, device="cpu")
        valid = frame >= 0
        if self.end is not None:
            valid &= frame < self.end[:, None]
        return valid[..., None].to(like)
