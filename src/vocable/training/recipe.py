"""The codec's recipe: everything that determines a training run. `vocable train codec` reads it from a YAML file.

docs/how-to/train-codec.md shows how to write one; recipes/ has one for each published model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vocable.codec.config import PRESETS, CodecConfig
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
    Weight,
    build,
    read_values,
)

WindowSize = Annotated[int, Bound("at least 4", lambda n: n >= 4)]


@dataclass(frozen=True)
class Data(Section):
    """The recordings, and how batches are drawn from them."""

    #: JSONL manifest of the recordings to train on, or a list of several. Paths in a recipe are relative to the working
    #: directory.
    train: str | tuple[str, ...]
    dev: str  #: JSONL manifest of the recordings that are decoded for the log during the run
    #: Length of the crops in a batch. Recordings shorter than this are trained on in batches of their own, with shorter
    #: crops.
    crop_seconds: Positive = 1.0
    batch_size: Count = 12  #: clips in a step, of all processes and micro-batches together
    #: Decode every recording once and keep it in memory as int16 (115 MB an hour). If false, each crop decodes its
    #: whole recording, so long recordings should be cut into utterances first.
    preload: bool = True
    workers: Count = 2  #: threads that decode recordings and cut batches ahead of the training step
    #: A language with a fraction p of the hours is drawn with a probability in proportion to p to the power of this
    #: number: at 1 every hour of speech is equally likely, at 0 every language.
    language_temperature: Fraction = 1.0
    #: Keep all recordings and the teacher's features in the memory of the training device and cut batches there, which
    #: is faster on a GPU. Needs `preload`.
    on_device: bool = False


@dataclass(frozen=True)
class Distillation(Section):
    """The loss that pulls the first quantizer (RVQ-1) towards a teacher's features."""

    weight: Weight = 0.0  #: weight of the distillation loss; 0 trains without a teacher
    #: "d_axis": cosine over time of each feature dimension (the paper's). "t_axis": cosine over the features of each
    #: frame. "units": cross-entropy with k-means clusters of the teacher's features.
    loss: Literal["d_axis", "t_axis", "units"] = "d_axis"
    teacher: str = ""  #: folder or hub id of a HuBERT, WavLM, wav2vec 2.0, data2vec-audio or Whisper model
    #: The teacher's hidden state to distil: its number, a list of numbers for the mean of several, or "avg" for the
    #: mean of all. State 0 is the input of the first block.
    layer: Natural | Literal["avg"] | tuple[Natural, ...] = "avg"
    cache: str = ""  #: folder of the teacher's features of `data.train`; if it is missing, the trainer extracts them
    units: str = ""  #: folder of `vocable semantic units`, for the loss "units"
    #: Remove the mean over each crop from the teacher's features and from the student's before the loss. Without this,
    #: a constant reaches a cosine of .85 with the features of an early layer, and the loss has little left to teach.
    centre: bool = False


@dataclass(frozen=True)
class Content(Section):
    """Further losses that make RVQ-1 hold content and nothing else. A weight of 0 leaves a loss out."""

    phones: Weight = 0.0  #: weight of the cross-entropy of a linear classifier that reads each frame's phone from RVQ-1
    labels: str = ""  #: folder of `vocable semantic phones`, with the phones for that classifier
    #: Weight of the consistency loss (after arXiv 2409.19283): the squared distance of RVQ-1's latents from the code
    #: vectors of the clean clip, for the clip itself and for a disturbed copy of it, with noise, a room's echo, a
    #: narrow band, another level or another voice. The phone classifier is trained on the copies too.
    consistency: Weight = 0.0
    #: Weight of the agreement loss: the cross-entropy of the clean clip's codes, predicted from the disturbed copy's
    #: latents, minus the entropy of the codes. The entropy keeps the whole codebook in use.
    agreement: Weight = 0.0
    disturbed: Fraction = 0.5  #: fraction of a batch's clips that get a disturbed copy
    noise: str = ""  #: JSONL manifest of noise recordings for the copies, in addition to white and pink noise
    #: Weight of the loss that makes RVQ-1 useless to a speaker classifier, which is trained together with the codec.
    speaker: Weight = 0.0


@dataclass(frozen=True)
class Losses(Section):
    """Weights of the reconstruction losses."""

    mel: Weight = 1.0  #: weight of the L1 distance of log-mel spectrograms
    spectrum: Weight = 10.0  #: weight of the L1 distance of complex spectra with compressed magnitudes
    waveform: Weight = 3.0  #: weight of the L1 distance of waveforms
    commitment: Weight = 0.25  #: weight of the squared distance between each layer's input and its code vector
    #: Weight of the mean squared length of the decoder's phase vectors, for a codec with `phase_noise`. Without it the
    #: decoder learns long vectors, which make the noise ineffective even where the decoder cannot know the phase.
    phase: Weight = 0.0
    #: [n_fft, n_mels] of each STFT in the mel and spectrum losses; the hop is a quarter of n_fft.
    resolutions: tuple[tuple[WindowSize, Count], ...] = ((2048, 128), (1024, 80), (512, 64), (256, 40))


@dataclass(frozen=True)
class Quantizer(Section):
    """How the codebooks are started and moved in training."""

    #: The step at which k-means sets the codebooks. Before it the decoder receives latents without quantization. At 0
    #: the codebooks are in use from the first step, as they were initialized or loaded.
    start_step: Natural = 300
    kmeans_vectors: Count = 16  #: latents that k-means collects for each codebook entry
    kmeans_iterations: Natural = 12  #: iterations of k-means
    decay: BelowOne = 0.99  #: decay of the moving average that moves the codebooks, per step
    #: An entry that is chosen less often than this fraction of an equal distribution over all entries is replaced by a
    #: random vector of the batch.
    dead_share: BelowOne = 0.05
    #: Quantizer dropout: the fraction of clips that are decoded from the first n layers only, where n is drawn with a
    #: probability in proportion to 1 / n. The other clips are decoded from all layers.
    dropout: Fraction = 0.5


