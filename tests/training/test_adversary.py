from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vocable.training.adversary import Adversary
from vocable.training.discriminators import (
    PeriodDiscriminator,
    paper_discriminators,
    slim_discriminators,
    stft_discriminators,
)
from vocable.training.recipe import AdversaryRecipe


def multiplications(module: nn.Module, waveform: torch.Tensor) -> int:
    """Count the multiplications of the convolutions in a forward pass."""
    total = 0

    def count(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    handles = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))]
    for discriminator in module:
        discriminator(waveform)
    for handle in handles:
        handle.remove()
    return total


@torch.no_grad()
def test_slim_discriminators_take_half_a_gflop_per_second() -> None:
    assert 2 * multiplications(slim_discriminators(), torch.randn(1, 16_000)) <= 0.5e9


@torch.no_grad()
def test_stft_discriminators_take_about_twice_as_much() -> None:
    waveform = torch.randn(1, 16_000)
    slim, stft = (multiplications(make(), waveform) for make in (slim_discriminators, stft_discriminators))
    assert 2 < stft / slim < 2.5
    for scores, features in (discriminator(waveform[:, :4000]) for discriminator in stft_discriminators()):
        assert scores.shape[0] == 1 and torch.isfinite(scores).all() and len(features) == 5


@torch.no_grad()
def test_the_papers_sizes() -> None:
    discriminators = paper_discriminators()
    flop = 2 * multiplications(discriminators[:8], torch.randn(1, 16_000))
    assert 30e9 < flop < 36e9, "five periods and three scales: about 33 GFLOP a second"
    assert sum(p.numel() for p in discriminators[:5].parameters()) == pytest.approx(41.1e6, rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("length", [4000, 4001])
def test_a_period_discriminator_is_hifi_gans(length: int) -> None:
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(5, (8, 16, 16))
    waveform = torch.randn(2, length)
    scores, features = discriminator(waveform)
    x = F.pad(waveform, (0, -length % 5), mode="reflect").view(2, 1, -1, 5)  # as its authors fold
    for layer, activations in zip(discriminator.layers, features, strict=False):
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding), 0.1)
        torch.testing.assert_close(activations.transpose(2, 3), x)
    last = discriminator.layers[-1]
    x = F.conv2d(x, last.weight, last.bias, last.stride, last.padding)
    torch.testing.assert_close(scores.view(2, 1, 5, -1).transpose(2, 3), x)


def test_one_real_pass_serves_both_sides() -> None:
    torch.manual_seed(0)
    adversary = Adversary(AdversaryRecipe(weight=1.0), torch.device("cpu"))
    original, decoded = torch.randn(2, 4000), torch.randn(2, 4000, requires_grad=True)
    gradients = []
    for with_losses in (False, True):
        real = adversary.real_pass(original)
        if with_losses:
            sum(adversary.losses(decoded, real).values()).backward()
            assert all(p.grad is None for p in adversary.discriminators.parameters()), "the codec's gradients alone"
        adversary.discriminator_step(decoded, real)
        gradients.append([p.grad.clone() for p in adversary.discriminators.parameters()])
        adversary.updater.clear()
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("loss", ["hinge", "lsgan"])
@pytest.mark.parametrize("normalize", [True, False])
def test_discriminators_learn_and_the_codec_gets_gradients(loss: str, normalize: bool) -> None:
    torch.manual_seed(0)
    adversary = Adversary(AdversaryRecipe(weight=1.0, loss=loss, normalize=normalize, shown=2 / 3), torch.device("cpu"))
    original = 0.1 * torch.randn(3, 4000).cumsum(1).sin()
    decoded = (original + 0.1 * torch.randn(3, 4000)).requires_grad_()
    figures = []
    for _ in range(20):
        figures.append(adversary.discriminator_step(decoded, adversary.real_pass(original)))
        assert adversary.updater.update(1.0) is not None
    first, last = figures[0], figures[-1]
    assert last["discriminators"] < first["discriminators"] and last["judged_right"] >= first["judged_right"]
    losses = adversary.losses(decoded, adversary.real_pass(original))
    (losses["adversarial"] + losses["features"]).backward()
    assert decoded.grad is not None and decoded.grad[:2].any() and not decoded.grad[2].any(), "the first two clips"
    assert all(p.requires_grad for p in adversary.discriminators.parameters())
    with torch.no_grad():
        fooled = adversary.losses(original, adversary.real_pass(original))
    assert fooled["features"] == 0 < losses["features"]
