"""Timings: which frames speak which symbol of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PAUSE = -1  #: in a timing: the symbol of frames that speak none
SHORTEST_PAUSE = 0.3  #: seconds without a symbol, between two symbols, that are a pause
SHORTEST_EDGE_PAUSE = 0.1  #: seconds without a symbol, at the start or the end of a clip, that are a pause
#: CTC places a symbol where the model recognizes it, not from its start to its end. So the first seconds of a pause
#: count as the symbol before it, and the last seconds as the symbol after it.
TAIL, HEAD = 0.08, 0.06


@dataclass(frozen=True)
class Timing:
    """The symbols of a clip in order, PAUSE among them, and the number of frames of each, at least 1."""

    symbols: list[int]
    frames: list[int]

    def by_frame(self) -> list[int]:
        """Return the symbol of each frame."""
        return [s for s, n in zip(self.symbols, self.frames, strict=True) for _ in range(n)]

    def intervals(self) -> list[tuple[int, int]]:
        """Return the first frame of each symbol and the frame after its last one, without pauses."""
        ends = np.cumsum([0, *self.frames]).tolist()
        spans = zip(self.symbols, ends[:-1], ends[1:], strict=True)
        return [(start, end) for symbol, start, end in spans if symbol != PAUSE]

    def spoken_symbols(self) -> list[int]:
        """Return the symbols without pauses."""
        return [symbol for symbol in self.symbols if symbol != PAUSE]


def change_rate(frames: Sequence[int], rate: float) -> tuple[list[int], list[int]]:
    """Divide the duration of runs of frames by `rate`; every run keeps at least one frame.

    frames: of each run. Returns the new number of frames of each run, and for each new frame the frame it is copied
    from.
    """
    ends = np.rint(np.cumsum([0, *frames]) / rate)
    changed = [max(1, int(n)) for n in np.diff(ends)]
    starts = np.cumsum([0, *frames[:-1]]).tolist()
    sources = [
        start + int((i + 0.5) * before / after)
        for start, before, after in zip(starts, frames, changed, strict=True)
        for i in range(after)
    ]
    return changed, sources


def best_path(scores: np.ndarray, symbols: list[int]) -> np.ndarray:
    """Find the most likely CTC path through a text (Viterbi).

    scores: log-probabilities [T, V], the blank last. Returns for each frame the index into `symbols`, -1 for the blank:
    int64 [T]. Raises ValueError if the clip has too few frames for the text.
    """
    count, frames = len(symbols), len(scores)
    blank = scores.shape[1] - 1
    states = np.full(2 * count + 1, blank)  # a blank, the first symbol, a blank, the second symbol, ..., a blank
    states[1::2] = symbols
    may_skip = np.zeros(len(states), bool)  # the blank between two different symbols
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    steps = np.zeros((frames, len(states)), np.int8)  # states that the best path advances by to reach this one
    for t in range(1, frames):
        one, two = np.full((2, len(states)), -np.inf)
        one[1:], two[2:] = best[:-1], best[:-2]
        two[~may_skip] = -np.inf
        candidates = np.stack([best, one, two])
        steps[t] = candidates.argmax(0)
        best = candidates.max(0) + scores[t, states]
    state = len(states) - 1 - (count > 0 and best[-2] > best[-1])
    if best[state] == -np.inf:
        raise ValueError(f"{frames} frames are too few for {count} symbols")
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = (state - 1) // 2 if state % 2 else -1
        state -= steps[t, state]
    return path


def timing_of_path(path: np.ndarray, symbols: list[int], frame_rate: float) -> Timing:
    """Convert a path of `best_path` to a timing: a short gap is divided between its two symbols, a long one is a pause.

    frame_rate: frames per second.
    """
    pause, edge_pause, tail, head = (
        round(seconds * frame_rate) for seconds in (SHORTEST_PAUSE, SHORTEST_EDGE_PAUSE, TAIL, HEAD)
    )
    spoken = np.flatnonzero(path >= 0)
    index = path[spoken]
    first = spoken[np.searchsorted(index, np.arange(len(symbols)), "left")]
    last = spoken[np.searchsorted(index, np.arange(len(symbols)), "right") - 1]
    ends: list[tuple[int, int]] = []  # (symbol or PAUSE, the frame after its last one)
    if first[0] >= edge_pause + head:
        ends.append((PAUSE, int(first[0]) - head))
    for i, symbol in enumerate(symbols[:-1]):
        gap = first[i + 1] - last[i] - 1
        if gap >= pause + tail + head:
            ends += [(symbol, int(last[i]) + 1 + tail), (PAUSE, int(first[i + 1]) - head)]
        else:
            ends.append((symbol, int(last[i] + first[i + 1] + 1) // 2))
    rest = len(path) - 1 - int(last[-1])
    if rest >= edge_pause + tail:
        ends += [(symbols[-1], int(last[-1]) + 1 + tail), (PAUSE, len(path))]
    else:
        ends.append((symbols[-1], len(path)))
    return Timing([symbol for symbol, _ in ends], np.diff([0, *(end for _, end in ends)]).tolist())
