"""Training batches of both language models: clips of similar length, each with a prompt in its speaker's voice."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocable.codec.base import Codec
from vocable.lm.ar import AR
from vocable.lm.batching import draw_similar_lengths, pad
from vocable.lm.corpus import Clip, Corpus
from vocable.lm.model import LanguageModels
from vocable.lm.nar import NAR, frame_symbols
from vocable.lm.punctuation import MARKS
from vocable.lm.recipe import LMRecipe
from vocable.lm.timing import PAUSE, Timing
from vocable.lm.transformer import IGNORED

SHORTEST_PROMPT = 1.0  #: seconds
UNMARKED = 0.5  #: fraction of clips whose texts lose their punctuation


@dataclass
class Batch:
    """One micro-batch: the same clips for each of the models that are trained."""

    ar: tuple[Tensor, ...] | None  #: the arguments of AR.forward, then targets int64 [B, S]
    nar: tuple[Tensor, ...] | None  #: the arguments of NAR.forward


class ClipBatches:
    """Draws batches. A micro-batch is determined by the recipe's seed, the step, its index and the number of
    micro-batches."""

    def __init__(self, corpus: Corpus, recipe: LMRecipe, models: LanguageModels, codec: Codec) -> None:
        self.clips, self.recipe, self.codec = corpus.clips, recipe, codec
        self.ar = models.ar if recipe.ar.train else None
        self.nar = models.nar if recipe.nar.train else None
        self.shortest_prompt = round(SHORTEST_PROMPT * codec.frame_rate)
        self.longest_prompt = round(recipe.data.prompt * codec.frame_rate)
        self.lengths = np.array([clip.codes.shape[1] for clip in self.clips])
        self.marks = {i for i, symbol in enumerate(corpus.table.symbols) if symbol in MARKS}
        self.by_speaker: dict[str, list[int]] = {}
        for i, clip in enumerate(self.clips):
            self.by_speaker.setdefault(clip.speaker, []).append(i)

    def micro_batch(self, step: int, index: int, count: int) -> Batch:
        """Draw micro-batch `index` of the `count` that make up the batch of `step`."""
        rng = np.random.default_rng([self.recipe.seed, step, index])
        mean_prompt = (self.shortest_prompt + self.longest_prompt) // 2
        return self.batch(
            draw_similar_lengths(self.lengths + mean_prompt, self.recipe.data.batch_frames // count, rng), rng
        )

    def batch(self, chosen: Sequence[int], rng: np.random.Generator) -> Batch:
        """Return a batch of these clips, given by index, with prompts and variations drawn from `rng`."""
        prompts = [self._prompt(i, rng) for i in chosen]
        clips = [
            self.clips[i] if rng.random() < 1 - UNMARKED else without_marks(self.clips[i], self.marks) for i in chosen
        ]
        return Batch(
            self._ar_inputs(self.ar, clips, prompts, rng) if self.ar else None,
            self._nar_inputs(self.nar, clips, prompts, rng) if self.nar else None,
        )

    def _prompt(self, index: int, rng: np.random.Generator) -> Tensor:
        """Cut a prompt of up to `data.prompt` seconds from another clip of the speaker: int64 [K, P]. P is 0 if there
        is no other clip."""
        others = [i for i in self.by_speaker[self.clips[index].speaker] if i != index]
        if not others:
            return torch.zeros(len(self.clips[index].codes), 0, dtype=torch.int64)
        codes = self.clips[others[rng.integers(len(others))]].codes
        longest = min(self.longest_prompt, codes.shape[1])
        length = int(rng.integers(min(self.shortest_prompt, longest), longest + 1))
        start = int(rng.integers(codes.shape[1] - length + 1))
        return torch.from_numpy(codes[:, start : start + length].astype(np.int64))

    def _ar_inputs(
        self, model: AR, clips: Sequence[Clip], prompts: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        examples, vectors = [], []
        for clip, drawn in zip(clips, prompts, strict=True):
            prompt = drawn if rng.random() >= self.recipe.ar.no_prompt else drawn[:, :0]
            codes = torch.from_numpy(clip.codes[0].astype(np.int64))
            examples.append(model.example(clip.symbols, codes, clip.timing, prompt[0]))
            if model.voice:
                empty = torch.zeros(0, self.codec.dimension)  # `embed` refuses a clip without frames
                vectors.append(self.codec.embed(prompt[None])[0].T if prompt.shape[1] else empty)
        inputs = [pad([ids for ids, _ in examples])]
        if model.voice:
            inputs.append(pad(vectors))
        return *inputs, pad([targets for _, targets in examples], IGNORED)

    def _nar_inputs(
        self, model: NAR, clips: Sequence[Clip], prompts: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        # Frames first, [P, K] and [T, K], as `pad` takes them.
        voices = [drawn.T if rng.random() >= self.recipe.nar.no_prompt else drawn.T[:0] for drawn in prompts]
        codes = [torch.from_numpy(clip.codes.astype(np.int64)).T for clip in clips]
        timings = [clip.timing if rng.random() >= self.recipe.nar.no_symbols else None for clip in clips]
        symbols = [frame_symbols(t.by_frame() if t else None, len(c)) for t, c in zip(timings, codes, strict=True)]
        return (
            pad(voices).transpose(1, 2),
            torch.tensor([len(rows) for rows in voices]),
            pad(codes).transpose(1, 2),
            torch.tensor([len(rows) for rows in codes]),
            pad(symbols),
            torch.from_numpy(rng.integers(model.config.num_quantizers - 1, size=len(clips))),
        )


def without_marks(clip: Clip, marks: set[int]) -> Clip:
    """Return a clip whose text has no punctuation marks; in the timing they become pauses.

    marks: the symbol ids of the marks. If only a few speakers had texts without punctuation, or with it, the models
    would take it as a property of the voice.
    """
    if not marks.intersection(clip.symbols):
        return clip
    timing = clip.timing
    if timing is not None:
        runs: list[list[int]] = []
        for symbol, frames in zip(timing.symbols, timing.frames, strict=True):
            symbol = PAUSE if symbol in marks else symbol
            if runs and symbol == PAUSE == runs[-1][0]:
                runs[-1][1] += frames
            else:
                runs.append([symbol, frames])
        timing = Timing([symbol for symbol, _ in runs], [frames for _, frames in runs])
    return dataclasses.replace(clip, symbols=[s for s in clip.symbols if s not in marks], timing=timing)
