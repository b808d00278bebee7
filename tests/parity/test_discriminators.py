"""The paper's discriminators are the official package's: the same weights give the same scores and activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vocable.training.discriminators import paper_discriminators

pytest.importorskip("matplotlib")  # the official losses, beside the discriminators, import it
peers = pytest.importorskip("peers")


def convolutions(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))]


@torch.no_grad()
def test_scores_and_activations_are_the_official_ones() -> None:
    try:
        parts = peers._official_module("discriminators")
    except ImportError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    theirs = [
        *parts.MultiPeriodDiscriminator().discriminators,
        *parts.MultiScaleDiscriminator().discriminators,
        *parts.MultiScaleSTFTDiscriminator(32).discriminators,
    ]
    waveform = 0.1 * torch.randn(2, 9000)
    pooled = waveform.unsqueeze(1)
    for number, (ours, official) in enumerate(zip(paper_discriminators(), theirs, strict=True)):
        ours.eval(), official.eval()
        for layer, source in zip(convolutions(ours), convolutions(official), strict=True):
            layer.bias.copy_(source.bias)
            if number == 5:  # spectral norm divides by an estimate of its own
                parametrization = layer.parametrizations.weight
                parametrization.original.copy_(source.weight_orig)
                parametrization[0]._u.copy_(source.weight_u)
                parametrization[0]._v.copy_(source.weight_v)
            else:
                layer.weight = source.weight.detach()
        if number in (6, 7):  # theirs is pooled by its parent
            pooled = nn.functional.avg_pool1d(pooled, 4, 2, padding=2)
        seen = pooled if 5 <= number < 8 else waveform.unsqueeze(1)
        score, features = ours(waveform)
        expected, expected_features = official(seen)
        if number < 8:  # their last activation is the score
            expected_features = expected_features[:-1]
        torch.testing.assert_close(score.flatten(1).sort(1).values, expected.flatten(1).sort(1).values)
        assert len(features) == len(expected_features)
        for one, other in zip(features, expected_features, strict=True):
            torch.testing.assert_close(one.abs().mean(), other.abs().mean())
