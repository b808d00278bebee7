"""The ConvNeXt blocks of the encoder and decoder of `fast`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.codec.step import Step


class ConvNeXtBlock(nn.Module):
    """A 1-D ConvNeXt block (arXiv 2201.03545): depthwise convolution, layer norm, two-layer perceptron, residual.

    look_ahead: future frames that the convolution uses (None: half of the kernel).
    """

    def __init__(self, dim: int, expansion: int, kernel_size: int, look_ahead: int | None = None) -> None:
        super().__init__()
        half = kernel_size // 2
        right = half if look_ahead is None else look_ahead
        #: Zero padding before and after the frames. Symmetric padding is done by the convolution itself.
        self.padding = (kernel_size - 1 - right, right)
        own = half if right == half else 0
        self.depthwise = nn.Conv2d(dim, dim, (1, kernel_size), padding=(0, own), groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, expansion * dim)
        self.contract = nn.Linear(expansion * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor, mask: Tensor | None, step: Step | None = None, name: str = "") -> Tensor:
        """Run the block: [B, T, D] -> [B, T, D]. mask: [B, T, 1], 1 on valid frames; None: all are valid.

        step: the streams whose next frames x holds; their state, under `name`, is the frames before x. The output is
        then delayed by the look-ahead.
        """
        y = x if mask is None else x * mask
        if step is not None:
            y = step.extend(name, y, sum(self.padding))
            step.delay += self.padding[1]
            x = y[:, self.padding[0] : self.padding[0] + x.shape[1]]
            # For a few frames, this takes a fifth of the time of a convolution.
            bias = self.depthwise.bias
            assert bias is not None
            y = (y.unfold(1, sum(self.padding) + 1, 1) * self.depthwise.weight[:, 0, 0]).sum(-1) + bias
        else:
            if self.depthwise.padding == (0, 0):
                y = F.pad(y, (0, 0, *self.padding))
            # An image [B, D, 1, frames] in channels-last layout needs no transpose, and CPUs have a fast kernel for it.
            y = self.depthwise(y.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)
        y = self.contract(F.gelu(self.expand(self.norm(y))))
        return torch.addcmul(x, y.to(x.dtype), self.scale)


def run_blocks(blocks: nn.ModuleList, x: Tensor, mask: Tensor | None, step: Step | None, name: str) -> Tensor:
    """Run blocks one after another. name: of the blocks in the state of streams."""
    for i, block in enumerate(blocks):
        # Look-ahead shifts the frames of a step, so each block has a mask of its own.
        x = block(x, mask if step is None else step.mask(x), step, f"{name}.{i}")
    return x
