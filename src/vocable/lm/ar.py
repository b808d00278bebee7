"""The autoregressive model: text to RVQ-1 (SpeechTokenizer, arXiv 2308.16692, section 2.4; VALL-E, 2301.02111).

A clip is one sequence over one vocabulary, so that any causal language model can take it from here:

    [PROMPT] codes of the voice [TEXT] symbols [SPEECH] symbol codes symbol codes ... [END]

The symbols of the text stand in the speech once more, each before the frames that speak it. Which one comes next is
known; the model says when. So it cannot skip a word, repeat one, or forget to stop, however little speech taught it.
With `look_ahead` the symbol behind it stands there too, as sounds hang on what comes next: finding it in the text is a
thing that a model learns late, after a thousand steps and more.
Without timings (`timed: false`, the papers' way) the speech is codes alone, and all of this has to be learned.

The voice is its RVQ-1, the paper's way; with `all_layers` its frames' vectors of all layers are added.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vocable.lm.aligner import PAUSE, Timing
from vocable.lm.sampling import Sampling, draw
from vocable.lm.transformer import IGNORED, Transformer, TransformerConfig, export_llama

GREEDY, EVERYTHING = Sampling(temperature=0.0), Sampling(temperature=1.0, top_p=1.0, repeats=0)
LONGEST_SYMBOL = 0.8  #: seconds; then the next one is forced
#: Seconds that a symbol of the text lasts on average: less is an early stop, more is a speech without end.
LEAST_TIME, MOST_TIME = 0.04, 0.3
LOOP = 1.0  #: seconds in which nothing new is said
JUDGED = 25  #: tokens, a third of a second of speech and more; then the takes are judged


@dataclass(frozen=True)
class ARConfig:
    codebook_size: int
    num_symbols: int
    transformer: TransformerConfig
    timed: bool = True
    look_ahead: bool = False  #: each symbol in the speech is followed by the next one of the text
    dimension: int = 0  #: of the vectors that stand for a voice, beside its codes; 0: there are none
    frame_rate: float = 50.0  #: Hz, of the codec


@dataclass
class Spoken:
    """What the model wrote for a text."""

    codes: list[int] = field(default_factory=list)  #: RVQ-1
    symbols: list[int] = field(default_factory=list)  #: of each frame, PAUSE among them; without timings, empty
    said: int = 0  #: symbols of the text that are spoken to their end; without timings none, until all are
    until: int = 0  #: the frames that end there
    heard: Tensor | None = None  #: what a judge keeps of them, and never changes: takes share it
    log_likelihood: float = 0.0  #: of all that it chose, natural logarithm
    warnings: list[str] = field(default_factory=list)  #: what went wrong, by name


#: How good each of some takes is so far, the higher the better.
Judge = Callable[[Sequence[Spoken]], Sequence[float]]


class AR(nn.Module):
    """Ids int64 [B, S] -> logits [B, S, V]; voice, where the config gives its dimension D: float32 [B, P, D], the
    vectors of a prompt's frames, zeros behind them."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config
        size = config.codebook_size
        #: In frames: limits of a symbol, of its mean, and of a loop.
        self.longest_symbol, self.fewest, self.most, self.loop = (
            round(seconds * config.frame_rate) for seconds in (LONGEST_SYMBOL, LEAST_TIME, MOST_TIME, LOOP)
        )
        self.prompt, self.text, self.speech, self.end, self.pause = range(size, size + 5)
        self.first_symbol = size + 5
        self.vocabulary = self.first_symbol + config.num_symbols
        self.embedding = nn.Embedding(self.vocabulary, config.transformer.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.voice = nn.Linear(config.dimension, config.transformer.dim, bias=False) if config.dimension else None
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(config.transformer.dim, self.vocabulary, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, ids: Tensor, voice: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.transformer(self._embed(ids, voice), causal=True))
        return logits

    def _embed(self, ids: Tensor, voice: Tensor | None) -> Tensor:
        x: Tensor = self.embedding(ids)
        if self.voice is None or voice is None:
            return x
        after = ids.shape[1] - 1 - voice.shape[1]  # PROMPT is before the voice, the text behind it
        return x + nn.functional.pad(self.voice(voice), (0, 0, 1, after))

    # ---- training ------------------------------------------------------------------------------------------------

    def before_speech(self, symbols: Sequence[int], prompt: Tensor | None) -> list[int]:
        """Ids up to SPEECH. prompt: RVQ-1 of the voice, int64 [P], or None."""
        voice = [] if prompt is None or not len(prompt) else [self.prompt, *prompt.tolist()]
        return [*voice, self.text, *(self.first_symbol + s for s in symbols), self.speech]

    def example(
        self, symbols: Sequence[int], codes: Tensor, timing: Timing | None, prompt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Ids and targets of a clip, int64 [S]; only what follows SPEECH, and is not known, is learned."""
        before = self.before_speech(symbols, prompt)
        speech, learned = codes.numpy(), np.ones(len(codes), bool)
        if self.config.timed:
            assert timing is not None
            starts = np.cumsum([0, *timing.frames[:-1]])
            marks, known = self._marks(timing.symbols)
            starts = starts.repeat(len(marks) // len(starts))
            speech, learned = np.insert(speech, starts, marks), np.insert(learned, starts, ~known)
        ids = np.concatenate([before, speech, [self.end]])
        targets = np.where(np.concatenate([np.zeros(len(before), bool), learned, [True]]), ids, IGNORED)
        return torch.from_numpy(ids[:-1]), torch.from_numpy(targets[1:])

    def _marks(self, symbols: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """What stands in the speech before the frames of each symbol, PAUSE among them: ids, and which are no news."""
        ids = np.array([self._id(symbol) for symbol in symbols])
        if not self.config.look_ahead:
            return ids, np.zeros(len(ids), bool)
        ahead, following = [], self.end
        for symbol in reversed(symbols):
            ahead.append(following)
            following = following if symbol == PAUSE else self._id(symbol)
        return np.stack([ids, ahead[::-1]], 1).ravel(), np.tile([False, True], len(ids))

    def _id(self, symbol: int) -> int:
        return self.pause if symbol == PAUSE else self.first_symbol + symbol

    # ---- speaking ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def speak(
        self,
        symbols: Sequence[int],
        prompt: Tensor | None = None,
        voice: Tensor | None = None,
        *,
        sampling: Sampling = Sampling(),
        takes: int = 1,
        judge: Judge | None = None,
        seed: int = 0,
    ) -> list[Spoken]:
        """Write the codes of a text.

        symbols: of the text. prompt: RVQ-1 of the voice, int64 [P]. voice: its vectors, float32 [P, D], where the
        config gives a dimension. takes: written side by side from one seed. judge: every third of a second the better
        half of the takes goes on twice, in the place of the others (a particle filter: Gordon et al. 1993), so that a
        good second half needs no luck in the first; not without timings, which tell what of the text is said. Raises
        ValueError for a text without symbols.
        """
        if not symbols:
            raise ValueError("a text without symbols: there is nothing to say")
        generator = torch.Generator().manual_seed(seed)
        ids = torch.tensor([self.before_speech(symbols, prompt)], device=self.head.weight.device)
        # The longest that can come: the most frames, one more of each symbol that is then left, and the marks of all
        # symbols and of pauses around them.
        marks = 2 * (1 + self.config.look_ahead) * (len(symbols) + 1) if self.config.timed else 0
        most = self.most * len(symbols) + (2 * sampling.longest_pause if self.config.timed else 0)
        steps = most + len(symbols) + marks + 1
        cache = self.transformer.cache(takes, ids.shape[1] + steps)
        begun = self._embed(ids, None if voice is None else voice[None])
        hidden = self.transformer(begun, causal=True, cache=cache)[:, -1].expand(takes, -1)
        tracks = [_Track(self, list(symbols), most, sampling.longest_pause) for _ in range(takes)]
        for step in count(1):
            logits = self.head(hidden).float()
            allowed = torch.stack([track.allowed() for track in tracks]).to(logits.device)
            last = torch.tensor([_last(track.spoken.codes, sampling.window) for track in tracks], device=logits.device)
            drawn, scores = self._choose(logits, allowed, last, sampling, generator)
            for track, token, score in zip(tracks, drawn.tolist(), scores.tolist(), strict=True):
                track.take(token, score)
            if judge and self.config.timed and takes > 1 and step % JUDGED == 0:
                better = ranked([track.spoken for track in tracks], judge)[: (takes + 1) // 2]
                rows = (better + better)[:takes]
                tracks = [tracks[row].copy() for row in rows]
                cache.select(rows)
                drawn = drawn[rows]
            if all(track.ended for track in tracks):
                break
            hidden = self.transformer(self.embedding(drawn[:, None]), causal=True, cache=cache)[:, -1]
        return [track.spoken for track in tracks]

    def _choose(
        self, logits: Tensor, allowed: Tensor, last: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A token of each row, int64 [B], and its log-probability among what is allowed; logits and allowed [B, V].

        With timings, whether to go on with a symbol is decided first, by all codes against all symbols: among single
        tokens the one next symbol would win over hundreds of codes that share what speaks for staying, the more so the
        lower the temperature. Which code comes is a matter of taste, and `sampling` is for that alone.
        """
        size = self.config.codebook_size
        if not self.config.timed:
            chances = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
            drawn = draw(chances, sampling, generator, last)
            return drawn, chances.gather(1, drawn[:, None])[:, 0]
        next_ones = [self.end, *range(self.first_symbol, self.vocabulary)]
        groups = torch.stack(
            [logits[:, :size].logsumexp(-1), logits[:, next_ones].logsumexp(-1), logits[:, self.pause]], 1
        )
        may = torch.stack([allowed[:, :size].any(-1), allowed[:, next_ones].any(-1), allowed[:, self.pause]], 1)
        groups = groups.masked_fill(~may, -torch.inf).log_softmax(-1)
        chosen = draw(groups, GREEDY if sampling.temperature == 0 else EVERYTHING, generator)
        codes = logits[:, :size].log_softmax(-1)
        code = draw(codes, sampling, generator, last)
        # Of the next ones just one is allowed; argmax finds it.
        following = torch.tensor(next_ones, device=logits.device)[allowed[:, next_ones].int().argmax(-1)]
        drawn = torch.where(chosen == 0, code, torch.where(chosen == 1, following, self.pause))
        scores = groups.gather(1, chosen[:, None])[:, 0]
        return drawn, scores + torch.where(chosen == 0, codes.gather(1, code[:, None])[:, 0], 0.0)

    # ---- elsewhere -----------------------------------------------------------------------------------------------

    def export_llama(self, folder: Path, max_positions: int = 4096) -> None:
        """Write a transformers LlamaForCausalLM over the joint vocabulary. ValueError where a voice is vectors."""
        if self.voice is not None:
            raise ValueError("a model that takes a voice as vectors cannot be exported: its input is not ids alone")
        export_llama(self.transformer, self.embedding.weight, self.head.weight, folder, max_positions)


def ranked(takes: Sequence[Spoken], judge: Judge) -> list[int]:
    """The places of the takes, the best first; those in which something went wrong are behind all others."""
    scores = judge(takes)
    return sorted(range(len(takes)), key=lambda i: (not takes[i].warnings, scores[i]), reverse=True)


class _Track:
    """One take: where in the text it is, and what may come next."""

    def __init__(self, model: AR, symbols: list[int], most: int, longest_pause: int) -> None:
        """most: frames, after which each symbol that is left has one alone."""
        self.model, self.symbols, self.most, self.longest_pause = model, symbols, most, longest_pause
        self.spoken, self.ended = Spoken(), False
        self.place = -1  # in the text, of the symbol that is spoken or was before a pause
        self.now: int | None = None  # the symbol that is spoken, PAUSE perhaps
        self.frames = 0  # of it
        self.ahead = False  # the symbol that comes next is to be written, as it is known
        self.since_new = 0  # frames since a code that the last second had not

    def copy(self) -> _Track:
        """One that goes its own way from here."""
        twin, s = copy.copy(self), self.spoken
        twin.spoken = replace(s, codes=s.codes.copy(), symbols=s.symbols.copy(), warnings=s.warnings.copy())
        return twin

    def allowed(self) -> Tensor:
        """bool [V]."""
        m = self.model
        may = torch.zeros(m.vocabulary, dtype=torch.bool)
        if self.ended:
            may[m.end] = True
        elif self.ahead:
            may[self._next()] = True
        elif not m.config.timed:
            count = len(self.spoken.codes)
            may[: m.config.codebook_size] = count < self.most
            may[m.end] = count > 0
        else:
            begun, late = self.now is not None, len(self.spoken.codes) >= self.most
            longest = 1 if late else self.longest_pause if self.now == PAUSE else m.longest_symbol
            may[: m.config.codebook_size] = begun and self.frames < longest
            if not begun or self.frames:  # every symbol has a frame
                may[self._next()] = True
                may[m.pause] = self.now != PAUSE and not late
        return may

    def _next(self) -> int:
        """The id of the text's next symbol, or END."""
        more = self.place + 1 < len(self.symbols)
        return self.model.first_symbol + self.symbols[self.place + 1] if more else self.model.end

    def take(self, token: int, score: float) -> None:
        """Go on by a token of the allowed."""
        m, s = self.model, self.spoken
        if self.ended:
            return
        if self.ahead:
            self.ahead = False
            return
        s.log_likelihood += score
        if token < m.config.codebook_size:
            self.since_new = 0 if token not in s.codes[-m.loop :] else self.since_new + 1
            s.codes.append(token)
            self.frames += 1
            if m.config.timed:
                assert self.now is not None
                s.symbols.append(self.now)
                if self.frames == m.longest_symbol and self.now != PAUSE:
                    s.warnings.append(f"symbol {self.place + 1} of {len(self.symbols)} was held for too long")
            elif self.since_new == m.loop:
                s.warnings.append(f"a loop from frame {len(s.codes) - m.loop} on")
            if len(s.codes) == self.most:
                s.warnings.append("did not come to an end")
        elif token == m.end:
            self.ended = True
            s.said, s.until = len(self.symbols), len(s.codes)
            if not m.config.timed and len(s.codes) < m.fewest * len(self.symbols):
                s.warnings.append(f"stopped early: {len(s.codes)} frames for {len(self.symbols)} symbols")
        else:
            s.said, s.until = self.place + 1, len(s.codes)
            self.now = PAUSE if token == m.pause else self.symbols[self.place + 1]
            self.place += token != m.pause
            self.frames = 0
            self.ahead = m.config.look_ahead


def _last(codes: list[int], window: int) -> list[int]:
    """The newest codes, filled up in front with what is no code."""
    newest = codes[-window:] if window else []
    return [-1] * (window - len(newest)) + newest
