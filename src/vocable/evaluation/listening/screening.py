"""Post-screening: which listeners are left out, by rules that are fixed before the answers are known.

MUSHRA (ITU-R BS.1534-3, 4.1.2): a listener is left out who rates the hidden reference below 90 in more than 15 % of the
trials, or the 7 kHz anchor above 90 in more than 15 % of the trials. Clips whose 7 kHz anchor is rated above 90 by more
than a quarter of all listeners do not count in the second rule: the anchor is too good there.

The other kinds have attention checks, clips that end in beeps, whose number is the answer. A listener is left out who
fails more than a quarter of them, or who gave the same answer in every trial.

All functions take any leading axes, as in `inference`.
"""

from __future__ import annotations

import numpy as np

GOOD = 90.0  #: MUSHRA score
TRIALS = 0.15  #: fraction of trials that may miss it
TOO_GOOD = 0.25  #: fraction of listeners above GOOD from which the anchor of a clip does not count
FAILED = 0.25  #: fraction of attention checks that may fail


def misses_reference(reference: np.ndarray) -> np.ndarray:
    """Return which listeners miss the hidden reference too often: scores [..., N, M] -> bool [..., N]."""
    return _fraction(reference < GOOD, np.isfinite(reference)) > TRIALS


def misses_anchor(anchor: np.ndarray) -> np.ndarray:
    """Return which listeners rate the 7 kHz anchor too high too often: scores [..., N, M] -> bool [..., N]."""
    known = np.isfinite(anchor)
    above = known & (anchor > GOOD)
    counts = known & (_fraction(above.swapaxes(-1, -2), known.swapaxes(-1, -2)) <= TOO_GOOD)[..., None, :]
    return _fraction(above & counts, counts) > TRIALS


def fails_checks(failed: np.ndarray) -> np.ndarray:
    """Return which listeners fail too many checks: float [..., N, checks], 1 failed, 0 passed, NaN not taken."""
    return _fraction(failed == 1, np.isfinite(failed)) > FAILED


def is_constant(answers: np.ndarray) -> np.ndarray:
    """Return which listeners gave the same answer in every trial: answers [..., N, trials] -> bool [..., N]."""
    known = np.isfinite(answers)
    low, high = np.where(known, answers, np.inf).min(-1), np.where(known, answers, -np.inf).max(-1)
    constant: np.ndarray = (low == high) & (known.sum(-1) > 2)
    return constant


def _fraction(events: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the fraction of known trials with an event, over the last axis; 0 where nothing is known."""
    fraction: np.ndarray = (events & known).sum(-1) / np.maximum(known.sum(-1), 1)
    return fraction