@dataclass(frozen=True)
class Optimizer(Section):
    """AdamW, optionally Muon for some parameters, and the learning rate. Recipes of language models have it too."""

    learning_rate: Positive = 1e-3  #: highest learning rate, after the warm-up; half a cosine takes it to a hundredth
    warmup: BelowOne = 0.01  #: fraction of the run over which the learning rate rises from 0
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.98)  #: AdamW's decay of the gradient's mean and of its square
    weight_decay: Weight = 0.01  #: AdamW's weight decay, of all parameters, norms and biases included
    clip_norm: Positive = 1.0  #: the gradient's norm over all parameters is clipped to this
    #: Learning rate of Muon (torch.optim.Muon) for the matrices of hidden layers; 0 trains all parameters with AdamW.
    muon: Weight = 0.0
    #: Decay per step of a moving average of the weights, which is evaluated and published in place of the last weights;
    #: 0 publishes the last weights.
    ema_decay: BelowOne = 0.0


@dataclass(frozen=True)
class AdversaryRecipe(Section):
    """The discriminators, their losses and their optimizer."""

    weight: Weight = 0.0  #: weight of the adversarial loss; 0 trains without discriminators
    features: Weight = 1.0  #: weight of feature matching
    #: Divide each layer's feature matching distance by the mean size of its activations, as in the paper. The released
    #: code does not (false).
    normalize: bool = True
    loss: Literal["hinge", "lsgan"] = (
        "hinge"  #: "hinge" as in the paper, "lsgan" (least squares) as in the released code
    )
    #: "paper": periods, scales and STFTs, sized as in the paper. "slim": a fast set for CPUs. "stft": STFTs only.
    discriminators: Literal["slim", "stft", "paper"] = "slim"
    #: The step at which the discriminators enter. They learn little from a codec that does not produce speech yet.
    start_step: Natural = 0
    #: Fraction of a batch's clips that the discriminators are given, at least one clip. Fewer clips make steps faster.
    shown: Fraction = 1.0
    learning_rate: Positive = 3e-4  #: highest learning rate of the discriminators, with the schedule of the codec's
    betas: tuple[BelowOne, BelowOne] = (0.8, 0.99)  #: AdamW's, for the discriminators
    clip_norm: Positive = 1.0  #: the norm of the discriminators' gradient is clipped to this


@dataclass(frozen=True)
class Recipe(Section):
    """A codec's training run. Sections may be left out, except `data`; fields that are left out have their defaults."""

    name: Name  #: name of the run's folder in runs/, unless -o names another
    data: Data  #: recordings and batches
    codec: CodecConfig = field(default_factory=lambda: PRESETS["fast"])  #: the model: fields of CodecConfig
    distillation: Distillation = field(default_factory=Distillation)  #: the teacher and its loss
    content: Content = field(default_factory=Content)  #: further losses on RVQ-1
    losses: Losses = field(default_factory=Losses)  #: weights of the reconstruction losses
    quantizer: Quantizer = field(default_factory=Quantizer)  #: training of the codebooks
    optimizer: Optimizer = field(default_factory=Optimizer)  #: optimizer of the codec
    adversary: AdversaryRecipe = field(default_factory=AdversaryRecipe)  #: discriminators
    #: A codec to fine-tune: fast (the embedded model), a folder or a hub id. Its config replaces `codec`, and its
    #: codebooks are used from the first step.
    init: str = ""
    max_steps: Count = 100_000  #: length of the run in steps; `--max-time` may end it earlier
    seed: Seed = 0  #: determines weights, batches and noise: two runs with the same seed on the same machine are equal
    device: str = "cpu"  #: "cpu" or "cuda", which is the GPU that the launcher gives each process
    #: Number format of matrix products and convolutions; weights and quantization stay float32. "float16" needs a GPU.
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    accumulate: Count = 1  #: micro-batches that each process divides its clips of a step into, to save memory
    compile: bool = False  #: compile encoder, decoder and discriminators with torch.compile
    threads: Natural = 0  #: CPU threads of torch; 0 keeps torch's own choice
    save_every: Count = 500  #: steps between two saved states, from which `--resume` continues
    evaluate_every: Count = 1000  #: steps between two evaluations on dev clips, whose audio goes to the log
    dev_clips: Count = 8  #: recordings of `data.dev` that are evaluated, at most 5 s of each

    def __post_init__(self) -> None:
        super().__post_init__()
        d = self.distillation
        if d.weight and d.loss == "units" and not d.units:
            raise ValueError("the loss of units needs distillation.units: the folder of `vocable semantic units`")
        if d.weight and d.loss != "units" and not (d.teacher and d.cache):
            raise ValueError("distillation.weight needs distillation.teacher, and distillation.cache for its features")
        if self.content.phones and not self.content.labels:
            raise ValueError("content.phones needs content.labels: the folder of `vocable semantic phones`")


def load_recipe(path: str | os.PathLike[str], overrides: list[str] = []) -> Recipe:  # noqa: B006 (read only)
    """Read a YAML recipe and apply overrides, "key.subkey=value". Raises ValueError naming a wrong key or value.

    A recipe may begin with `base: other.yaml`, a path relative to its own folder: the values of that recipe hold
    wherever this one has none.
    """
    return from_dict(read_values(path, overrides))


def from_dict(values: Any) -> Recipe:
    """Build a Recipe from nested dictionaries. Raises ValueError naming a wrong key or value."""
    recipe: Recipe = build(Recipe, values, "recipe")
    return recipe
