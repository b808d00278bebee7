"""What the mean of a few hundred clips can tell: intervals, and paired differences, by resampling speakers.

Clips of one speaker are alike, so speakers are drawn anew with all their clips; a clip whose speaker is unknown stands
for itself. A figure is a ratio of sums over clips (word edits over words, or a sum of scores over clips).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 10_000  #: draws of speakers


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval over speakers; an interval of one speaker is the figure itself."""

    value: float
    low: float
    high: float
    clips: int

    def scaled(self, scale: float) -> dict[str, float]:
        """As JSON, times `scale` (100 for percent)."""
        bounds = {key: round(float(value) * scale, 6) for key, value in asdict(self).items() if key != "clips"}
        return bounds | {"clips": self.clips}


@dataclass(frozen=True)
class Difference(Figure):
    """A figure of A less that of B on the same clips. p: two-sided, of the resampled differences."""

    p: float


def figure(scores: Sequence[Sequence[float]], speakers: Sequence[str], seed: int = 0) -> Figure:
    """Sum over count of `scores` (sum, count), one for each clip; ValueError if there are none."""
    totals = _by_speaker(scores, speakers)
    drawn = totals[_draws(len(totals), seed)].sum(1)
    low, high = np.quantile(_ratio(drawn), [0.025, 0.975])
    return Figure(float(_ratio(totals.sum(0))), float(low), float(high), len(scores))


def difference(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], speakers: Sequence[str], seed: int = 0
) -> Difference:
    """A less B, clip by clip: `a[i]`, `b[i]` and `speakers[i]` are of one clip, and the same speakers are drawn."""
    totals = _by_speaker(a, speakers), _by_speaker(b, speakers)
    draws = _draws(len(totals[0]), seed)
    drawn = _ratio(totals[0][draws].sum(1)) - _ratio(totals[1][draws].sum(1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = _ratio(totals[0].sum(0)) - _ratio(totals[1].sum(0))
    # As many draws on the wrong side as there are, and one more: p is never 0.
    p = 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn))
    return Difference(float(value), float(low), float(high), len(a), float(min(p, 1.0)))


def _by_speaker(scores: Sequence[Sequence[float]], speakers: Sequence[str]) -> np.ndarray:
    if not len(scores):
        raise ValueError("there is no clip to take a figure of")
    _, index = np.unique(np.asarray(speakers), return_inverse=True)
    totals = np.zeros((index.max() + 1, 2))
    np.add.at(totals, index, np.asarray(scores, float))
    return totals


def _draws(speakers: int, seed: int) -> np.ndarray:
    """The same for every system that has the same speakers."""
    return np.random.default_rng(seed).integers(speakers, size=(RESAMPLES, speakers))


def _ratio(totals: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = totals[..., 0] / np.where(totals[..., 1] == 0, np.nan, totals[..., 1])
    return ratio
