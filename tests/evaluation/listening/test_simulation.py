"""Simulated studies: what intervals, tests, screening and planning promise, they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import run_command
from vocable.evaluation.listening import simulation
from vocable.evaluation.listening.plan import Plan

PLANS = {
    "mushra": {"systems": ("a", "b", "c", "d", "e"), "clips": 12},
    "mos": {"systems": ("a", "b", "c", "d", "e", "f"), "clips": 24},
    "smos": {"systems": ("a", "b", "c", "d"), "clips": 16, "versions": 2},
    "preference": {"systems": ("a", "b", "c"), "clips": 12},
    "abx": {"systems": ("a", "b"), "clips": 12},
}


def checked(kind: str, studies: int, careless: float) -> dict[str, float]:
    """Simulate a plan whose number of listeners is planned by power."""
    plan = Plan(kind=kind, manifest="", dropout=careless, **PLANS[kind]).sized()
    design = simulation.Design(plan.scale, plan.heard(), plan.checks, careless, plan.scale.spread)
    return simulation.check(design, effect=plan.effect, studies=studies, seed=5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(PLANS))
def test_a_thousand_studies(kind: str) -> None:
    found = checked(kind, 1000, careless=0.15)
    print(kind, found)
    assert 0.93 <= found["covered"] <= 0.97
    assert found["found_by_chance"] <= 0.05
    assert found["found"] >= 0.8
    assert found["careless_excluded"] >= (0.85 if kind == "abx" else 0.97)  # two answers: guessing passes checks
    assert found["attentive_excluded"] <= 0.02


def test_fewer_studies() -> None:
    found = checked("preference", 100, careless=0.1)
    assert 0.9 <= found["covered"] <= 1.0 and found["found_by_chance"] <= 0.1 and found["found"] >= 0.75


def test_true_means_are_those_of_the_limited_scale() -> None:
    plan = Plan(kind="mos", manifest="", systems=("a", "b"), clips=100, listeners=200)
    design = simulation.Design(plan.scale, plan.heard(), 0, 0.0, plan.scale.spread)
    truth = simulation.true_means(np.array([3.0, 4.8]), design)
    assert truth[0] == pytest.approx(3.0) and truth[1] < 4.6  # a mean of 4.8 cannot be reached: 5 is the highest
    part = next(iter(simulation.simulate(np.array([3.0, 4.8]), design, studies=50, seed=0)))
    assert np.nanmean(part.scores, (0, 2, 3)) == pytest.approx(truth, abs=0.03)


def test_the_command_prints_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("kind: mos\nmanifest: m.jsonl\nsystems: [recording, fast]\nclips: 8\nlisteners: 8\n")
    assert run_command("listen", "simulate", path, "--studies", 10) == 0
    assert "intervals that contain the true mean" in capsys.readouterr().out
    assert run_command("listen", "simulate", path, "--rehearse", tmp_path / "a") == 2
    assert "name its key.json" in capsys.readouterr().err
