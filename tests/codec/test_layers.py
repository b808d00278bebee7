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
def test_kept_arrangements_change_no_bit() -> None:
    torch.manual_seed(0)
    layer = LSTM(24, 40).eval()
    for length in (1, 7, 50):
        for batch in (1, 3):
            x = torch.randn(batch, length, 24)
            assert torch.equal(layer(x), plain(layer, x))
    assert torch.backends.mkldnn.is_available() == (layer._arranged is not None)


@torch.no_grad()
def test_kept_arrangements_follow_the_weights() -> None:
    torch.manual_seed(0)
    layer, x = LSTM(24, 40).eval(), torch.randn(1, 9, 24)
    before = layer(x)
    layer.weight_hh_l0.mul_(2)
    assert torch.equal(layer(x), plain(layer, x)) and not torch.equal(layer(x), before)
    layer.load_state_dict(LSTM(24, 40).state_dict())
    assert torch.equal(layer(x), plain(layer, x))
    layer.weight_ih_l0.data = torch.randn(160, 24)
    assert torch.equal(layer(x), plain(layer, x))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    layer.double()
    assert layer(x.double()).dtype == torch.float64


@pytest.mark.parametrize("mode", ["gradients", "autocast", "inference mode"])
def test_the_plain_way_where_weights_may_not_be_kept(mode: str) -> None:
    torch.manual_seed(0)
    if mode == "inference mode":
        with torch.inference_mode():  # weights that are born there count no changes
            layer, x = LSTM(24, 40).eval(), torch.randn(1, 9, 24)
            assert torch.equal(layer(x), plain(layer, x))
    else:
        layer, x = LSTM(24, 40), torch.randn(1, 9, 24)
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            layer(x).float().sum().backward()
        assert layer.weight_hh_l0.grad is not None
    assert layer._arranged is None
