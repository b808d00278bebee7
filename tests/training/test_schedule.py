from __future__ import annotations

import pytest

from vocable.training.schedule import FINAL_FACTOR, learning_rate_factor


def factor(progress: float, warmup: float = 0.1) -> float:
    return learning_rate_factor(progress, warmup=warmup, max_steps=100)


def test_the_learning_rate_rises_and_falls_to_a_hundredth() -> None:
    assert factor(0.0) == pytest.approx(0.1), "the first of 100 steps is a tenth of the warm-up"
    assert factor(0.05) == pytest.approx(0.5)
    assert factor(0.1) == 1.0
    assert factor(0.55) == pytest.approx((1 + FINAL_FACTOR) / 2)
    assert factor(1.0) == factor(1.2) == pytest.approx(FINAL_FACTOR)


def test_without_a_warm_up_the_first_step_has_the_highest_learning_rate() -> None:
    assert factor(0.0, warmup=0.0) == 1.0
