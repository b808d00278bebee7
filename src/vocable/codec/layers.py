"""What both architectures are built from. Activations are [B, frames, channels]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def frame_mask(lengths: Tensor | None, width: int, like: Tensor) -> Tensor | None:
    """The mask of valid frames: lengths [B] (on the CPU) -> [B, width, 1] of `like`'s device and dtype.

    None when every clip fills the width: whatever takes a mask takes None for that.
    """
    if lengths is None or int(lengths.min()) >= width:
        return None
    return (torch.arange(width) < lengths[:, None]).unsqueeze(2).to(like)


class BiLSTM(nn.Module):
    """One bidirectional layer, [B, T, inputs] -> [B, T, 2 * hidden].

    The backward recurrence runs on each clip reversed within its own length, so that a clip comes out the same alone
    and in any batch.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.backward_lstm = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        ahead = self.forward_lstm(x)[0]
        if mask is None:
            back = self.backward_lstm(x.flip(1))[0].flip(1)
        else:
            steps = torch.arange(x.shape[1], device=x.device)
            lengths = mask.sum((1, 2), dtype=torch.int64)[:, None]  # bfloat16 cannot count to 257
            order = torch.where(steps < lengths, lengths - 1 - steps, steps)[..., None]
            back = self.backward_lstm(x.gather(1, order.expand_as(x)))[0]
            back = back.gather(1, order.expand_as(back))
        return torch.cat([ahead, back], -1)
