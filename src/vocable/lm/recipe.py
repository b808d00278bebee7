"""A language model's recipe: everything that makes a training run, as one YAML file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Literal

from vocable.training.recipe import Optimizer
from vocable.training.recipe_file import (
    BelowOne,
    Bound,
    Count,
    Fraction,
    Name,
    Natural,
    Positive,
    Section,
    Seed,
    build,
    read_values,
)

#: A tenth of the aligner's steps is its warm-up.
AlignerSteps = Annotated[int, Bound("at least 20", lambda n: n >= 20)]


@dataclass(frozen=True)
class Data(Section):
    tokens: str  #: folder of `vocable tokenize`, all layers
    train: str  #: the manifest that it was made of, with texts and speakers
    dev_tokens: str
    dev: str
    cache: str  #: folder for symbols and timings; made if missing
    front_end: Literal["phonemes", "characters"] = "phonemes"
    language: str = "en"  #: of clips whose manifest does not say
    longest: Positive = 16.0  #: seconds; longer clips are left out
    batch_frames: Count = 4000  #: of speech in a step, prompts and padding included
    prompt: Positive = 3.0  #: seconds of the voice, at most
    workers: Count = 1  #: threads that cut batches ahead


@dataclass(frozen=True)
class AlignerRecipe(Section):
    steps: AlignerSteps = 800
    batch_frames: Count = 8000
    learning_rate: Positive = 2e-3


@dataclass(frozen=True)
class ModelRecipe(Section):
    """One of the two transformers."""

    train: bool = True
    dim: Count = 256
    layers: Count = 6
    heads: Count = 4
    hidden: Count = 704  #: of the feed-forward
    dropout: BelowOne = 0.1
    no_prompt: Fraction = 0.1  #: fraction of clips that have no prompt


@dataclass(frozen=True)
class ARRecipe(ModelRecipe):
    timed: bool = True  #: symbols stand in the speech, where they are spoken; False is the papers' way
    look_ahead: bool = True  #: and with each of them the one that comes next
    all_layers: bool = False  #: of the prompt are read, as in VALL-E's NAR; False: RVQ-1


@dataclass(frozen=True)
class NARRecipe(ModelRecipe):
    dim: Count = 320
    heads: Count = 5
    hidden: Count = 880
    no_symbols: Fraction = 0.3  #: fraction of clips whose symbols are not told: conversion knows none


@dataclass(frozen=True)
class LMRecipe(Section):
    name: Name
    data: Data
    codec: str = "fast"  #: a folder or hub id of the codec that made the tokens
    aligner: AlignerRecipe = field(default_factory=AlignerRecipe)
    ar: ARRecipe = field(default_factory=ARRecipe)
    nar: NARRecipe = field(default_factory=NARRecipe)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=1e-3, betas=(0.9, 0.98)))
    init: str = ""  #: a folder of a model to begin from
    max_steps: Count = 100_000
    seed: Seed = 0
    device: str = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    accumulate: Count = 1
    threads: Natural = 0
    save_every: Count = 500
    evaluate_every: Count = 1000
    dev_clips: Count = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ar.train and not self.nar.train:
            raise ValueError("recipe: ar.train and nar.train are both false: there is nothing to train")
        if self.optimizer.ema_decay:
            raise ValueError("recipe.optimizer.ema_decay: these models publish their last weights, leave it out")


def load_recipe(path: str | os.PathLike[str], overrides: list[str] = []) -> LMRecipe:  # noqa: B006 (read only)
    """As the codec's `load_recipe`."""
    recipe: LMRecipe = build(LMRecipe, read_values(path, overrides), "recipe")
    return recipe
