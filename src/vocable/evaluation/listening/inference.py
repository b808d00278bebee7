"""Means, differences, intervals and tests of scores by listeners of clips; both are random samples.

Scores are arrays [..., S, N, M]: systems (or pairs of systems), listeners, clips; NaN where there is no answer. All
functions take any leading axes, so that a thousand simulated studies are one call.

The variance of a mean over listeners and clips is V_L + V_C - V_E: the variances of sums by listener, by clip, and by
single answer (two-way clustering; Cameron, Gelbach and Miller 2011). It is estimated without bias whether or not every
listener heard every clip. Intervals are t-intervals with Satterthwaite's degrees of freedom. A bootstrap that draws
listeners and clips at once counts the variance of single answers three times (Owen 2007), so its intervals are too
wide for designs in which each listener hears each clip once; tests/evaluation/listening compares both.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocable.extras import need

LEVEL = 0.05  #: of tests; intervals contain 1 - LEVEL
#: Degrees of freedom that are lost of the numbers of listeners and of clips. With 1, the usual number, simulated MUSHRA
#: studies of 12 clips found differences that do not exist in 5.8 % instead of 5 %, because the variances in
#: Satterthwaite's formula are estimates; with 4, in 4.3 %.
LOST_IN_MEANS, LOST_IN_DIFFERENCES = 1, 4
SWEEPS = 4  #: over systems, listeners and clips; the first suffices where a design is balanced


@dataclass(frozen=True)
class Estimate:
    """Means or differences, arrays of equal shape [...]."""

    value: np.ndarray
    error: np.ndarray  #: standard error
    freedom: np.ndarray  #: degrees of freedom

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of the 95 % interval."""
        half = need("scipy.stats", "listen").t.ppf(1 - LEVEL / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    def p(self, null: float = 0.0) -> np.ndarray:
        """Return the two-sided p-value of the hypothesis that the true value is `null`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.value - null) / self.error
        tail: np.ndarray = 2 * need("scipy.stats", "listen").t.sf(t, self.freedom)
        return np.where(self.error > 0, tail, np.where(self.value == null, 1.0, 0.0))


def means(scores: np.ndarray) -> Estimate:
    """Return the mean of each system: [..., S, N, M] -> [..., S]."""
    value, influence = _influences(scores)
    return Estimate(value, *_error(influence, lost=LOST_IN_MEANS))


def differences(scores: np.ndarray) -> Estimate:
    """Return the differences of all pairs of systems, in the order of `pairs`: [..., S, N, M] -> [..., P].

    Scores are adjusted for listeners and clips first, so that it does not matter who judged which system. Where all
    listeners judged the same, the differences are those of the means.
    """
    value, influence = _influences(_adjusted(scores))
    influence = influence * np.sqrt(_inflation(scores))[..., None, None, None]
    estimates = []
    for a, b in pairs(scores.shape[-3]):
        difference = influence[..., a, :, :] - influence[..., b, :, :]
        estimates.append((value[..., a] - value[..., b], *_error(difference, lost=LOST_IN_DIFFERENCES)))
    return Estimate(*(np.stack(parts, -1) for parts in zip(*estimates, strict=True)))


def pairs(count: int) -> list[tuple[int, int]]:
    """Return all pairs (a, b), a < b, of `count` systems."""
    return list(itertools.combinations(range(count), 2))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected by Holm's method for the tests along the last axis."""
    order = np.argsort(p, axis=-1)
    count = p.shape[-1]
    scaled = np.take_along_axis(p, order, -1) * np.arange(count, 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(1.0, np.maximum.accumulate(scaled, -1)), -1)
    return corrected


def reliabilities(scores: np.ndarray) -> np.ndarray:
    """Return for each listener the correlation with the mean of the others: [S, N, M] -> [N].

    It is taken over the systems and clips that the listener judged. NaN for constant answers.
    """
    known = np.isfinite(scores)
    total, count = np.where(known, scores, 0).sum(1), known.sum(1)
    found = np.full(scores.shape[1], np.nan)
    for listener in range(scores.shape[1]):
        own = known[:, listener] & (count > 1)
        mine = scores[:, listener][own]
        others = (total[own] - mine) / (count[own] - 1)
        if len(mine) > 2 and np.ptp(mine) > 0 and np.ptp(others) > 0:
            found[listener] = np.corrcoef(mine, others)[0, 1]
    return found


def _adjusted(scores: np.ndarray) -> np.ndarray:
    """Subtract the effects of listeners and clips, of an additive model of systems, listeners and clips."""
    known = np.isfinite(scores)
    rest = np.where(known, scores, 0.0)
    effects = np.zeros_like(rest)

    def mean(axes: tuple[int, int]) -> np.ndarray:
        average: np.ndarray = rest.sum(axes, keepdims=True) / np.maximum(known.sum(axes, keepdims=True), 1)
        return np.where(known, average, 0.0)

    for _ in range(SWEEPS):
        rest = rest - mean((-2, -1))
        for axes in ((-3, -1), (-3, -2)):  # listeners, clips
            effect = mean(axes)
            effects, rest = effects + effect, rest - effect
    return scores - effects


def _inflation(scores: np.ndarray) -> np.ndarray:
    """Return by how much the adjustment lowers the variance of scores: answers, over those less estimated effects."""
    known = np.isfinite(scores)
    answers = known.sum((-3, -2, -1))
    effects = known.any((-3, -1)).sum(-1) + known.any((-3, -2)).sum(-1) - 2
    inflation: np.ndarray = answers / np.maximum(answers - effects, 1)
    return inflation


def _influences(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means [..., S], and how much each answer moves its mean: [..., S, N, M], 0 without an answer."""
    known = np.isfinite(scores)
    count = known.sum((-2, -1), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, scores, 0).sum((-2, -1), keepdims=True) / count
        influence = np.where(known, (scores - mean) / count, 0.0)
    return mean[..., 0, 0], influence


def _error(influence: np.ndarray, *, lost: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard error and its degrees of freedom: [..., N, M] -> [...] each."""
    by_listener, by_clip = influence.sum(-1), influence.sum(-2)
    n, m = (influence != 0).any(-1).sum(-1), (influence != 0).any(-2).sum(-1)
    n, m = np.maximum(n, 2), np.maximum(m, 2)
    listeners = n / (n - 1) * (by_listener**2).sum(-1)
    clips = m / (m - 1) * (by_clip**2).sum(-1)
    count = np.maximum((influence != 0).sum((-2, -1)), 2)
    answers = count / (count - 1) * (influence**2).sum((-2, -1))
    # Each of the two is at most the variance, up to chance; the difference may become negative by chance.
    variance = np.maximum(listeners + clips - answers, np.maximum(listeners, clips))
    return np.sqrt(variance), freedom_of(variance, listeners, clips, answers, n, m, lost=lost)


def freedom_of(variance: Any, listeners: Any, clips: Any, answers: Any, n: Any, m: Any, *, lost: int) -> np.ndarray:
    """Return Satterthwaite's degrees of freedom of V_L + V_C - V_E, by the numbers of listeners and of clips."""
    of_listeners, of_clips = np.maximum(n - lost, 1), np.maximum(m - lost, 1)
    uncertainty = listeners**2 / of_listeners + clips**2 / of_clips + answers**2 / ((n - 1) * (m - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(uncertainty > 0, variance**2 / uncertainty, 1.0)
