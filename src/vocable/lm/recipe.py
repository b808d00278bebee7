"""The recipe of a training run of language models: one YAML file."""

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

#: At least 20 steps, because the warm-up is a tenth of them.
AlignerSteps = Annotated[int, Bound("at least 20", lambda n: n >= 20)]


@dataclass(frozen=True)
class LMData(Section):
    """The corpora."""

    tokens: str  #: folder of `vocable tokenize` with the tokens to train on, all layers
    train: str  #: the manifest of these tokens, with texts and speakers
    dev_tokens: str  #: folder with the tokens to evaluate with
    dev: str  #: the manifest of these tokens
    cache: str  #: folder for symbols, aligner and timings; made if it is missing
    front_end: Literal["phonemes", "characters"] = "phonemes"  #: reads the texts
    language: str = "en"  #: ISO 639-1, of clips whose manifest names no language
    longest: Positive = 16.0  #: seconds; longer clips are left out
    batch_frames: Count = 4000  #: frames of a step, with prompts and padding
    prompt: Positive = 3.0  #: seconds of the longest prompt
    workers: Count = 1  #: threads that prepare batches


@dataclass(frozen=True)
class AlignerRecipe(Section):
    """Training of the aligner, if the corpus has none yet."""

    steps: AlignerSteps = 800  #: training steps
    batch_frames: Count = 8000  #: frames of a step, with padding
    learning_rate: Positive = 2e-3  #: its largest value


@dataclass(frozen=True)
class ModelRecipe(Section):
    """What AR and NAR have in common: the transformer."""

    train: bool = True  #: false: this model is not trained
    dim: Count = 256  #: channels of the transformer
    layers: Count = 6  #: blocks
    heads: Count = 4  #: attention heads
    hidden: Count = 704  #: channels within the feed-forward network
    dropout: BelowOne = 0.1  #: in training
    no_prompt: Fraction = 0.1  #: fraction of clips that have no prompt


@dataclass(frozen=True)
class ARRecipe(ModelRecipe):
    """AR: text to RVQ-1."""

    timed: bool = True  #: repeat the symbols of the text in the speech, where they begin; false: as in the papers
    look_ahead: bool = True  #: with each of these symbols, the next one of the text
    all_layers: bool = False  #: read vectors of all layers of the prompt, as VALL-E's NAR does; false: RVQ-1 only


@dataclass(frozen=True)
class NARRecipe(ModelRecipe):
    """NAR: RVQ-1 to the layers above."""

    dim: Count = 320
    heads: Count = 5
    hidden: Count = 880
    no_symbols: Fraction = 0.3  #: fraction of clips without symbols, as in voice conversion without a text


@dataclass(frozen=True)
class LMRecipe(Section):
    """One training run of AR, NAR or both."""

    name: Name  #: of the run; its folder is runs/NAME
    data: LMData
    codec: str = "fast"  #: the codec of the tokens: a folder, a hub id, or encodec:ID
    aligner: AlignerRecipe = field(default_factory=AlignerRecipe)
    ar: ARRecipe = field(default_factory=ARRecipe)
    nar: NARRecipe = field(default_factory=NARRecipe)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=1e-3, betas=(0.9, 0.98)))
    init: str = ""  #: folder or hub id of models to start from; empty: random weights
    max_steps: Count = 100_000  #: training steps
    seed: Seed = 0  #: of weights, batches and dropout
    device: str = "cpu"  #: to train on: cpu, cuda, ...
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"  #: of matrix products in training
    accumulate: Count = 1  #: micro-batches of a step
    threads: Natural = 0  #: CPU threads; 0: as many as torch takes
    save_every: Count = 500  #: steps between two checkpoints
    evaluate_every: Count = 1000  #: steps between two evaluations
    dev_clips: Count = 64  #: clips of the development set to evaluate with

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ar.train and not self.nar.train:
            raise ValueError("recipe: ar.train and nar.train are both false: there is nothing to train")
        if self.optimizer.ema_decay:
            raise ValueError("recipe.optimizer.ema_decay: language models have no averaged weights, leave it out")


def load_recipe(path: str | os.PathLike[str], overrides: list[str] = []) -> LMRecipe:  # noqa: B006 (read only)
    """Read a recipe from a YAML file, with overrides "KEY=VALUE", as the codec's `load_recipe` does."""
    recipe: LMRecipe = build(LMRecipe, read_values(path, overrides), "recipe")
    return recipe
