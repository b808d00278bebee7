"""The language models' trainer: tokens and texts in, AR and NAR out. `training/loop.py` has the loop.

RUN/model/   config.json, ar.safetensors, nar.safetensors
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vocable.codec.model import SpeechTokenizer
from vocable.corpus.manifest import read_manifest, spread
from vocable.lm.ar import AR
from vocable.lm.corpus import Clip, Corpus, like_lengths, load_corpus
from vocable.lm.model import Models, build_models, digest, load_models, save_models
from vocable.lm.nar import NAR, frame_symbols, sum_of
from vocable.lm.recipe import LMRecipe
from vocable.lm.transformer import IGNORED, cross_entropy
from vocable.training.log import Writer
from vocable.training.loop import Trainer
from vocable.training.optimizer import Updater

SHORTEST_PROMPT = 50  #: frames: a second
DEV_BATCH = 8  #: clips


@dataclass
class Batch:
    """One part of a step's work: the same clips for both models, or for one."""

    ar: tuple[Tensor, Tensor] | None  #: ids and targets, int64 [B, S]
    nar: tuple[Tensor, ...] | None  #: what NAR.forward takes, and int64 targets [B, T]


class ClipBatches:
    """Clips of like lengths, each with a prompt in its speaker's voice; item n follows from the seed and n alone."""

    def __init__(self, corpus: Corpus, recipe: LMRecipe, frame_rate: float, models: Models, codebooks: Tensor) -> None:
        self.clips, self.recipe, self.codebooks = corpus.clips, recipe, codebooks
        self.ar = models.ar if recipe.ar.weight else None
        self.nar = models.nar if recipe.nar.weight else None
        self.longest_prompt = round(recipe.data.prompt * frame_rate)
        self.lengths = np.array([clip.codes.shape[1] for clip in self.clips])
        self.by_speaker: dict[str, list[int]] = {}
        for i, clip in enumerate(self.clips):
            self.by_speaker.setdefault(clip.speaker, []).append(i)

    def part(self, step: int, index: int, parts: int) -> Batch:
        """The index-th of `parts` parts of batch `step`, of clips drawn for it alone."""
        rng = np.random.default_rng([self.recipe.seed, step, index])
        chosen = like_lengths(self.lengths, self.recipe.data.batch_frames // parts, rng)
        return self.batch(chosen, rng)

    def batch(self, chosen: Sequence[int], rng: np.random.Generator) -> Batch:
        voices = [self._prompt(i, rng) for i in chosen]
        clips = [self.clips[i] for i in chosen]
        return Batch(
            self._for_ar(self.ar, clips, voices, rng) if self.ar else None,
            self._for_nar(self.nar, clips, voices, rng) if self.nar else None,
        )

    def _prompt(self, index: int, rng: np.random.Generator) -> Tensor:
        """Up to `data.prompt` seconds of another clip of the speaker, or else of the clip itself: int64 [K, P]."""
        others = [i for i in self.by_speaker[self.clips[index].speaker] if i != index] or [index]
        codes = self.clips[others[rng.integers(len(others))]].codes
        longest = min(self.longest_prompt, codes.shape[1])
        length = int(rng.integers(min(SHORTEST_PROMPT, longest), longest + 1))
        start = int(rng.integers(codes.shape[1] - length + 1))
        return torch.from_numpy(codes[:, start : start + length].astype(np.int64))

    def _for_ar(
        self, model: AR, clips: Sequence[Clip], voices: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        examples = []
        for clip, voice in zip(clips, voices, strict=True):
            prompt = voice[0] if rng.random() >= self.recipe.ar.no_prompt else None
            codes = torch.from_numpy(clip.codes[0].astype(np.int64))
            examples.append(model.example(clip.symbols, codes, clip.timing, prompt))
        inputs = pad_sequence([ids for ids, _ in examples], batch_first=True)
        targets = pad_sequence([wanted for _, wanted in examples], batch_first=True, padding_value=IGNORED)
        return inputs, targets

    def _for_nar(
        self, model: NAR, clips: Sequence[Clip], voices: Sequence[Tensor], rng: np.random.Generator
    ) -> tuple[Tensor, ...]:
        stages = rng.integers(model.config.num_quantizers - 1, size=len(clips))
        prompts, below, symbols, targets = [], [], [], []
        for clip, voice, stage in zip(clips, voices, stages.tolist(), strict=True):
            codes = torch.from_numpy(clip.codes.astype(np.int64))
            prompts.append(sum_of(self.codebooks, voice if rng.random() >= self.recipe.nar.no_prompt else voice[:, :0]))
            below.append(sum_of(self.codebooks, codes[: stage + 1]))
            told = clip.timing is not None and rng.random() >= self.recipe.nar.no_symbols
            symbols.append(frame_symbols(clip.timing.by_frame() if told and clip.timing else None, codes.shape[1]))
            targets.append(codes[stage + 1])
        sizes = [torch.tensor([len(row) for row in rows]) for rows in (prompts, below)]
        return (
            pad_sequence(prompts, batch_first=True),
            sizes[0],
            pad_sequence(below, batch_first=True),
            sizes[1],
            pad_sequence(symbols, batch_first=True),
            torch.from_numpy(stages),
            pad_sequence(targets, batch_first=True, padding_value=IGNORED),
        )


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
        super().__init__(recipe, folder, max_time, on_log)
        self.workers = recipe.data.workers
        codec = SpeechTokenizer.from_pretrained(recipe.codec, parts="decoder")
        aligner = recipe.aligner if recipe.ar.timed else None
        d = recipe.data
        with self.processes.main_process_first():
            train, dev = read_manifest(d.train), [u for u in read_manifest(d.dev) if u.text]
            self.corpus = load_corpus(d.tokens, train, d, codec, aligner, None, recipe.seed, on_load)
            dev = spread(dev, recipe.dev_clips)
            held_out = load_corpus(d.dev_tokens, dev, d, codec, aligner, self.corpus.table, recipe.seed, on_load)
        torch.manual_seed(recipe.seed)  # whether the aligner was trained just now or long ago
        if recipe.init:
            self.models = load_models(recipe.init, codec)
            if self.models.table.symbols != self.corpus.table.symbols:
                raise ValueError(f"{recipe.init} reads other symbols than these texts have: train without --init")
        else:
            self.models = build_models(recipe, codec, self.corpus.table)
        o = recipe.optimizer
        self.weights = {"ar": recipe.ar.weight, "nar": recipe.nar.weight}
        self.trained = {name: part.to(self.device) for name, part in self.models.parts.items() if self.weights[name]}
        self.updaters = {
            name: Updater(
                model.parameters(),
                learning_rate=o.learning_rate,
                betas=o.betas,
                weight_decay=o.weight_decay,
                clip_norm=o.clip_norm,
                float16=recipe.precision == "float16",
            )
            for name, model in self.trained.items()
        }
        books = codec.quantizer.codebooks.cpu()
        self.data: ClipBatches = ClipBatches(self.corpus, recipe, codec.frame_rate, self.models, books)
        held = ClipBatches(held_out, recipe, codec.frame_rate, self.models, books)
        rng = np.random.default_rng(recipe.seed)
        order = np.argsort(held.lengths).tolist()
        self.dev = [held.batch(order[at : at + DEV_BATCH], rng) for at in range(0, len(order), DEV_BATCH)]

    def parts(self) -> dict[str, Any]:
        return self.trained | {f"{name}_optimizer": updater for name, updater in self.updaters.items()}

    def publish(self) -> None:
        save_models(self.models, self.folder / "model")

    def about(self) -> dict[str, Any]:
        return {"models": digest(self.models), "codec": self.models.codec_id, "left_out": len(self.corpus.left_out)}

    def train_step(self, parts: list[Batch]) -> dict[str, float]:
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)  # dropout's
        share = self.learning_rate_share()
        figures: dict[str, float] = {}
        for name, model in self.trained.items():
            model.train()
            losses = []
            for batch in parts:
                with self.autocast():
                    loss, _ = self._loss(name, batch)
                self.updaters[name].backward(self.weights[name] * loss / len(parts))
                losses.append(loss.detach())
            figures[name] = float(torch.stack(losses).mean())
            norm = self.updaters[name].update(share)
            if norm is None:
                for updater in self.updaters.values():
                    updater.clear()
                return self.skip()
            figures[f"{name}_gradient"] = norm
        self.skipped_in_a_row = 0
        return {"total": sum(figures[name] for name in self.trained), **figures}

    @torch.no_grad()
    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Nats a token on held-out clips, and how often the likeliest token is the right one."""
        figures = {}
        for name, model in self.trained.items():
            model.eval()
            found = [self._loss(name, batch) for batch in self.dev]
            sizes = torch.tensor([float(count) for _, (_, count) in found])
            figures[f"dev/{name}"] = float((torch.stack([loss.cpu() for loss, _ in found]) * sizes).sum() / sizes.sum())
            figures[f"dev/{name}_right"] = sum(right for _, (right, _) in found) / float(sizes.sum())
        return figures

    def _loss(self, name: str, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Of one model; and how many tokens it has right, of how many."""
        *inputs, targets = (t.to(self.device) for t in (batch.ar if name == "ar" else batch.nar) or ())
        scores = self.trained[name](*inputs)
        known = targets != IGNORED
        right = int((scores.argmax(-1) == targets)[known].sum())
        return cross_entropy(scores, targets), (right, int(known.sum()))
