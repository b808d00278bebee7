"""Draw tokens from a model's logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Options for drawing codes. Raises ValueError for values out of range."""

    temperature: float = 0.5  #: 0 takes the most likely code; otherwise 0.01 or more
    top_k: int = 0  #: draw from the k most likely codes only; 0: from all
    #: Draw from the smallest set of most likely codes with this probability in sum (Holtzman et al., arXiv 1904.09751).
    top_p: float = 0.95
    #: A code that is among the last `window` codes more than `repeats` times is drawn again without top_k and top_p, so
    #: that loops end (VALL-E 2, arXiv 2406.05370). repeats 0: never.
    window: int = 10
    repeats: int = 5
    #: Seconds after which a pause ends, in models with timings. With 2 s the shipped AR loses a third more words on the
    #: development set.
    longest_pause: float = 0.8

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or 0.01 <= self.temperature < math.inf):
            raise ValueError(f"temperature must be 0, or 0.01 or more, not {self.temperature}")
        if not 0 < self.longest_pause < math.inf:
            raise ValueError(f"longest_pause must be more than 0 seconds, not {self.longest_pause}")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or self.window < 0 or self.repeats < 0:
            raise ValueError(
                f"top_k, window and repeats must be 0 or more, top_p more than 0 and at most 1, not {self}"
            )


DEFAULT_SAMPLING = Sampling()


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator, last: Tensor | None = None) -> Tensor:
    """Draw one token per row: logits [B, V], -inf for tokens that are not allowed, -> int64 [B].

    last: the tokens drawn before, the newest last, int64 [B, W]; for `Sampling.repeats`.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scores = logits.float() / sampling.temperature
    drawn = _multinomial(_truncate(scores, sampling), generator)
    if last is not None and sampling.repeats and last.shape[1]:
        looping = (last[:, -sampling.window :] == drawn[:, None]).sum(1) > sampling.repeats
        if looping.any():
            drawn = torch.where(looping, _multinomial(scores, generator), drawn)
    return drawn


def _truncate(scores: Tensor, sampling: Sampling) -> Tensor:
    """Set all scores but those that top_k and top_p keep to -inf."""
    if not sampling.top_k and sampling.top_p == 1:
        return scores
    ordered, order = scores.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    dropped = probabilities.cumsum(-1) - probabilities >= sampling.top_p  # the most likely token is never dropped
    if sampling.top_k:
        dropped[:, sampling.top_k :] = True
    return scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)


def _multinomial(scores: Tensor, generator: torch.Generator) -> Tensor:
    # On the CPU, so that a seed gives the same tokens whatever device the model runs on.
    return torch.multinomial(scores.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(scores.device)
