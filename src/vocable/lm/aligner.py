"""Which frames speak which symbol: a small CTC recogniser on the codec's vectors, and its best path through a text.

Six hours of speech teach a language model no alignment. This does, in minutes: it is trained on the same speech and
texts, in any language, and needs no lexicon and no other recogniser.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

PAUSE = -1  #: in a timing, in a symbol's place: frames that speak none
PAUSE_FRAMES = 15  #: without any symbol, between two, make a pause; at the ends of a clip, a third of that
LAYERS, KERNEL, DROPOUT = 5, 7, 0.1  #: of the recogniser
REACH = LAYERS * (KERNEL // 2)  #: frames that it hears to each side: 0.3 s
#: Of a pause, what still belongs to the symbol before, and already to the one behind: CTC names a sound when it knows
#: it, not from its start to its end.
TAIL, HEAD = 4, 3


@dataclass(frozen=True)
class AlignerConfig:
    dimension: int  #: of the codec's code vectors
    num_symbols: int
    hidden: int = 256


@dataclass(frozen=True)
class Timing:
    """What is spoken when: symbols, PAUSE among them, and the frames of each, one or more."""

    symbols: list[int]
    frames: list[int]

    def by_frame(self) -> list[int]:
        """The symbol of each frame."""
        return [s for s, n in zip(self.symbols, self.frames, strict=True) for _ in range(n)]


class Aligner(nn.Module):
    """Vectors of codes [B, T, D] -> log-probabilities of symbols [B, T, symbols + 1]; the last is CTC's blank.

    Convolutions, because what they name lies where they look: a recurrence may name a sound long after.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.register_buffer("mean", torch.zeros(config.dimension))
        self.register_buffer("deviation", torch.ones(config.dimension))
        self.first = nn.Linear(config.dimension, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(LAYERS))
        self.convs = nn.ModuleList(nn.Conv1d(hidden, hidden, KERNEL, padding=KERNEL // 2) for _ in range(LAYERS))
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(hidden, config.num_symbols + 1)

    def forward(self, vectors: Tensor, num_frames: Tensor) -> Tensor:
        inside = (torch.arange(vectors.shape[1], device=vectors.device) < num_frames[:, None])[..., None]
        x = self.first((vectors - self.mean) / self.deviation)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            heard = conv((norm(x) * inside).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(nn.functional.gelu(heard))
        return self.head(x).float().log_softmax(-1)  # type: ignore[no-any-return]

    def loss(self, vectors: Tensor, num_frames: Tensor, symbols: Tensor, num_symbols: Tensor) -> Tensor:
        """CTC (Graves et al. 2006), a mean over clips by their lengths: symbols int64 [B, S], num_symbols [B]."""
        scores = self(vectors, num_frames)
        return self._ctc(scores, num_frames, symbols, num_symbols, zero_infinity=True).mean()

    @torch.inference_mode()
    def align(self, vectors: Tensor, symbols: list[int]) -> Timing:
        """The timing of one clip [T, D] that says `symbols`. Raises ValueError for a clip too short to say them."""
        scores = self(vectors[None], torch.tensor([len(vectors)], device=vectors.device))[0]
        return timing(best_path(scores.cpu().numpy(), symbols), symbols)

    @torch.inference_mode()
    def likelihood(self, scores: Tensor, num_frames: Tensor, symbols: Tensor, num_symbols: Tensor) -> Tensor:
        """How well clips can be heard to say `symbols`: CTC's log-likelihood of them, a mean over symbols, [B]. -inf
        for clips too short to say them, and where there is none. scores: the aligner's, of each clip; the others as in
        `loss`, and num_frames may be 0."""
        return -self._ctc(scores, num_frames, symbols, num_symbols).masked_fill(num_symbols == 0, torch.inf)

    def _ctc(
        self, scores: Tensor, num_frames: Tensor, symbols: Tensor, num_symbols: Tensor, zero_infinity: bool = False
    ) -> Tensor:
        """Nats a symbol, [B]."""
        blank = self.config.num_symbols
        nats = nn.functional.ctc_loss(
            scores.transpose(0, 1), symbols, num_frames, num_symbols, blank, "none", zero_infinity=zero_infinity
        )
        return nats / num_symbols.clamp(min=1)


def best_path(scores: np.ndarray, symbols: list[int]) -> np.ndarray:
    """The likeliest CTC path of a text: log-probabilities [T, V], the blank last -> int64 [T], the place in the text of
    each frame's symbol, or -1. Raises ValueError where there is no path."""
    count, frames = len(symbols), len(scores)
    blank = scores.shape[1] - 1
    states = np.full(2 * count + 1, blank)
    states[1::2] = symbols
    may_skip = np.zeros(len(states), bool)  # over the blank before, to another symbol
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    came_from = np.zeros((frames, len(states)), np.int8)
    for t in range(1, frames):
        one, two = np.full((2, len(states)), -np.inf)
        one[1:], two[2:] = best[:-1], best[:-2]
        two[~may_skip] = -np.inf
        ways = np.stack([best, one, two])
        came_from[t] = ways.argmax(0)
        best = ways.max(0) + scores[t, states]
    state = len(states) - 1 - (count > 0 and best[-2] > best[-1])
    if best[state] == -np.inf:
        raise ValueError(f"{frames} frames are too few for {count} symbols")
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = (state - 1) // 2 if state % 2 else -1
        state -= came_from[t, state]
    return path


def timing(path: np.ndarray, symbols: list[int]) -> Timing:
    """What a path says of when each symbol is spoken: symbols meet halfway, and long gaps are pauses."""
    spoken = np.flatnonzero(path >= 0)
    place = path[spoken]
    first = spoken[np.searchsorted(place, np.arange(len(symbols)), "left")]
    last = spoken[np.searchsorted(place, np.arange(len(symbols)), "right") - 1]
    parts: list[tuple[int, int]] = []  # a symbol, and the frame that it ends before
    if first[0] >= PAUSE_FRAMES // 3 + HEAD:
        parts.append((PAUSE, int(first[0]) - HEAD))
    for i, symbol in enumerate(symbols[:-1]):
        gap = first[i + 1] - last[i] - 1
        if gap >= PAUSE_FRAMES + TAIL + HEAD:
            parts += [(symbol, int(last[i]) + 1 + TAIL), (PAUSE, int(first[i + 1]) - HEAD)]
        else:
            parts.append((symbol, int(last[i] + first[i + 1] + 1) // 2))
    rest = len(path) - 1 - int(last[-1])
    if rest >= PAUSE_FRAMES // 3 + TAIL:
        parts += [(symbols[-1], int(last[-1]) + 1 + TAIL), (PAUSE, len(path))]
    else:
        parts.append((symbols[-1], len(path)))
    stops = [stop for _, stop in parts]
    return Timing([symbol for symbol, _ in parts], np.diff([0, *stops]).tolist())
