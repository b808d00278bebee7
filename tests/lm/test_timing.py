"""Timings: the best path of a text, where symbols meet, and pauses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocable.lm.timing import PAUSE, Timing, best_path, change_rate, timing_of_path


def paths(symbols: list[int], frames: int) -> list[list[int]]:
    """Every CTC path of a text, as places of symbols, -1 the blank; by trying all."""
    found = []
    for path in itertools.product(range(-1, len(symbols)), repeat=frames):
        runs = [place for place, _ in itertools.groupby(path) if place >= 0]
        apart = all(
            symbols[a] != symbols[b] or -1 in path[len(path) - 1 - path[::-1].index(a) : path.index(b)]
            for a, b in itertools.pairwise(runs)
        )
        if runs == list(range(len(symbols))) and apart:
            found.append(list(path))
    return found


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(1, 6), st.integers(0, 999))
def test_the_best_of_all_paths(symbols: list[int], frames: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(frames, 4))
    every = paths(symbols, frames)
    if not every:
        with pytest.raises(ValueError, match="too few"):
            best_path(scores, symbols)
        return

    def score(path: list[int]) -> float:
        return sum(scores[t, symbols[place] if place >= 0 else 3] for t, place in enumerate(path))

    assert score(best_path(scores, symbols).tolist()) == pytest.approx(max(map(score, every)))


@given(st.data())
def test_timings_cover_every_frame(data: st.DataObject) -> None:
    symbols = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    path: list[int] = []
    for place in range(len(symbols)):
        path += [-1] * data.draw(st.integers(0, 40)) + [place] * data.draw(st.integers(1, 4))
    path += [-1] * data.draw(st.integers(0, 40))
    found = timing_of_path(np.array(path), symbols, 50.0)
    assert sum(found.frames) == len(path) and min(found.frames) >= 1
    assert [s for s in found.symbols if s != PAUSE] == symbols
    assert all({a, b} != {PAUSE} for a, b in itertools.pairwise(found.symbols)), "no pause after a pause"
    frames = found.by_frame()
    for t, place in enumerate(path):
        if place >= 0:
            assert frames[t] == symbols[place], "a symbol is spoken where it was heard"


def test_symbols_meet_halfway_and_long_gaps_are_pauses() -> None:
    path = [-1] * 10 + [0] * 2 + [-1] * 4 + [1] * 2 + [-1] * 30 + [2] + [-1] * 2
    found = timing_of_path(np.array(path), [7, 8, 9], 50.0)
    assert found.symbols == [PAUSE, 7, 8, PAUSE, 9]
    assert found.frames == [7, 7, 8, 23, 6]


def test_limits_are_seconds_whatever_the_frame_rate() -> None:
    path = [-1] * 10 + [0] * 2 + [-1] * 4 + [1] * 2 + [-1] * 30 + [2] + [-1] * 2
    at_50 = timing_of_path(np.array(path), [7, 8, 9], 50.0)
    at_100 = timing_of_path(np.array(path).repeat(2), [7, 8, 9], 100.0)
    assert at_100.symbols == at_50.symbols
    assert max(abs(a - 2 * b) for a, b in zip(at_100.frames, at_50.frames, strict=True)) <= 1


def test_intervals_are_those_of_symbols_not_of_pauses() -> None:
    assert Timing([PAUSE, 3, 3, PAUSE, 5], [2, 1, 4, 3, 1]).intervals() == [(2, 3), (3, 7), (10, 11)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.floats(0.5, 2.0))
def test_a_rate_divides_runs_and_keeps_their_order(frames: list[int], rate: float) -> None:
    assert change_rate(frames, 1.0) == (frames, list(range(sum(frames))))
    changed, sources = change_rate(frames, rate)
    assert len(sources) == sum(changed) and sources == sorted(sources) and min(changed) >= 1
    runs = np.repeat(np.arange(len(frames)), frames)
    assert runs[sources].tolist() == np.repeat(np.arange(len(frames)), changed).tolist()
    if min(frames) > 2 * rate:
        assert sum(changed) == pytest.approx(sum(frames) / rate, abs=0.51)
