from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from vocable.codec.layers import LSTM


def plain(layer: LSTM, x: torch.Tensor) -> torch.Tensor:
    return nn.LSTM.forward(layer, x)[0]


@torch.no_grad()
def test_every_way_of_writing_weights_counts_at_once() -> None:
    torch.manual_seed(0)
    layer, x = LSTM(24, 40).eval(), torch.randn(1, 9, 24)

    def write(name: str) -> None:
        weight = layer.weight_hh_l0
        if name == "in place":
            weight.mul_(2)
        elif name == "state dict":
            layer.load_state_dict(LSTM(24, 40).state_dict())
        elif name == "data":
            layer.weight_ih_l0.data = torch.randn(160, 24)
        elif name == "data in place":
            weight.data.mul_(3)
        elif name == "average":
            weight.data.copy_(torch.randn_like(weight))
        elif name == "one value":
            weight.data[3, 4] += 5

    for name in ("in place", "state dict", "data", "data in place", "average", "one value"):
        before = layer(x)
        write(name)
        assert torch.equal(layer(x), plain(layer, x)) and not torch.equal(layer(x), before), name
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    layer.double()
    assert layer(x.double()).dtype == torch.float64


@pytest.mark.parametrize("mode", ["gradients", "autocast", "inference mode"])
def test_where_layers_run(mode: str) -> None:
    torch.manual_seed(0)
    if mode == "inference mode":
        with torch.inference_mode():
            layer, x = LSTM(24, 40).eval(), torch.randn(1, 9, 24)
            assert torch.equal(layer(x), plain(layer, x))
    else:
        layer, x = LSTM(24, 40), torch.randn(1, 9, 24)
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            layer(x).float().sum().backward()
        assert layer.weight_hh_l0.grad is not None
