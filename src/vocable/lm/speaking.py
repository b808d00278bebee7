"""Decoding of AR: write the RVQ-1 codes of texts, each in several takes, with a particle filter.

`speak` is the loop over the tokens, `_Writer` writes the takes of one text, and `_draw` draws a token for each take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocable.lm.ar import AR
from vocable.lm.cache import Caches
from vocable.lm.cancelling import IsCancelled, stop_if_cancelled
from vocable.lm.sampling import DEFAULT_SAMPLING, Sampling, draw
from vocable.lm.takes import Judge, Limits, Take, TakeState, rank

_GREEDY, _FULL_DISTRIBUTION = Sampling(temperature=0.0), Sampling(temperature=1.0, top_p=1.0, repeats=0)


@dataclass(frozen=True, eq=False)
class Utterance:
    """A text for AR to write. Raises ValueError for a text without symbols.

    judge: at regular intervals the worse half of the takes is replaced by copies of the better half (a particle filter:
    Gordon et al. 1993), so that a good beginning and a good ending need not come from one take by chance. Models
    without timings ignore the judge, because their takes do not show which symbols are finished.
    """

    symbols: Sequence[int]  #: ids of the text's symbols
    prompt: Tensor | None = None  #: RVQ-1 of the voice, int64 [P]
    voice: Tensor | None = None  #: the codec's vectors of the prompt, float32 [P, D], if the config has a dimension
    sampling: Sampling = DEFAULT_SAMPLING
    takes: int = 1  #: they are drawn from one seed
    judge: Judge | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError("there is nothing to say in a text without symbols")


@torch.inference_mode()
def speak(model: AR, texts: Sequence[Utterance], *, cancelled: IsCancelled | None = None) -> list[list[Take]]:
    """Write the codes of texts; return the takes of each text.

    All takes of all texts are rows of one batch. A text gets the tokens that it gets alone, up to rounding errors,
    which can change the choice between two codes that are about equally likely. cancelled: asked before each token.
    Raises `Cancelled`.
    """
    writers = [_Writer(model, text) for text in texts]
    running = writers
    while running:
        stop_if_cancelled(cancelled)
        for writer in running:
            writer.write_token()
        running = [writer for writer in running if not writer.ended]
        if running:
            _read_tokens(model, running)
    return [[state.take for state in writer.states] for writer in writers]


def _read_tokens(model: AR, writers: Sequence[_Writer]) -> None:
    """Run the transformer on the last tokens of all writers, in one pass."""
    tokens = torch.cat([writer.drawn for writer in writers])
    caches = Caches([writer.cache for writer in writers])
    hidden = model.transformer(model.embedding(tokens[:, None]), causal=True, cache=caches)[:, -1]
    for writer, rows in zip(writers, hidden.split([writer.cache.rows for writer in writers]), strict=True):
        writer.hidden = rows


class _Writer:
    """Writes the takes of one text. `hidden` is the transformer's output for the last token, [takes, D]."""

    def __init__(self, model: AR, text: Utterance) -> None:
        self.model, self.text = model, text
        self.generator = torch.Generator().manual_seed(text.seed)
        self.limits = Limits.of(model.config, text.sampling, len(text.symbols))
        self.states = [TakeState(model, list(text.symbols), self.limits) for _ in range(text.takes)]
        prefix = torch.tensor([model.prefix(text.symbols, text.prompt)], device=model.head.weight.device)
        self.cache = model.transformer.cache(text.takes, prefix.shape[1] + self.limits.tokens)
        embedded = model.embed(prefix, None if text.voice is None else text.voice[None])
        self.hidden = model.transformer(embedded, causal=True, cache=self.cache)[:, -1].expand(text.takes, -1)
        self.drawn = prefix.new_zeros(text.takes)  #: the last tokens, int64 [takes]
        self.count = 0  #: of the tokens of each take

    @property
    def ended(self) -> bool:
        """Whether all takes have ended."""
        return all(state.ended for state in self.states)

    def write_token(self) -> None:
        """Draw the next token of each take."""
        text, device = self.text, self.hidden.device
        allowed = torch.stack([state.allowed() for state in self.states]).to(device)
        last = [_last_codes(state.take.codes, text.sampling.window) for state in self.states]
        self.drawn, scores = _draw(
            self.model,
            self.model.head(self.hidden).float(),
            allowed,
            torch.tensor(last, device=device),
            sampling=text.sampling,
            generator=self.generator,
        )
        self.count += 1
        for state, token, score in zip(self.states, self.drawn.tolist(), scores.tolist(), strict=True):
            state.append(token, score)
        if text.judge and self.model.config.timed and text.takes > 1 and self.count % self.limits.judge_every == 0:
            better = rank([state.take for state in self.states], text.judge)[: (text.takes + 1) // 2]
            rows = (better + better)[: text.takes]
            self.states = [self.states[row].copy() for row in rows]
            self.cache.select(rows)
            self.drawn = self.drawn[rows]


def _draw(
    model: AR, logits: Tensor, allowed: Tensor, last: Tensor, *, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a token for each row: ids int64 [B], and their log-likelihood among the allowed tokens, float32 [B].

    logits, allowed: [B, V]. last: as in `draw`.

    With timings, the first decision is whether the symbol continues (all codes together), ends (the next symbol or END)
    or a pause begins. Among single tokens, the one next symbol would win over hundreds of codes that divide the
    probability of continuing among them, and the more so the lower the temperature. `sampling` applies to the choice of
    the code only.
    """
    size = model.config.codebook_size
    if not model.config.timed:
        scores = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        drawn = draw(scores, sampling, generator, last)
        return drawn, scores.gather(1, drawn[:, None])[:, 0]
    next_ids = [model.end_id, *range(model.first_symbol_id, model.vocabulary_size)]
    groups = torch.stack(
        [logits[:, :size].logsumexp(-1), logits[:, next_ids].logsumexp(-1), logits[:, model.pause_id]], 1
    )
    allowed_groups = torch.stack(
        [allowed[:, :size].any(-1), allowed[:, next_ids].any(-1), allowed[:, model.pause_id]], 1
    )
    groups = groups.masked_fill(~allowed_groups, -torch.inf).log_softmax(-1)
    group = draw(groups, _GREEDY if sampling.temperature == 0 else _FULL_DISTRIBUTION, generator)
    code_scores = logits[:, :size].log_softmax(-1)
    code = draw(code_scores, sampling, generator, last)
    # At most one of the next ids is allowed; argmax finds it.
    following = torch.tensor(next_ids, device=logits.device)[allowed[:, next_ids].int().argmax(-1)]
    drawn = torch.where(group == 0, code, torch.where(group == 1, following, model.pause_id))
    scores = groups.gather(1, group[:, None])[:, 0]
    return drawn, scores + torch.where(group == 0, code_scores.gather(1, code[:, None])[:, 0], 0.0)


def _last_codes(codes: list[int], window: int) -> list[int]:
    """Return the last `window` codes, with -1 in front if there are fewer."""
    newest = codes[-window:] if window else []
    return [-1] * (window - len(newest)) + newest
