"""Recurrent layers, masks and decorators of both architectures. Activations are [B, frames, channels]."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn

#: Number format of the weights of recurrent layers, and of the matrix products with them.
Recurrence = Literal["float32", "bfloat16"]

P = ParamSpec("P")
R = TypeVar("R")


class _OnDevice(Protocol):
    @property
    def device(self) -> torch.device: ...


C = TypeVar("C", bound=_OnDevice)


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which autocast is off on `device`."""
    # torch.autocast raises an error for types of devices without autocast.
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def inference(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """Decorate a codec's method to run without gradients and autocast, so that codes do not depend on the caller."""

    @functools.wraps(method)
    def run(codec: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad(), no_autocast(codec.device):
            return method(codec, *args, **kwargs)

    return run


def frame_mask(lengths: Tensor | None, width: int, like: Tensor) -> Tensor | None:
    """Return the mask of valid frames: lengths [B] on the CPU -> [B, width, 1] of the device and dtype of `like`.

    The mask is None if all frames of all clips are valid.
    """
    if lengths is None or int(lengths.min()) >= width:
        return None
    return (torch.arange(width, device="cpu") < lengths[:, None]).unsqueeze(2).to(like)


class LSTM(nn.LSTM):
    """One forward LSTM layer, [B, T, inputs] -> [B, T, hidden]."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Run the layer over whole clips: [B, T, inputs] -> [B, T, hidden]."""
        # The recurrence runs forward, so padding after a clip's end does not affect the clip: no mask is needed.
        y: Tensor = self.step(x, None)[0]
        return y

    def step(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer on the next chunk of a clip from `state` (None: zeros); return the output and the new state.

        x: [B, T, inputs]. The state is the hidden and the cell state, both [1, B, hidden].
        """
        if x.device.type != "cpu":
            y, state = super().forward(x, state)
            return y, state
        # Autocast to bfloat16 fails on CPUs without a bfloat16 LSTM. The weights may be bfloat16
        # (`reduce_recurrence`); input and output are float32 in that case.
        weights: Tensor = self.weight_ih_l0  # type: ignore[assignment]
        with no_autocast(x.device):
            if x.shape[1] == 1:
                y, state = self._cell(x.to(weights.dtype), state)
            else:
                y, state = super().forward(x.to(weights.dtype), state)
        return y.to(torch.promote_types(x.dtype, y.dtype)), state

    def _cell(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer on one frame, [B, 1, inputs]: nn.LSTM packs its weights anew at every call, in milliseconds."""
        hidden, cell = state or x.new_zeros(2, 1, len(x), self.hidden_size).unbind()
        hidden, cell = torch.lstm_cell(x[:, 0], (hidden[0], cell[0]), *self.all_weights[0])
        return hidden[:, None], (hidden[None], cell[None])


class BiLSTM(nn.Module):
    """One bidirectional LSTM layer, [B, T, inputs] -> [B, T, 2 * hidden].

    The backward recurrence runs on each clip reversed within its own length, so the output of a clip does not depend on
    its batch.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.forward_lstm = LSTM(inputs, hidden)
        self.backward_lstm = LSTM(inputs, hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run the layer over whole clips: [B, T, inputs] -> [B, T, 2 * hidden]. mask: [B, T, 1], 1 on valid frames."""
        ahead = self.forward_lstm(x)
        if mask is None:
            back = self.backward_lstm(x.flip(1)).flip(1)
        else:
            steps = torch.arange(x.shape[1], device=x.device)
            lengths = mask.sum((1, 2), dtype=torch.int64)[:, None]  # bfloat16 cannot represent 257
            order = torch.where(steps < lengths, lengths - 1 - steps, steps)[..., None]
            back = self.backward_lstm(x.gather(1, order.expand_as(x)))
            back = back.gather(1, order.expand_as(back))
        return torch.cat([ahead, back], -1)


def reduce_recurrence(module: nn.Module) -> None:
    """Round the weights of every LSTM layer in `module` to bfloat16, for faster inference on a CPU.

    The recurrence reads all its weights at every frame, so half the bytes take less time. The states between chunks are
    rounded too, so codes depend slightly on the chunk length.
    """
    for layer in module.modules():
        if isinstance(layer, LSTM):
            layer.to(torch.bfloat16)
