"""How a token is drawn from what a model thinks of all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How to draw.

    temperature 0 takes the likeliest; else it is 0.01 or more. top_k: of the likeliest k alone (0: of all). top_p: of
    the likeliest that hold this much of the probability (Holtzman et al., arXiv 1904.09751). repeats: a code drawn more
    often than this among the last `window` is drawn again from all of them, so that loops end (VALL-E 2, arXiv
    2406.05370; 0: never). longest_pause: frames, after which speech with timings goes on; the default is 0.8 s.
    """

    temperature: float = 0.5
    top_k: int = 0
    top_p: float = 0.95
    window: int = 10
    repeats: int = 5
    longest_pause: int = 40  # with 100 the shipped AR loses a third more words, on dev

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or 0.01 <= self.temperature < math.inf):
            raise ValueError(f"temperature is 0, or 0.01 and more, not {self.temperature}")
        if self.longest_pause < 1:
            raise ValueError(f"longest_pause is 1 frame or more, not {self.longest_pause}")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or self.window < 0 or self.repeats < 0:
            raise ValueError(f"top_k, window and repeats are 0 or more, and top_p is above 0 and at most 1, not {self}")


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator, last: Tensor | None = None) -> Tensor:
    """One token of each row: logits [B, V], -inf for what is not allowed, -> int64 [B].

    last: int64 [B, W], the tokens drawn before, the newest at the end; for repetitions.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scores = logits.float() / sampling.temperature
    drawn = _multinomial(_narrowed(scores, sampling), generator)
    if last is not None and sampling.repeats and last.shape[1]:
        looping = (last[:, -sampling.window :] == drawn[:, None]).sum(1) > sampling.repeats
        if looping.any():
            drawn = torch.where(looping, _multinomial(scores, generator), drawn)
    return drawn


def _narrowed(scores: Tensor, sampling: Sampling) -> Tensor:
    """Scores with -inf for all but the likeliest."""
    if not sampling.top_k and sampling.top_p == 1:
        return scores
    ordered, order = scores.sort(-1, descending=True)
    chances = ordered.softmax(-1)
    dropped = chances.cumsum(-1) - chances >= sampling.top_p  # the first is never dropped
    if sampling.top_k:
        dropped[:, sampling.top_k :] = True
    return scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)


def _multinomial(scores: Tensor, generator: torch.Generator) -> Tensor:
    # On the CPU, whatever the model runs on: a seed draws alike everywhere.
    return torch.multinomial(scores.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(scores.device)
