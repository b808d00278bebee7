from __future__ import annotations

import numpy as np

from vocable.evaluation.listening import screening


def test_listeners_who_miss_the_hidden_reference() -> None:
    reference = np.full((3, 20), 100.0)
    reference[0, :3] = 89  # 15 %, which is allowed
    reference[1, :4] = 89
    assert screening.misses_reference(reference).tolist() == [False, True, False]


def test_listeners_who_miss_the_anchor_and_clips_where_it_is_too_good() -> None:
    anchor = np.full((8, 10), 50.0)
    anchor[0, :2] = 95
    anchor[1:4, 9] = 95  # three of eight: this clip does not count
    anchor[1, 8] = 95
    assert screening.misses_anchor(anchor).tolist() == [True] + [False] * 7


def test_attention_checks_and_constant_answers() -> None:
    failed = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [np.nan] * 4])
    assert screening.fails_checks(failed).tolist() == [False, True, False]
    answers = np.array([[4.0, 4, 4, np.nan], [4, 4, 3, 4], [5, np.nan, np.nan, np.nan]])
    assert screening.is_constant(answers).tolist() == [True, False, False]
