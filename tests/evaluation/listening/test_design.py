from __future__ import annotations

from collections import Counter

import pytest

from vocable.evaluation.listening import design


@pytest.mark.parametrize(("conditions", "clips", "versions"), [(4, 10, 1), (6, 6, 2), (3, 7, 3)])
def test_each_condition_meets_each_clip_and_place_equally_often(conditions: int, clips: int, versions: int) -> None:
    listeners = 2 * conditions
    sessions = design.single_trials(conditions, clips, listeners, versions=versions, seed=0)
    assert [len(session) for session in sessions] == [clips * versions] * listeners
    with_clip = Counter(trial for session in sessions for trial in session)
    assert set(with_clip.values()) == {2 * versions} and len(with_clip) == conditions * clips
    at_place = Counter((place, trial.condition) for session in sessions for place, trial in enumerate(session))
    assert set(at_place.values()) == {2}
    for session in sessions:
        assert len(set(session)) == len(session)
        assert {trial.clip for trial in session[:clips]} == set(range(clips))
        counts = Counter(trial.condition for trial in session)
        assert max(counts.values()) - min(counts.values()) <= versions


def test_each_stimulus_is_at_each_place_equally_often() -> None:
    sessions = design.full_trials(5, 4, 10, seed=0)
    places = Counter(
        (clip, place, stimulus)
        for session in sessions
        for clip, order in session
        for place, stimulus in enumerate(order)
    )
    assert set(places.values()) == {2} and len(places) == 4 * 5 * 5
    assert all(sorted(clip for clip, _ in session) == [0, 1, 2, 3] for session in sessions)
    first = Counter((place, session[place][0]) for session in sessions[:8] for place in range(4))
    assert set(first.values()) == {2}


def test_seeds_change_the_design() -> None:
    a, b, c = (design.single_trials(3, 5, 3, versions=1, seed=seed) for seed in (0, 0, 1))
    assert a == b != c
