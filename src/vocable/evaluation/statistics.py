"""What the mean of a few hundred clips can tell: intervals, and paired differences, by resampling speakers.

Clips of one speaker are alike, so speakers are drawn anew with all their clips; a clip whose speaker is unknown stands
for itself. A figure is a ratio of sums over clips (word edits over words, or a sum of scores over clips).

Few speakers drawn from themselves vary less than speakers do. So the quantiles are taken further out, as a t-interval's
would be (Hesterberg, arXiv 1411.5279, section 5.3, "expanded percentile"); under FEWEST there is no interval at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocable.extras import need

RESAMPLES = 10_000  #: draws of speakers
FEWEST = 5  #: speakers that have an interval


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval over speakers, which is NaN where there are too few of them."""

    value: float
    low: float
    high: float
    clips: int
    speakers: int

    def scaled(self, scale: float) -> dict[str, float]:
        """As JSON, times `scale` (100 for percent); without an interval where there is none."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        scaled = {key: round(value * scale, 6) for key, value in bounds.items() if not math.isnan(value)}
        return scaled | {"clips": self.clips, "speakers": self.speakers}


@dataclass(frozen=True)
class Difference(Figure):
    """A figure of A less that of B on the same clips. p: two-sided, of the resampled differences, and widened as the
    interval is, so that the one is under .05 where the other leaves out 0; NaN like these."""

    p: float


def figure(scores: Sequence[Sequence[float]], speakers: Sequence[str], seed: int = 0) -> Figure:
    """Sum over count of `scores` (sum, count), one for each clip; ValueError if there are none."""
    totals = _by_speaker(scores, speakers)
    drawn = _ratio(totals[_draws(len(totals), seed)].sum(1))
    return Figure(float(_ratio(totals.sum(0))), *_interval(drawn, len(totals)), len(scores), len(totals))


def difference(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], speakers: Sequence[str], seed: int = 0
) -> Difference:
    """A less B, clip by clip: `a[i]`, `b[i]` and `speakers[i]` are of one clip, and the same speakers are drawn."""
    totals = _by_speaker(a, speakers), _by_speaker(b, speakers)
    count = len(totals[0])
    draws = _draws(count, seed)
    drawn = _ratio(totals[0][draws].sum(1)) - _ratio(totals[1][draws].sum(1))
    value = float(_ratio(totals[0].sum(0)) - _ratio(totals[1].sum(0)))
    # As many draws on the wrong side as there are, and one more: p is never 0.
    tail = (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn))
    p = min(1.0, 2 * _widened_tail(tail, count)) if count >= FEWEST else math.nan
    return Difference(value, *_interval(drawn, count), len(a), count, p)


def order(
    claim: str, rows: Sequence[Mapping[str, Any]], above: str, below: str, name: str, scale: float, seed: int
) -> str:
    """A sentence on a claim: that a figure of one system's rows is above that of another's, clip by clip."""
    known = [row for row in rows if row.get(name)]
    found = [{row["clip"]: row for row in known if row["system"] == system} for system in (above, below)]
    both = [clip for clip in found[0] if clip in found[1]]
    if not both:
        return f"{claim}: not measured."
    a, b = ([clips[clip][name] for clip in both] for clips in found)
    d = difference(a, b, [found[0][clip]["speaker_id"] for clip in both], seed)
    if math.isnan(d.low):
        return f"{claim}: {d.value * scale:+.3f}, of too few speakers for an interval."
    verdict = "holds here" if d.low > 0 else "does not hold here" if d.high < 0 else "cannot be told from chance here"
    return f"{claim}: {verdict}, {d.value * scale:+.3f} ({d.low * scale:+.3f} to {d.high * scale:+.3f})."


def _interval(drawn: np.ndarray, speakers: int) -> tuple[float, float]:
    if speakers < FEWEST:
        return math.nan, math.nan
    stats = need("scipy.stats", "eval")
    share = float(stats.norm.cdf(math.sqrt(speakers / (speakers - 1)) * stats.t.ppf(0.025, speakers - 1)))
    low, high = np.quantile(drawn, [share, 1 - share])
    return float(low), float(high)


def _widened_tail(tail: float, speakers: int) -> float:
    """What a share of draws beyond a value tells of that value: the inverse of how `_interval` takes its quantiles."""
    stats = need("scipy.stats", "eval")
    return float(stats.t.cdf(stats.norm.ppf(tail) / math.sqrt(speakers / (speakers - 1)), speakers - 1))


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
