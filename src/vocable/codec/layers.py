"""What both architectures are built from. Activations are [B, frames, channels]."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

#: Of the products in recurrent layers.
Recurrence = Literal["float32", "bfloat16", "int8"]


def frame_mask(lengths: Tensor | None, width: int, like: Tensor) -> Tensor | None:
    """The mask of valid frames: lengths [B] (on the CPU) -> [B, width, 1] of `like`'s device and dtype.

    None when every clip fills the width: whatever takes a mask takes None for that.
    """
    if lengths is None or int(lengths.min()) >= width:
        return None
    return (torch.arange(width) < lengths[:, None]).unsqueeze(2).to(like)


class LSTM(nn.LSTM):
    """One layer, [B, T, inputs] -> [B, T, hidden].

    On a CPU torch rearranges the weights for oneDNN in every call: 12 of 60 ms for 2 s at 1,024 units. In inference on
    a single clip the arrangement is kept from call to call here; the result is bit-equal. It costs as much memory as
    the weights.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, batch_first=True)
        self._arranged: tuple[list[tuple[int, int]], list[Tensor]] | None = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        # What lies behind a clip's end comes after it, so there is nothing to mask.
        weights: list[Tensor] = [self.weight_ih_l0, self.weight_hh_l0]  # type: ignore[list-item]
        if not self._arranges(x, weights):
            y: Tensor = self.go_on(x, None)[0]
            return y
        state = [(w.data_ptr(), w._version) for w in weights]
        if self._arranged is None or self._arranged[0] != state:
            # The operators are those of torch's compiler for frozen models.
            detached = (w.detach() for w in weights)
            arranged = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                *detached, self.hidden_size, False, True, False
            )
            self._arranged = state, arranged
        start = x.new_zeros(1, self.hidden_size)
        lstm, one_layer, in_training = 2, 1, False
        y = torch.ops.aten.mkldnn_rnn_layer(
            *(x.transpose(0, 1), *self._arranged[1], self.bias_ih_l0, self.bias_hh_l0, start, start, False),
            *([], lstm, self.hidden_size, one_layer, True, False, False, in_training),
        )[0]
        return y.transpose(0, 1)

    def go_on(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next stretch of a clip, from where the last one ended (None: from the start), and where this one ends."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            y, state = super().forward(x, state)
            return y, state
        # Not every CPU has a bfloat16 recurrence, and where it has none autocast's fails.
        with torch.autocast("cpu", enabled=False):
            weights: Tensor = self.weight_ih_l0  # type: ignore[assignment]
            y, state = super().forward(x.to(weights.dtype), state)
        return y, state

    def _arranges(self, x: Tensor, weights: list[Tensor]) -> bool:
        return (
            len(x) == 1
            and x.device.type == "cpu"
            and all(t.dtype == torch.float32 and not t.is_inference() for t in weights)
            and x.dtype == torch.float32
            and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
            and bool(torch.backends.mkldnn.enabled)
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")
        )

    def train(self, mode: bool = True) -> LSTM:
        self._arranged = None
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_arranged": None}  # type: ignore[no-untyped-call]


class BiLSTM(nn.Module):
    """One bidirectional layer, [B, T, inputs] -> [B, T, 2 * hidden].

    The backward recurrence runs on each clip reversed within its own length, so that a clip comes out the same alone
    and in any batch.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.forward_lstm = LSTM(inputs, hidden)
        self.backward_lstm = LSTM(inputs, hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        ahead = self.forward_lstm(x)
        if mask is None:
            back = self.backward_lstm(x.flip(1)).flip(1)
        else:
            steps = torch.arange(x.shape[1], device=x.device)
            lengths = mask.sum((1, 2), dtype=torch.int64)[:, None]  # bfloat16 cannot count to 257
            order = torch.where(steps < lengths, lengths - 1 - steps, steps)[..., None]
            back = self.backward_lstm(x.gather(1, order.expand_as(x)))
            back = back.gather(1, order.expand_as(back))
        return torch.cat([ahead, back], -1)


class ReducedLSTM(nn.Module):
    """An LSTM layer, for inference on a CPU, whose weights are bfloat16 or int8. What goes in and out stays as it was.

    Weights are what a recurrence reads at every frame: fewer bytes, less time. States that go from chunk to chunk are
    rounded too, and int8 rounds what the weights are multiplied with, over a whole batch alike: a clip's codes then
    depend a little on how it is cut, and on the clips beside it.
    """

    def __init__(self, lstm: LSTM, recurrence: Recurrence) -> None:
        super().__init__()
        plain = nn.LSTM(lstm.input_size, lstm.hidden_size, batch_first=True)
        plain.load_state_dict(lstm.state_dict())
        self.dtype = torch.bfloat16 if recurrence == "bfloat16" else torch.float32
        self.lstm: nn.Module = plain.to(self.dtype)
        if recurrence == "int8":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of the module's move to another package
                from torch.ao.quantization import quantize_dynamic

                self.lstm = quantize_dynamic(nn.Sequential(plain), {nn.LSTM}, torch.qint8)[0]  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.go_on(x, None)[0]

    def go_on(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As LSTM's."""
        y, state = self.lstm(x.to(self.dtype), state)
        return y.to(x.dtype), state


def reduce_recurrence(module: nn.Module, recurrence: Recurrence) -> None:
    """Put a ReducedLSTM in the place of every LSTM layer below `module`."""
    for name, child in list(module.named_children()):
        if isinstance(child, LSTM):
            setattr(module, name, ReducedLSTM(child, recurrence))
        else:
            reduce_recurrence(child, recurrence)
