"""The trainer of the language models: tokens and texts in, AR and NAR out. `training/loop.py` has the loop.

RUN/model/   config.json, ar.safetensors, nar.safetensors, aligner.safetensors
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vocable.codec.base import Codec
from vocable.codec.load import load_codec
from vocable.corpus.manifest import read_manifest, spread
from vocable.lm.aligner import Aligner
from vocable.lm.batches import Batch, ClipBatches
from vocable.lm.corpus import Corpus, load_corpus
from vocable.lm.model import LanguageModels, build_models, digest, load_models, save_models
from vocable.lm.recipe import AlignerRecipe, LMRecipe
from vocable.lm.transformer import IGNORED, cross_entropy
from vocable.training.log import Writer
from vocable.training.loop import Trainer
from vocable.training.optimizer import Updater, averaged

DEV_BATCH = 8  #: clips of a batch in evaluation


class LMTrainer(Trainer):
    """One training run in a folder.

    max_time, on_log: as in `Trainer`. on_load: called with the name of a stage of loading the corpus and the fraction
    of it that is done.
    """

    recipe: LMRecipe

    def __init__(
        self,
        recipe: LMRecipe,
        folder: str | os.PathLike[str],
        *,
        max_time: float | None = None,
        on_log: Callable[[dict[str, Any]], None] = lambda record: None,
        on_load: Callable[[str, float], None] = lambda stage, fraction: None,
    ) -> None:
        super().__init__(recipe, folder, max_time=max_time, on_log=on_log)
        self.workers = recipe.data.workers
        codec = load_codec(recipe.codec, parts="decoder")
        with self.processes.main_process_first():
            initial = _initial_models(recipe, codec)
            self.corpus, held_out = _load_corpora(recipe, codec, initial, on_load)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.models = build_models(recipe, codec, self.corpus.table, self.corpus.language)
        if initial:
            _start_from(self.models, initial, recipe.init)
        self.models.aligner = self.corpus.aligner
        train = {"ar": recipe.ar.train, "nar": recipe.nar.train}
        self.trained = {
            name: model.to(self.device) for name, model in self.models.networks().items() if train.get(name)
        }
        self.updaters = {
            name: Updater(model.parameters(), recipe.optimizer, float16=recipe.precision == "float16")
            for name, model in self.trained.items()
        }
        averages = {name: averaged(model, recipe.optimizer.ema_decay) for name, model in self.trained.items()}
        #: Moving averages of the models' weights, if the recipe has them: they are evaluated and published.
        self.averages = {name: average for name, average in averages.items() if average is not None}
        self.data: ClipBatches = ClipBatches(self.corpus, recipe, self.models, codec)
        self.held_out = ClipBatches(held_out, recipe, self.models, codec)
        self.dev = _dev_batches(self.held_out, recipe.seed)

    def components(self) -> dict[str, Any]:
        """Return everything that has a state: models and optimizers, by name."""
        optimizers = {f"{name}_optimizer": updater for name, updater in self.updaters.items()}
        return self.trained | optimizers | {f"{name}_average": average for name, average in self.averages.items()}

    @property
    def published(self) -> LanguageModels:
        """The models that are evaluated on dev and published: with the averages of the weights, if there are any."""
        averages: dict[str, Any] = {name: average.module for name, average in self.averages.items()}
        return dataclasses.replace(self.models, **averages)

    def publish(self) -> None:
        """Write the models to RUN/model."""
        save_models(self.published, self.folder / "model")

    def about(self) -> dict[str, Any]:
        """Return the summary's entries about the models and the corpus."""
        return {
            "models": digest(self.published),
            "token_id": self.models.token_id,
            "left_out": len(self.corpus.left_out),
        }

    def train_step(self, parts: list[Batch]) -> dict[str, float]:
        """Update the models with one batch, given in micro-batches; returns losses and gradient norms."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.generator().initial_seed())  # of dropout
            return self._train_step(parts)

    def _train_step(self, parts: list[Batch]) -> dict[str, float]:
        learning_rate = self.learning_rate_factor()
        figures: dict[str, float] = {}
        for name, model in self.trained.items():
            model.train()
            losses = []
            for batch in parts:
                with self.autocast():
                    loss = cross_entropy(*self.logits_and_targets(name, batch, model))
                self.updaters[name].backward(loss / len(parts))
                losses.append(loss.detach())
            figures[name] = float(torch.stack(losses).mean())
            norm = self.updaters[name].update(learning_rate)
            if norm is not None:
                figures[f"{name}_gradient"] = norm
                if name in self.averages:
                    self.averages[name].update_parameters(model)
        if not all(f"{name}_gradient" in figures for name in self.trained):
            return self.skip()
        return {"total": sum(figures[name] for name in self.trained), **figures}

    @torch.no_grad()
    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Return each model's loss on held-out clips in nats per token, and the accuracy of its likeliest token."""
        figures: dict[str, float] = {}
        networks = self.published.networks()
        for name in self.trained:
            model = networks[name].eval()
            loss = correct = tokens = 0.0
            for batch in self.dev:
                logits, targets = self.logits_and_targets(name, batch, model)
                counted = targets != IGNORED
                count = float(counted.sum())
                loss += float(cross_entropy(logits, targets)) * count
                correct += float((logits.argmax(-1) == targets)[counted].sum())
                tokens += count
            figures |= {f"dev/{name}": loss / tokens, f"dev/{name}_right": correct / tokens}
        return figures

    def logits_and_targets(self, name: str, batch: Batch, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Run a model, of the kind "ar" or "nar", on a batch: logits [B, S, V] and targets int64 [B, S]."""
        if name == "ar":
            *inputs, targets = (t.to(self.device) for t in batch.ar or ())
            return model(*inputs), targets
        inputs = [t.to(self.device) for t in batch.nar or ()]
        _, _, codes, num_frames, _, stage = inputs
        padding = torch.arange(codes.shape[2], device=self.device) >= num_frames[:, None]
        targets = codes[torch.arange(len(codes), device=self.device), stage + 1].masked_fill(padding, IGNORED)
        return model(*inputs), targets


def _initial_models(recipe: LMRecipe, codec: Codec) -> LanguageModels | None:
    """Load the models that training starts from. Raises ValueError if they read another front end's symbols."""
    if not recipe.init:
        return None
    initial = load_models(recipe.init, codec)
    if initial.front_end != recipe.data.front_end:
        raise ValueError(
            f"{recipe.init} was trained on {initial.front_end}: use --set data.front_end={initial.front_end}"
        )
    return initial


def _load_corpora(
    recipe: LMRecipe, codec: Codec, initial: LanguageModels | None, progress: Callable[[str, float], None]
) -> tuple[Corpus, Corpus]:
    """Load the corpora to train on and to evaluate with; both with the same symbols and aligner."""
    data = recipe.data
    train, dev = read_manifest(data.train), [u for u in read_manifest(data.dev) if u.text]
    aligner: AlignerRecipe | Aligner | None = recipe.aligner if recipe.ar.timed else None
    table = None
    if initial:
        table = initial.table
        if aligner and initial.aligner:  # it may have been trained on more clips than this corpus has
            aligner = initial.aligner
    corpus = load_corpus(data.tokens, train, data, codec, aligner, table, progress)
    dev = spread(dev, recipe.dev_clips)
    return corpus, load_corpus(data.dev_tokens, dev, data, codec, corpus.aligner, corpus.table, progress)


def _start_from(models: LanguageModels, initial: LanguageModels, name: str) -> None:
    """Copy the weights of `initial`, and take over its models that the recipe does not train.

    Raises ValueError for models of other sizes; `name` names them in the message.
    """
    before = initial.networks()
    for network, model in models.networks().items():
        if network not in before or _sizes(before[network]) != _sizes(model):
            raise ValueError(f"{name} has no {network} of this recipe's sizes: use the recipe that it was trained with")
        model.load_state_dict(before[network].state_dict())
    models.ar, models.nar = models.ar or initial.ar, models.nar or initial.nar


def _sizes(model: nn.Module) -> dict[str, Any]:
    """Return the config of a model without the fields that another run with the same weights may change."""
    sizes: dict[str, Any] = dataclasses.asdict(model.config)  # type: ignore[call-overload]
    return sizes | {"look_ahead": None, "frame_rate": None, "transformer": sizes["transformer"] | {"dropout": None}}


def _dev_batches(held_out: ClipBatches, seed: int) -> list[Batch]:
    """Return all held-out clips as batches of similar length."""
    rng = np.random.default_rng(seed)
    order = np.argsort(held_out.lengths).tolist()
    return [held_out.batch(order[start : start + DEV_BATCH], rng) for start in range(0, len(order), DEV_BATCH)]
