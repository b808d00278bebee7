"""The learning rate over a run: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math

FINAL_FACTOR = 0.01  #: factor on the learning rate at the end of a run


def learning_rate_factor(progress: float, *, warmup: float, max_steps: int) -> float:
    """Return the factor on the highest learning rate, 0 to 1.

    progress: fraction of the run that is done. warmup: fraction of the run over which the factor rises to 1.
    max_steps: steps of the whole run; the first step is taken as being one step into it, so its factor is not 0.
    """
    progress = min(progress, 1.0)
    if progress < warmup:
        return min(1.0, max(progress, 1 / max_steps) / warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    return FINAL_FACTOR + (1 - FINAL_FACTOR) * cosine
