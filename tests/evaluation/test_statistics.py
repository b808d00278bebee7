from __future__ import annotations

import numpy as np
import pytest

from vocable.evaluation import statistics


def test_a_figure_is_a_ratio_of_sums() -> None:
    found = statistics.figure([(1, 10), (3, 10), (2, 20), (1, 5), (1, 5)], ["a", "b", "c", "d", "e"])
    assert found.value == pytest.approx(8 / 50)
    assert found.low <= found.value <= found.high
    assert (found.clips, found.speakers) == (5, 5)


def test_too_few_speakers_have_no_interval() -> None:
    found = statistics.figure([(1, 10), (3, 10)], ["a", "a"])
    assert found.value == 0.2 and np.isnan(found.low) and np.isnan(found.high)
    assert found.scaled(100.0) == {"value": 20.0, "clips": 2, "speakers": 1}
    four = [(1, 10), (3, 10), (2, 10), (2, 10)]
    assert np.isnan(statistics.difference(four, four, ["a", "b", "c", "d"]).p)


@pytest.mark.parametrize("count", [5, 20])
def test_the_interval_contains_the_true_value_in_95_percent(count: int) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        speakers = np.repeat(np.arange(count), 4)
        scores = 0.5 + rng.normal(0, 0.2, count)[speakers] + rng.normal(0, 0.1, 4 * count)
        found = statistics.figure([(s, 1) for s in scores], [str(s) for s in speakers], seed=trial)
        held += found.low <= 0.5 <= found.high
    assert 175 <= held <= 198  # clips taken for independent would hold it in about 130


def test_a_paired_difference_is_significant_where_intervals_overlap() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.2, 0.8, 40)
    a, b = [(v + 0.02 + rng.normal(0, 0.01), 1) for v in base], [(v, 1) for v in base]
    speakers = [str(i // 2) for i in range(40)]
    found = statistics.difference(a, b, speakers)
    assert found.low > 0 and found.p < 0.002
    assert statistics.figure(a, speakers).low < statistics.figure(b, speakers).high
    back = statistics.difference(b, a, speakers)
    assert (back.value, back.p) == (pytest.approx(-found.value), found.p)


@pytest.mark.parametrize("count", [5, 8, 20])
def test_p_and_the_interval_agree(count: int) -> None:
    rng = np.random.default_rng(2)
    found = []
    for shift in np.linspace(0.0, 2.5, 12) / np.sqrt(count):
        a, b = ([(float(v), 1) for v in rng.normal(mean, 1, count)] for mean in (shift, 0.0))
        found.append(statistics.difference(a, b, [str(i) for i in range(count)]))
    assert all((d.p < 0.05) == (d.low > 0 or d.high < 0) for d in found if abs(d.p - 0.05) > 1e-3)
    assert any(d.p < 0.5 for d in found)


def test_no_difference_is_no_difference() -> None:
    same = [(float(i), 1) for i in range(8)]
    found = statistics.difference(same, same, [str(i) for i in range(8)])
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_no_scores() -> None:
    with pytest.raises(ValueError, match="no clip"):
        statistics.figure([], [])


def test_a_claim_is_judged_by_the_clips_that_have_the_figure() -> None:
    speakers = [f"s{i}" for i in range(12)]
    rows = [
        {"clip": s, "speaker_id": s, "system": system, "bits": [value, 1.0]}
        for system, value in (("a", 2.0), ("b", 1.0))
        for s in speakers
    ]
    without = [{"clip": "new", "speaker_id": "new", "system": "a"}, {"clip": "new", "speaker_id": "new", "system": "b"}]
    assert "holds here, +1.000" in statistics.verdict("a above b", rows + without, "a", "b", "bits", scale=1.0, seed=0)
    assert "does not hold here" in statistics.verdict("b above a", rows + without, "b", "a", "bits", scale=1.0, seed=0)
    assert (
        statistics.verdict("a above c", rows + without, "a", "c", "bits", scale=1.0, seed=0)
        == "a above c: not measured."
    )
    assert "too few speakers" in statistics.verdict(
        "a above b", rows[:1] + rows[12:13], "a", "b", "bits", scale=1.0, seed=0
    )
