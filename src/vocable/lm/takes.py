"""Takes: versions of a text's speech that AR writes, and the tokens that may come next in each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vocable.lm.ar import AR, ARConfig
from vocable.lm.sampling import Sampling
from vocable.lm.timing import PAUSE, Timing

LONGEST_SYMBOL = 0.8  #: seconds after which a symbol ends
#: Seconds that a symbol of the text lasts on average: with less, speech stopped early; with more, it is cut off.
LEAST_MEAN_SYMBOL, MOST_MEAN_SYMBOL = 0.04, 0.3
LOOP = 1.0  #: seconds of codes without a new one that are a loop
#: Seconds between two judgements of the takes, if every token were a frame; symbols are tokens too, so it is less.
JUDGE_EVERY = 0.5


@dataclass
class Take:
    """One version of a text's speech, as AR wrote it."""

    codes: list[int] = field(default_factory=list)  #: RVQ-1
    timing: Timing = field(default_factory=lambda: Timing([], []))  #: of its symbols; empty without timings
    #: Symbols of the text that are spoken to their end; without timings 0 until the end, then all.
    num_finished: int = 0
    finished_frames: int = 0  #: frames up to the end of these symbols
    #: What a judge computed for a take, to reuse it at its next call. Copies of a take share it: replace it, never
    #: change it in place.
    judge_state: Tensor | None = None
    log_likelihood: float = 0.0  #: of all tokens that the model chose, in nats
    warnings: list[str] = field(default_factory=list)  #: problems found in decoding

    @property
    def symbols(self) -> list[int]:
        """The symbol of each frame, PAUSE among them; empty without timings."""
        return self.timing.by_frame()

    def copy(self) -> Take:
        """Return a copy that can be continued independently."""
        timing = Timing(self.timing.symbols.copy(), self.timing.frames.copy())
        return replace(self, codes=self.codes.copy(), timing=timing, warnings=self.warnings.copy())


#: Scores takes, also unfinished ones; higher is better.
Judge = Callable[[Sequence[Take]], Sequence[float]]


def rank(takes: Sequence[Take], judge: Judge) -> list[int]:
    """Return the indices of the takes, the best first. Takes with warnings come after all others."""
    scores = judge(takes)
    return sorted(range(len(takes)), key=lambda i: (not takes[i].warnings, scores[i]), reverse=True)


@dataclass(frozen=True)
class Limits:
    """Limits of decoding, in frames."""

    symbol: int  #: frames of one symbol
    pause: int  #: frames of one pause
    least: int  #: frames of the text; with fewer, speech stopped early
    most: int  #: frames of the text; after these, each remaining symbol has one
    loop: int  #: frames without a new code that are a loop
    judge_every: int  #: tokens between two judgements
    tokens: int  #: of the longest sequence that can come after the prefix

    @classmethod
    def of(cls, config: ARConfig, sampling: Sampling, num_symbols: int) -> Limits:
        """Return the limits of a text of `num_symbols` symbols."""

        def frames(seconds: float) -> int:
            return max(1, round(seconds * config.frame_rate))

        pause = frames(sampling.longest_pause)
        most = frames(MOST_MEAN_SYMBOL) * num_symbols + (2 * pause if config.timed else 0)
        # The most frames, one more for each remaining symbol, and the tokens of all symbols and of pauses around them.
        inserted = 2 * (1 + config.look_ahead) * (num_symbols + 1) if config.timed else 0
        return cls(
            symbol=frames(LONGEST_SYMBOL),
            pause=pause,
            least=frames(LEAST_MEAN_SYMBOL) * num_symbols,
            most=most,
            loop=frames(LOOP),
            judge_every=frames(JUDGE_EVERY),
            tokens=most + num_symbols + inserted + 1,
        )


class TakeState:
    """Position of one take in its text: a state machine that allows and consumes tokens."""

    def __init__(self, model: AR, text: list[int], limits: Limits) -> None:
        self.model, self.text, self.limits = model, text, limits
        self.take, self.ended = Take(), False
        self.position = -1  # in the text, of the symbol that is being spoken or was before the pause
        self.symbol: int | None = None  # that is being spoken, or PAUSE; None before the first one
        self.frames = 0  # of this symbol
        self.must_look_ahead = False  # the next token is the text's next symbol, as look_ahead
        self.frames_since_new = 0  # since a code that the last second did not have

    def copy(self) -> TakeState:
        """Return a copy that can be continued independently."""
        twin = copy.copy(self)
        twin.take = self.take.copy()
        return twin

    def allowed(self) -> Tensor:
        """Return which tokens may come next: bool [V]."""
        model, codes = self.model, slice(self.model.config.codebook_size)
        allowed = torch.zeros(model.vocabulary_size, dtype=torch.bool)
        count = len(self.take.codes)
        if self.ended:
            allowed[model.end_id] = True
        elif self.must_look_ahead:
            allowed[self._next_id()] = True
        elif not model.config.timed:
            allowed[codes] = count < self.limits.most
            allowed[model.end_id] = count > 0
        else:
            begun, late = self.symbol is not None, count >= self.limits.most
            longest = 1 if late else self.limits.pause if self.symbol == PAUSE else self.limits.symbol
            allowed[codes] = begun and self.frames < longest
            if not begun or self.frames:  # every symbol has at least one frame
                allowed[self._next_id()] = True
                allowed[model.pause_id] = self.symbol != PAUSE and not late
        return allowed

    def _next_id(self) -> int:
        """Return the token id of the text's next symbol, or END."""
        following = self.position + 1
        return self.model.symbol_id(self.text[following]) if following < len(self.text) else self.model.end_id

    def append(self, token: int, log_likelihood: float) -> None:
        """Add an allowed token to the take."""
        if self.ended:
            return
        if self.must_look_ahead:
            self.must_look_ahead = False
            return
        self.take.log_likelihood += log_likelihood
        if token < self.model.config.codebook_size:
            self._append_code(token)
        elif token == self.model.end_id:
            self._end()
        else:
            self.take.num_finished, self.take.finished_frames = self.position + 1, len(self.take.codes)
            self.symbol = PAUSE if token == self.model.pause_id else self.text[self.position + 1]
            self.position += token != self.model.pause_id
            self.frames = 0
            self.take.timing.symbols.append(self.symbol)
            self.take.timing.frames.append(0)
            self.must_look_ahead = self.model.config.look_ahead

    def _append_code(self, code: int) -> None:
        take, limits = self.take, self.limits
        self.frames_since_new = 0 if code not in take.codes[-limits.loop :] else self.frames_since_new + 1
        take.codes.append(code)
        self.frames += 1
        if self.model.config.timed:
            take.timing.frames[-1] += 1
            if self.frames == limits.symbol and self.symbol != PAUSE:
                take.warnings.append(f"symbol {self.position + 1} of {len(self.text)} was held for too long")
        elif self.frames_since_new == limits.loop:
            take.warnings.append(f"a loop from frame {len(take.codes) - limits.loop} on")
        if len(take.codes) == limits.most:
            take.warnings.append("did not come to an end")

    def _end(self) -> None:
        take = self.take
        self.ended = True
        take.num_finished, take.finished_frames = len(self.text), len(take.codes)
        if not self.model.config.timed and len(take.codes) < self.limits.least:
            take.warnings.append(f"stopped early: {len(take.codes)} frames for {len(self.text)} symbols")
