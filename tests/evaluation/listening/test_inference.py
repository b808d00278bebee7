from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vocable.evaluation.listening import design, inference


def effects(rng: np.random.Generator, shape: tuple[int, int, int, int], **spreads: float) -> np.ndarray:
    """Scores around 0 with random effects of listener, clip, both with the system, and answer: [K, S, N, M]."""
    k, s, n, m = shape
    shapes = {"l": (k, 1, n, 1), "c": (k, 1, 1, m), "ls": (k, s, n, 1), "cs": (k, s, 1, m), "e": shape}
    return sum((spreads[name] * rng.normal(size=size) for name, size in shapes.items()), np.zeros(shape))


MUSHRA = {"l": 8, "c": 4, "ls": 6, "cs": 4, "e": 10}
MOS = {"l": 0.4, "c": 0.25, "ls": 0.2, "cs": 0.15, "e": 0.7}


def heard_once(systems: int, listeners: int, clips: int) -> np.ndarray:
    trials = design.single_trials(systems, clips, listeners, versions=1, seed=0)
    return design.heard(trials, systems, clips)


def test_one_clip_for_each_listener_is_the_t_test() -> None:
    rng = np.random.default_rng(0)
    scores = np.full((1, 12, 12), np.nan)
    scores[0][np.diag_indices(12)] = rng.normal(3, 1, 12)
    found = inference.means(scores)
    answers = scores[np.isfinite(scores)]
    assert found.value[0] == pytest.approx(answers.mean())
    assert found.error[0] == pytest.approx(stats.sem(answers))


@pytest.mark.parametrize(("spreads", "shape", "once"), [(MUSHRA, (6, 24, 12), False), (MOS, (6, 24, 24), True)])
def test_intervals_contain_the_true_mean_and_chance_is_not_found(
    spreads: dict[str, float], shape: tuple[int, int, int], once: bool
) -> None:
    scores = effects(np.random.default_rng(1), (400, *shape), **spreads)
    if once:
        scores = np.where(heard_once(*shape), scores, np.nan)
    low, high = inference.means(scores).interval()
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.97
    p = inference.differences(scores).p()
    assert 0.03 <= (p < 0.05).mean() <= 0.06
    assert (inference.holm(p) < 0.05).any(-1).mean() <= 0.06


def test_a_bootstrap_of_listeners_and_clips_is_too_wide_where_each_clip_is_heard_once() -> None:
    """The reason for two-way variances: the bootstrap's intervals contain the truth nearly always."""
    rng, shape = np.random.default_rng(2), (6, 24, 24)
    heard = heard_once(*shape)
    scores = effects(rng, (40, *shape), **MOS)
    covered = []
    for study in scores:
        weights = [rng.multinomial(24, np.full(24, 1 / 24), size=400).astype(float) for _ in range(2)]
        total, count = (
            np.einsum("rn,snm,rm->sr", weights[0], x, weights[1], optimize=True) for x in (study * heard, heard * 1.0)
        )
        low, high = np.quantile(total / count, [0.025, 0.975], axis=1)
        covered.append((low <= 0) & (high >= 0))
    assert np.mean(covered) > 0.975


def test_differences_do_not_depend_on_who_judged_what() -> None:
    scores = effects(np.random.default_rng(3), (1, 3, 9, 12), l=5, c=5, ls=0, cs=0, e=0)[0]
    scores += np.array([2.0, 1.0, 0.0])[:, None, None]
    scores[:, 0, :6] = np.nan  # a listener who left early
    scores = np.where(heard_once(3, 9, 12), scores, np.nan)
    assert inference.differences(scores).value == pytest.approx([1, 2, 1], abs=0.02)
    raw = inference.means(scores).value
    assert abs(raw[0] - raw[1] - 1) > 0.05


def test_equal_scores_are_no_difference() -> None:
    scores = np.full((2, 6, 4), 80.0)
    found = inference.differences(scores)
    assert found.value == [0] and found.p() == [1]
    assert inference.means(scores).p(null=50.0).tolist() == [0, 0]


def test_holm() -> None:
    assert inference.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_reliability_of_listeners() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(20, 90, (6, 1, 10))
    scores = truth + rng.normal(0, 5, (6, 8, 10))
    scores[:, 0] = rng.uniform(0, 100, (6, 10))
    scores[:, 1] = 50
    found = inference.reliabilities(scores)
    assert abs(found[0]) < 0.4 and np.isnan(found[1]) and (found[2:] > 0.85).all()
