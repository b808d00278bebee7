"""The language models' trainer: tokens and texts in, AR and NAR out. `training/loop.py` has the loop.

RUN/model/   config.json, ar.safetensors, nar.safetensors, aligner.safetensors
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vocable.codec.load import load_codec
from vocable.corpus.manifest import read_manifest, spread
from vocable.lm.aligner import PAUSE, Aligner, Timing
from vocable.lm.ar import AR
from vocable.lm.corpus import Clip, Corpus, like_lengths, load_corpus
from vocable.lm.model import Models, build_models, digest, load_models, save_models
from vocable.lm.nar import NAR, codebooks_of, frame_symbols, sum_of
from vocable.lm.normalization import MARKS
from vocable.lm.recipe import AlignerRecipe, LMRecipe
from vocable.lm.transformer import IGNORED, cross_entropy
from vocable.training.log import Writer
from vocable.training.loop import Trainer
from vocable.training.optimizer import Updater

SHORTEST_PROMPT = 1.0  #: seconds
WIDTH = 64  #: batches are padded to multiples of it: on a GPU each new shape costs memory and time
DEV_BATCH = 8  #: clips


@dataclass
class Batch:
    """One part of a step's work: the same clips for both models, or for one."""

    ar: tuple[Tensor, ...] | None  #: what AR.forward takes, and int64 targets [B, S]
    nar: tuple[Tensor, ...] | None  #: what NAR.forward takes


