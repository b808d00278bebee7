"""Power: the size of a test that finds a difference, by the variance that `inference` estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vocable.evaluation.listening.inference import LEVEL, LOST_IN_DIFFERENCES, LOST_IN_MEANS, freedom_of
from vocable.evaluation.listening.kinds import Spread
from vocable.extras import need

MOST_LISTENERS = 2000  #: of a planned test


@dataclass(frozen=True)
class Size:
    """The size of a test."""

    listeners: int
    clips: int
    answers: float  #: to each system (or pair), by one listener
    comparisons: int  #: tests that Holm's method corrects for
    compares: bool  #: whether a score belongs to a pair, so that a mean is tested and not a difference


def power(effect: float, spread: Spread, size: Size) -> float:
    """Return the probability of finding a difference with its sign, at the level of Holm's first and strictest step."""
    systems = 1 if size.compares else 2  #: whose variances add
    total = size.listeners * size.answers
    answers = systems * spread.residual**2 / total
    listeners = systems * spread.listener_system**2 / size.listeners + answers
    clips = systems * spread.clip_system**2 / size.clips + answers
    variance = listeners + clips - answers
    n, m = max(size.listeners, 2), max(size.clips, 2)
    lost = LOST_IN_MEANS if size.compares else LOST_IN_DIFFERENCES
    freedom = float(freedom_of(variance, listeners, clips, answers, n, m, lost=lost))
    return power_of(effect, math.sqrt(variance), freedom, size.comparisons)


def power_of(effect: float, error: float, freedom: float, comparisons: int) -> float:
    """Return the power for a difference whose standard error and degrees of freedom are known."""
    stats = need("scipy.stats", "listen")
    critical = stats.t.ppf(1 - LEVEL / comparisons / 2, freedom)
    return float(stats.nct.sf(critical, freedom, effect / error))  # a difference with the wrong sign is not found


def detectable(wanted: float, error: float, freedom: float, comparisons: int) -> float:
    """Return the difference that is found with the power `wanted`, about."""
    stats = need("scipy.stats", "listen")
    return float(error * (stats.t.ppf(1 - LEVEL / comparisons / 2, freedom) + stats.t.ppf(wanted, freedom)))


def listeners_needed(effect: float, wanted: float, spread: Spread, size: Size, *, step: int) -> int:
    """Return the fewest listeners, a multiple of `step`, that reach the power `wanted`. size.listeners is not used.

    Raises ValueError if no number does, because there are too few clips.
    """
    low, high = 1, max(1, MOST_LISTENERS // step)

    def enough(blocks: int) -> bool:
        listeners = blocks * step
        trial = Size(listeners, size.clips, size.answers, size.comparisons, size.compares)
        return listeners > 1 and power(effect, spread, trial) >= wanted

    if not enough(high):
        raise ValueError(
            f"a difference of {effect:g} is not found with a power of {wanted:g} by {high * step} listeners: raise "
            "clips or detect, or lower spread.clip_system"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low * step
