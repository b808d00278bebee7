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
    front_end: Literal["phonemes", "characters"] = "phonemes"  #: symbols of the texts
    language: str = "en"  #: language, ISO 639-1, of clips without a language in the manifest
    longest: Positive = 16.0  #: longest clips in seconds; longer ones are left out
    batch_frames: Count = 4000  #: frames per step, with prompts and padding
    prompt: Positive = 3.0  #: length of the longest prompt in seconds
    workers: Count = 1  #: threads that prepare batches


@dataclass(frozen=True)
class AlignerRecipe(Section):
    """Training of the aligner, if the corpus has none yet."""

    steps: AlignerSteps = 800  #: training steps
    batch_frames: Count = 8000  #: frames per step, with padding
    learning_rate: Positive = 2e-3  #: largest learning rate


@dataclass(frozen=True)
class ModelRecipe(Section):
    """What AR and NAR have in common: the transformer."""

    train: bool = True  #: whether this model is trained
    dim: Count = 256  #: channels of the transformer
    layers: Count = 6  #: transformer blocks
    heads: Count = 4  #: attention heads
    hidden: Count = 704  #: hidden channels of the feed-forward networks
    dropout: BelowOne = 0.1  #: dropout in training
    no_prompt: Fraction = 0.1  #: fraction of clips without a prompt in training


@dataclass(frozen=True)
class ARRecipe(ModelRecipe):
    """AR: text to RVQ-1."""

    timed: bool = True  #: insert each symbol of the text before its frames; false: no symbols, as in the papers
    look_ahead: bool = True  #: insert the next symbol of the text with each of these symbols
    all_layers: bool = False  #: read the codes of all layers of the prompt; false: RVQ-1 only


@dataclass(frozen=True)
class NARRecipe(ModelRecipe):
    """NAR: RVQ-1 to the layers above."""

    dim: Count = 320  #: channels of the transformer
    heads: Count = 5  #: attention heads
    hidden: Count = 880  #: hidden channels of the feed-forward networks
    no_symbols: Fraction = 0.3  #: fraction of clips without symbols, as in voice conversion without a text


@dataclass(frozen=True)
class LMRecipe(Section):
    """One training run of AR, NAR or both."""

    name: Name  #: name of the run; its folder is runs/NAME
    data: LMData  #: the section `data`
    codec: str = "fast"  #: the codec of the tokens: a folder, a hub id, or encodec:ID
    aligner: AlignerRecipe = field(default_factory=AlignerRecipe)  #: the section `aligner`
    ar: ARRecipe = field(default_factory=ARRecipe)  #: the section `ar`
    nar: NARRecipe = field(default_factory=NARRecipe)  #: the section `nar`
    #: the section `optimizer`
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=1e-3, betas=(0.9, 0.98)))
    init: str = ""  #: folder or hub id of models to start from; empty: random weights
    max_steps: Count = 100_000  #: training steps
    seed: Seed = 0  #: seed of weights, batches and dropout
    device: str = "cpu"  #: device to train on: cpu, cuda, ...
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"  #: number format of matrix products in training
    accumulate: Count = 1  #: micro-batches per step
    threads: Natural = 0  #: CPU threads; 0: torch's default
    save_every: Count = 500  #: steps between two checkpoints
    evaluate_every: Count = 1000  #: steps between two evaluations
    dev_clips: Count = 64  #: clips of the development set to evaluate with

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ar.train and not self.nar.train:
            raise ValueError("recipe: ar.train and nar.train are both false: there is nothing to train")


def load_recipe(path: str | os.PathLike[str], overrides: list[str] = []) -> LMRecipe:  # noqa: B006 (read only)
    """Read a recipe from a YAML file, with overrides "KEY=VALUE", as the codec's `load_recipe` does."""
    recipe: LMRecipe = build(LMRecipe, read_values(path, overrides), "recipe")
    return recipe