class ClipBatches:
    """Clips of like lengths, each with a prompt in its speaker's voice; a part of a batch follows from the seed, the
    step, its index and the number of parts."""

    def __init__(self, corpus: Corpus, recipe: LMRecipe, frame_rate: float, models: Models, codebooks: Tensor) -> None:
        self.clips, self.recipe, self.codebooks = corpus.clips, recipe, codebooks
        self.ar = models.ar if recipe.ar.train else None
        self.nar = models.nar if recipe.nar.train else None
        self.shortest_prompt = round(SHORTEST_PROMPT * frame_rate)
        self.longest_prompt = round(recipe.data.prompt * frame_rate)
        self.lengths = np.array([clip.codes.shape[1] for clip in self.clips])
        self.marks = {i for i, symbol in enumerate(corpus.table.symbols) if symbol in MARKS}
        self.by_speaker: dict[str, list[int]] = {}
        for i, clip in enumerate(self.clips):
            self.by_speaker.setdefault(clip.speaker, []).append(i)

    def micro_batch(self, step: int, index: int, count: int) -> Batch:
        """The index-th of `count` parts of batch `step`, of clips drawn for it alone."""
        rng = np.random.default_rng([self.recipe.seed, step, index])
        prompts = (self.shortest_prompt + self.longest_prompt) // 2  # on average
        chosen = like_lengths(self.lengths + prompts, self.recipe.data.batch_frames // count, rng)
        return self.batch(chosen, rng)

    def batch(self, chosen: Sequence[int], rng: np.random.Generator) -> Batch:
        voices = [self._prompt(i, rng) for i in chosen]
        clips = [self.clips[i] if rng.random() < 0.5 else self._unmarked(self.clips[i]) for i in chosen]
        return Batch(
            self._for_ar(self.ar, clips, voices, rng) if self.ar else None,
            self._for_nar(self.nar, clips, voices, rng) if self.nar else None,
        )

    def _unmarked(self, clip: Clip) -> Clip:
        """A clip without its text's punctuation, in whose place it pauses: where few voices have any, it would tell of
        the voice."""
        if not self.marks.intersection(clip.symbols):
            return clip
        timing = clip.timing
        if timing is not None:
            runs: list[list[int]] = []
            for symbol, frames in zip(timing.symbols, timing.frames, strict=True):
                symbol = PAUSE if symbol in self.marks else symbol
                if runs and symbol == PAUSE == runs[-1][0]:
                    runs[-1][1] += frames
                else:
                    runs.append([symbol, frames])
            timing = Timing([symbol for symbol, _ in runs], [frames for _, frames in runs])
        return dataclasses.replace(clip, symbols=[s for s in clip.symbols if s not in self.marks], timing=timing)

    def _prompt(self, index: int, rng: np.random.Generator) -> Tensor:
        """Up to `data.prompt` seconds of another clip of the speaker, none if there is no other: int64 [K, P]."""
        others = [i for i in self.by_speaker[self.clips[index].speaker] if i != index]
        if not others:
            return torch.zeros(len(self.clips[index].codes), 0, dtype=torch.int64)
        codes = self.clips[others[rng.integers(len(others))]].codes
        longest = min(self.longest_prompt, codes.shape[1])
        length = int(rng.integers(min(self.shortest_prompt, longest), longest + 1))
        start = int(rng.integers(codes.shape[1] - length + 1))
        return torch.from_numpy(codes[:, start : start + length].astype(np.int64))

    def _for_ar(
        self, model: AR, clips: Sequence[Clip], voices: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        examples, vectors = [], []
        for clip, voice in zip(clips, voices, strict=True):
            prompt = voice if rng.random() >= self.recipe.ar.no_prompt else voice[:, :0]
            codes = torch.from_numpy(clip.codes[0].astype(np.int64))
            examples.append(model.example(clip.symbols, codes, clip.timing, prompt[0]))
            if model.voice:
                vectors.append(sum_of(self.codebooks, prompt))
        inputs = [_padded([ids for ids, _ in examples])]
        if model.voice:
            inputs.append(_padded(vectors))
        return *inputs, _padded([wanted for _, wanted in examples], IGNORED)

    def _for_nar(
        self, model: NAR, clips: Sequence[Clip], voices: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        prompts = [voice.T if rng.random() >= self.recipe.nar.no_prompt else voice.T[:0] for voice in voices]
        codes = [torch.from_numpy(clip.codes.astype(np.int64)).T for clip in clips]
        told = [clip.timing if rng.random() >= self.recipe.nar.no_symbols else None for clip in clips]
        symbols = [frame_symbols(t.by_frame() if t else None, len(c)) for t, c in zip(told, codes, strict=True)]
        return (
            _padded(prompts).transpose(1, 2),
            torch.tensor([len(rows) for rows in prompts]),
            _padded(codes).transpose(1, 2),
            torch.tensor([len(rows) for rows in codes]),
            _padded(symbols),
            torch.from_numpy(rng.integers(model.config.num_quantizers - 1, size=len(clips))),
        )


def _sizes(model: nn.Module) -> dict[str, Any]:
    """What a model's weights are made for: its config without what another run of the same weights may change."""
    sizes: dict[str, Any] = dataclasses.asdict(model.config)  # type: ignore[call-overload]
    return sizes | {"look_ahead": None, "frame_rate": None, "transformer": sizes["transformer"] | {"dropout": None}}


def _padded(rows: Sequence[Tensor], value: int = 0) -> Tensor:
    """Tensors [n, ...] -> [B, N, ...], N a multiple of WIDTH."""
    batch = pad_sequence(list(rows), batch_first=True, padding_value=value)
    wider = batch.new_full((len(rows), -batch.shape[1] % WIDTH, *batch.shape[2:]), value)
    return torch.cat([batch, wider], 1)


class LMTrainer(Trainer):
    """One training run in a folder. max_time and on_log: the loop's. on_load: called with the stage of what is made
    before training, and the part of it that is done."""

    recipe: LMRecipe

    def __init__(
        self,
        recipe: LMRecipe,
        folder: str | os.PathLike[str],
        *,
        max_time: float | None = None,
        on_log: Callable[[dict[str, Any]], None] = lambda record: None,
        on_load: Callable[[str, float], None] = lambda stage, share: None,
    ) -> None:
        super().__init__(recipe, folder, max_time=max_time, on_log=on_log)
        self.workers = recipe.data.workers
        codec = load_codec(recipe.codec, parts="decoder")
        d = recipe.data
        with self.processes.main_process_first():
            train, dev = read_manifest(d.train), [u for u in read_manifest(d.dev) if u.text]
            begun = load_models(recipe.init, codec) if recipe.init else None
            if begun and begun.front_end != d.front_end:
                raise ValueError(f"{recipe.init} reads {begun.front_end}: --set data.front_end={begun.front_end}")
            table = begun.table if begun else None
            aligner: AlignerRecipe | Aligner | None = recipe.aligner if recipe.ar.timed else None
            if aligner and begun and begun.aligner:  # it has heard more than these clips, perhaps
                aligner = begun.aligner
            self.corpus = load_corpus(d.tokens, train, d, codec, aligner, table, on_load)
            dev = spread(dev, recipe.dev_clips)
            aligner = self.corpus.aligner
            held_out = load_corpus(d.dev_tokens, dev, d, codec, aligner, self.corpus.table, on_load)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.models = build_models(recipe, codec, self.corpus.table, self.corpus.language)
        if begun:
            for name, model in self.models.parts.items():
                if name not in begun.parts or _sizes(begun.parts[name]) != _sizes(model):
                    raise ValueError(
                        f"{recipe.init} has no {name} of this recipe's sizes: give the recipe that made it"
                    )
                model.load_state_dict(begun.parts[name].state_dict())
            self.models.ar, self.models.nar = self.models.ar or begun.ar, self.models.nar or begun.nar  # as they were
        self.models.aligner = self.corpus.aligner
        wanted = {"ar": recipe.ar.train, "nar": recipe.nar.train}
        self.trained = {name: part.to(self.device) for name, part in self.models.parts.items() if wanted.get(name)}
        self.updaters = {
            name: Updater(model.parameters(), recipe.optimizer, float16=recipe.precision == "float16")
            for name, model in self.trained.items()
        }
        books = codebooks_of(codec).cpu()
        self.data: ClipBatches = ClipBatches(self.corpus, recipe, codec.frame_rate, self.models, books)
        self.held_out = ClipBatches(held_out, recipe, codec.frame_rate, self.models, books)
        rng = np.random.default_rng(recipe.seed)
        order = np.argsort(self.held_out.lengths).tolist()
        self.dev = [self.held_out.batch(order[at : at + DEV_BATCH], rng) for at in range(0, len(order), DEV_BATCH)]

    def components(self) -> dict[str, Any]:
        return self.trained | {f"{name}_optimizer": updater for name, updater in self.updaters.items()}

    def publish(self) -> None:
        save_models(self.models, self.folder / "model")

    def about(self) -> dict[str, Any]:
        return {"models": digest(self.models), "token_id": self.models.token_id, "left_out": len(self.corpus.left_out)}

    def train_step(self, parts: list[Batch]) -> dict[str, float]:
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.generator().initial_seed())  # dropout's
            return self._train_step(parts)

    def _train_step(self, parts: list[Batch]) -> dict[str, float]:
        share = self.learning_rate_factor()
        figures: dict[str, float] = {}
        for name, model in self.trained.items():
            model.train()
            losses = []
            for batch in parts:
                with self.autocast():
                    loss = cross_entropy(*self.scores(name, batch))
                self.updaters[name].backward(loss / len(parts))
                losses.append(loss.detach())
            figures[name] = float(torch.stack(losses).mean())
            norm = self.updaters[name].update(share)
            if norm is not None:
                figures[f"{name}_gradient"] = norm
        if not all(f"{name}_gradient" in figures for name in self.trained):
            return self.skip()
        return {"total": sum(figures[name] for name in self.trained), **figures}

    @torch.no_grad()
    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Nats a token on held-out clips, and how often the likeliest token is the right one."""
        figures: dict[str, float] = {}
        for name, model in self.trained.items():
            model.eval()
            loss = right = tokens = 0.0
            for batch in self.dev:
                scores, targets = self.scores(name, batch)
                known = targets != IGNORED
                count = float(known.sum())
                loss += float(cross_entropy(scores, targets)) * count
                right += float((scores.argmax(-1) == targets)[known].sum())
                tokens += count
            figures |= {f"dev/{name}": loss / tokens, f"dev/{name}_right": right / tokens}
        return figures

    def scores(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """What one model thinks of a batch, and what is right."""
        if name == "ar":
            *inputs, targets = (t.to(self.device) for t in batch.ar or ())
            return self.trained[name](*inputs), targets
        inputs = [t.to(self.device) for t in batch.nar or ()]
        _, _, codes, num_frames, _, stage = inputs
        behind = torch.arange(codes.shape[2], device=self.device) >= num_frames[:, None]
        targets = codes[torch.arange(len(codes), device=self.device), stage + 1].masked_fill(behind, IGNORED)
        return self.trained[name](*inputs), targets
