"""Figures of many clips, their intervals, and paired differences, by resampling speakers.

A figure is a ratio of sums over clips: word edits over words, or a sum of scores over the number of clips. Clips of one
speaker are correlated, so the bootstrap draws speakers, each with all clips. A clip whose speaker is unknown counts as
a speaker of its own.

A bootstrap of few speakers underestimates their variance. So the quantiles are expanded to those of a t-interval
(Hesterberg, arXiv 1411.5279, section 5.3, "expanded percentile"). With fewer than FEWEST speakers there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocable.extras import need

RESAMPLES = 10_000  #: of the bootstrap
FEWEST = 5  #: the fewest speakers with which there is an interval


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval, which is NaN with fewer than FEWEST speakers."""

    value: float
    low: float  #: lower bound of the interval
    high: float  #: upper bound of the interval
    clips: int  #: the number of clips
    speakers: int  #: the number of speakers

    def scaled(self, scale: float) -> dict[str, float]:
        """Return the figure as JSON, multiplied by `scale` (100: percent); without low and high if they are NaN."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        scaled = {key: round(value * scale, 6) for key, value in bounds.items() if not math.isnan(value)}
        return scaled | {"clips": self.clips, "speakers": self.speakers}


@dataclass(frozen=True)
class Difference(Figure):
    """A figure of system A minus that of system B on the same clips."""

    #: Two-sided bootstrap p-value with the same small-sample correction as the interval: p < .05 exactly when the
    #: interval excludes 0. NaN with fewer than FEWEST speakers.
    p: float


def figure(scores: Sequence[Sequence[float]], speakers: Sequence[str], *, seed: int = 0) -> Figure:
    """Return the figure of `scores`, (sum, count) for each clip, and its interval. Raises ValueError without scores."""
    totals = _by_speaker(scores, speakers)
    drawn = _ratio(totals[_draws(len(totals), seed)].sum(1))
    return Figure(float(_ratio(totals.sum(0))), *_interval(drawn, len(totals)), len(scores), len(totals))


def difference(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], speakers: Sequence[str], *, seed: int = 0
) -> Difference:
    """Return the difference A - B, paired: `a[i]`, `b[i]` and `speakers[i]` belong to one clip."""
    totals = _by_speaker(a, speakers), _by_speaker(b, speakers)
    count = len(totals[0])
    draws = _draws(count, seed)
    drawn = _ratio(totals[0][draws].sum(1)) - _ratio(totals[1][draws].sum(1))
    value = float(_ratio(totals[0].sum(0)) - _ratio(totals[1].sum(0)))
    # Adding 1 to the count of resamples beyond 0 and to their number keeps p above 0.
    tail = (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn))
    p = min(1.0, 2 * _widened_tail(tail, count)) if count >= FEWEST else math.nan
    return Difference(value, *_interval(drawn, count), len(a), count, p)


def verdict(
    claim: str, rows: Sequence[Mapping[str, Any]], above: str, below: str, name: str, *, scale: float, seed: int
) -> str:
    """Return a sentence on whether a claim holds: the figure `name` of the system `above` exceeds that of `below`.

    Clips in which a system lacks the figure are left out. scale: factor of the difference in the sentence.
    """
    known = [row for row in rows if row.get(name)]
    found = [{row["clip"]: row for row in known if row["system"] == system} for system in (above, below)]
    both = [clip for clip in found[0] if clip in found[1]]
    if not both:
        return f"{claim}: not measured."
    a, b = ([clips[clip][name] for clip in both] for clips in found)
    d = difference(a, b, [found[0][clip]["speaker_id"] for clip in both], seed=seed)
    if math.isnan(d.low):
        return f"{claim}: {d.value * scale:+.3f}, of too few speakers for an interval."
    result = "holds here" if d.low > 0 else "does not hold here" if d.high < 0 else "cannot be told from chance here"
    return f"{claim}: {result}, {d.value * scale:+.3f} ({d.low * scale:+.3f} to {d.high * scale:+.3f})."


def _interval(drawn: np.ndarray, speakers: int) -> tuple[float, float]:
    if speakers < FEWEST:
        return math.nan, math.nan
    stats = need("scipy.stats", "eval")
    tail = float(stats.norm.cdf(math.sqrt(speakers / (speakers - 1)) * stats.t.ppf(0.025, speakers - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _widened_tail(tail: float, speakers: int) -> float:
    """Correct the fraction of resamples beyond a value: the inverse of the expansion in `_interval`."""
    stats = need("scipy.stats", "eval")
    return float(stats.t.cdf(stats.norm.ppf(tail) / math.sqrt(speakers / (speakers - 1)), speakers - 1))


def _by_speaker(scores: Sequence[Sequence[float]], speakers: Sequence[str]) -> np.ndarray:
    if not len(scores):
        raise ValueError("no clip has this figure")
    _, index = np.unique(np.asarray(speakers), return_inverse=True)
    totals = np.zeros((index.max() + 1, 2))
    np.add.at(totals, index, np.asarray(scores, float))
    return totals


def _draws(speakers: int, seed: int) -> np.ndarray:
    """Draw speakers [RESAMPLES, speakers], in the same way for all systems that have the same speakers."""
    return np.random.default_rng(seed).integers(speakers, size=(RESAMPLES, speakers))


def _ratio(totals: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = totals[..., 0] / np.where(totals[..., 1] == 0, np.nan, totals[..., 1])
    return ratio
