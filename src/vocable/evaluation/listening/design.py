"""Balanced designs: which listener hears which condition of which clip, at which place.

A condition is whatever is judged at once: a system, or an ordered pair of systems. Listeners are numbered from 0; those
of one block (as many as there are conditions) hear each clip once in every condition, and every condition once at each
place. So designs are balanced when the number of listeners is a multiple of the number of conditions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Trial(NamedTuple):
    """One step of a listener's test."""

    clip: int
    condition: int


def latin_square(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random Latin square: int [size, size], each row and each column a permutation of 0 to size - 1."""
    square = (np.arange(size)[:, None] + np.arange(size)) % size
    rows, columns, symbols = (rng.permutation(size) for _ in range(3))
    found: np.ndarray = symbols[square[rows][:, columns]]
    return found


def single_trials(conditions: int, clips: int, listeners: int, *, versions: int, seed: int) -> list[list[Trial]]:
    """Return each listener's trials, of one condition each: `versions` passes over all clips, no condition twice."""
    rng = np.random.default_rng(seed)
    design: list[list[Trial]] = []
    while len(design) < listeners:
        # table[clip, listener]: the condition of the first pass. Later passes shift it, so that no condition repeats.
        squares = [latin_square(conditions, rng) for _ in range(-(-clips // conditions))]
        table = np.concatenate(squares)[rng.permutation(len(squares) * conditions)[:clips]]
        symbols = rng.permutation(conditions)
        block: list[list[Trial]] = [[] for _ in range(conditions)]
        for shift in range(versions):
            for clip in rng.permutation(clips):
                for listener, trials in enumerate(block):
                    trials.append(Trial(int(clip), int(symbols[(table[clip, listener] + shift) % conditions])))
        design += block
    return design[:listeners]


def full_trials(stimuli: int, clips: int, listeners: int, *, seed: int) -> list[list[tuple[int, list[int]]]]:
    """Return each listener's trials, of all stimuli of a clip: the clip, and the stimuli in the order of their places.

    Over each block of `stimuli` listeners, every stimulus of a clip is once at each place of the screen. Over each
    block of `clips` listeners, every clip is once at each place of the session.
    """
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    sessions: list[np.ndarray] = []
    while len(places) < listeners:
        squares = [latin_square(stimuli, rng) for _ in range(clips)]
        places += [np.stack([square[row] for square in squares]) for row in range(stimuli)]
    while len(sessions) < listeners:
        sessions += list(latin_square(clips, rng))
    return [
        [(int(clip), places[listener][clip].tolist()) for clip in sessions[listener]] for listener in range(listeners)
    ]


def heard(trials: list[list[Trial]], conditions: int, clips: int) -> np.ndarray:
    """Return which conditions of which clips each listener hears: bool [conditions, listeners, clips]."""
    found = np.zeros((conditions, len(trials), clips), bool)
    for listener, own in enumerate(trials):
        for trial in own:
            found[trial.condition, listener, trial.clip] = True
    return found
