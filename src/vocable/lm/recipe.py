"""A language model's recipe: everything that makes a training run, as one YAML file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from vocable.training.recipe import Optimizer, build, check_least, read_values


@dataclass(frozen=True)
class Data:
    tokens: str  #: folder of `vocable tokenize`, all layers
    train: str  #: the manifest that it was made of, with texts and speakers
    dev_tokens: str
    dev: str
    cache: str  #: folder for symbols and timings; made if missing
    front_end: Literal["phonemes", "characters"] = "phonemes"
    language: str = "en"  #: of clips whose manifest does not say
    longest: float = 16.0  #: seconds; longer clips are left out
    batch_frames: int = 4000  #: of speech in a step, prompts and padding included
    prompt: float = 3.0  #: seconds of the voice, at most
    workers: int = 1  #: threads that cut batches ahead


@dataclass(frozen=True)
class AlignerRecipe:
    steps: int = 800
    batch_frames: int = 8000
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class ModelRecipe:
    """One of the two transformers."""

    train: bool = True
    dim: int = 256
    layers: int = 6
    heads: int = 4
    hidden: int = 704  #: of the feed-forward
    dropout: float = 0.1
    no_prompt: float = 0.1  #: share of clips that have no prompt


@dataclass(frozen=True)
class ARRecipe(ModelRecipe):
    timed: bool = True  #: symbols stand in the speech, where they are spoken; False is the papers' way
    look_ahead: bool = True  #: and with each of them the one that comes next
    all_layers: bool = False  #: of the prompt are read, as in VALL-E's NAR; False: RVQ-1


@dataclass(frozen=True)
class NARRecipe(ModelRecipe):
    dim: int = 320
    heads: int = 5
    hidden: int = 880
    no_symbols: float = 0.3  #: share of clips whose symbols are not told: conversion knows none


@dataclass(frozen=True)
class LMRecipe:
    name: str
    data: Data
    codec: str = "fast"  #: a folder or hub id of the codec that made the tokens
    aligner: AlignerRecipe = field(default_factory=AlignerRecipe)
    ar: ARRecipe = field(default_factory=ARRecipe)
    nar: NARRecipe = field(default_factory=NARRecipe)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=1e-3, betas=(0.9, 0.98)))
    init: str = ""  #: a folder of a model to begin from
    max_steps: int = 100_000
    seed: int = 0
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    accumulate: int = 1
    threads: int = 0
    save_every: int = 500
    evaluate_every: int = 1000
    dev_clips: int = 64

    def __post_init__(self) -> None:
        if not self.ar.train and not self.nar.train:
            raise ValueError("recipe: ar.train and nar.train are both false: there is nothing to train")
        if self.optimizer.ema_decay:
            raise ValueError("recipe.optimizer.ema_decay: these models publish their last weights, leave it out")
        at_least_one = {
            **{name: getattr(self, name) for name in ("max_steps", "accumulate", "save_every", "evaluate_every")},
            "dev_clips": self.dev_clips,
            "data.batch_frames": self.data.batch_frames,
            "data.workers": self.data.workers,
        }
        check_least(1, at_least_one)
        check_least(0, {"seed": self.seed, "threads": self.threads})
        check_least(20, {"aligner.steps": self.aligner.steps})  # of its schedule, a tenth is the warm-up


def load_recipe(path: str | os.PathLike[str], overrides: list[str] = []) -> LMRecipe:  # noqa: B006 (read only)
    """As the codec's `load_recipe`."""
    recipe: LMRecipe = build(LMRecipe, read_values(path, overrides), "recipe")
    return recipe
