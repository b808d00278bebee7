"""Losses at known values."""

from __future__ import annotations

import math

import pytest
import torch

from vocable.semantic.distillation import centred, d_axis_cosine, d_axis_loss, t_axis_loss, unit_loss


def test_d_axis_loss_has_the_paper_s_floor_and_start() -> None:
    teacher = torch.randn(3, 50, 7)
    assert d_axis_loss(2.5 * teacher, teacher).item() == pytest.approx(0.3133, abs=1e-3)
    assert d_axis_loss(-teacher, teacher).item() == pytest.approx(1.3133, abs=1e-3)
    quarter = torch.arange(50) * torch.pi / 25
    a, b = quarter.sin()[None, :, None], quarter.cos()[None, :, None]
    assert d_axis_loss(a, b).item() == pytest.approx(0.6931, abs=1e-3)
    # The axis is time: swapping features leaves nothing, shifting a feature in time does.
    assert d_axis_loss(teacher.roll(1, 1), teacher) > 0.6


def test_a_constant_gains_nothing_from_centred_features() -> None:
    features, offset = torch.randn(3, 50, 7), 5 * torch.randn(3, 1, 7)
    raw = (features + offset).half()
    out = centred(raw)
    assert out.dtype == torch.float32 and out.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(out, centred(features), atol=0.02, rtol=0)
    constant = offset.expand(-1, 50, -1) + 0.01 * torch.randn(3, 50, 7)
    assert d_axis_cosine(constant, raw).mean() > 0.8, "as much as a teacher's raw features give away"
    assert d_axis_cosine(centred(constant), out).abs().mean() < 0.3


def test_t_axis_loss_has_known_values() -> None:
    teacher = torch.randn(3, 50, 7)
    assert t_axis_loss(teacher, teacher).item() == pytest.approx(0.3133, abs=1e-4)
    assert t_axis_loss(torch.zeros_like(teacher), teacher).item() == pytest.approx(0.6931 + 1, abs=1e-4)
    # A scale leaves the cosine at 1; opposite is -1. The L1 term is relative, so that the teacher's scale is no matter.
    assert t_axis_loss(1.5 * teacher, teacher).item() == pytest.approx(0.3133 + 0.5, abs=1e-4)
    assert t_axis_loss(-teacher, teacher).item() == pytest.approx(1.3133 + 2, abs=1e-4)
    assert t_axis_loss(150 * teacher, 100 * teacher).item() == pytest.approx(0.3133 + 0.5, abs=1e-4)
    # Orthogonal in every frame.
    student, other = torch.eye(2)[[0, 1]][None], torch.eye(2)[[1, 0]][None]
    assert t_axis_loss(student, other).item() == pytest.approx(0.6931 + 2, abs=1e-4)
    # The axis is features: frames stand for themselves.
    order = torch.randperm(50)
    student = torch.randn(3, 50, 7)
    torch.testing.assert_close(t_axis_loss(student[:, order], teacher[:, order]), t_axis_loss(student, teacher))
    assert torch.isfinite(t_axis_loss(student, torch.zeros_like(student)))


def test_unit_loss_has_known_values() -> None:
    units = torch.randint(0, 11, (3, 20))
    assert unit_loss(torch.zeros(3, 20, 11), units).item() == pytest.approx(math.log(11), abs=1e-5)
    certain = 100 * torch.nn.functional.one_hot(units, 11)
    assert unit_loss(certain, units).item() == pytest.approx(0, abs=1e-5)
    # Frames past the teacher's end do not count, whatever the student says there.
    logits = torch.randn(3, 20, 11)
    before = unit_loss(logits[:, :15], units[:, :15])
    units[:, 15:], logits[:, 15:] = -100, 1e4
    torch.testing.assert_close(unit_loss(logits, units), before)
    assert unit_loss(logits, torch.full_like(units, -100)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_lead_down(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    features, units = torch.randn(2, 30, 6), torch.randint(0, 6, (2, 30))
    for loss, target in ((d_axis_loss, features), (t_axis_loss, features), (unit_loss, units)):
        student = torch.randn(2, 30, 6, dtype=dtype, requires_grad=True)
        value = loss(student, target)
        value.backward()
        assert value.dtype == torch.float32 and value.shape == ()
        assert student.grad.abs().sum(-1).min() > 0, "every frame hears of it"
        assert loss(student - student.grad, target) < value
