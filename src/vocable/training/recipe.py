"""A recipe: everything that makes a training run, as one YAML file."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vocable.codec.config import PRESETS, CodecConfig
from vocable.extras import need


@dataclass(frozen=True)
class Data:
    train: str | tuple[str, ...]  #: JSONL manifest, or several; relative to the working directory, as every path is
    dev: str
    crop_seconds: float = 1.0
    batch_size: int = 12  #: clips a step, all processes and parts together
    preload: bool = True  #: decode every clip once, into memory as int16 (115 MB an hour)
    workers: int = 2  #: threads that decode clips, and cut batches ahead
    #: A language with a share p of the hours is drawn with a chance in proportion to p to this power: 1 draws every
    #: hour alike, 0 every language.
    language_temperature: float = 1.0
    on_device: bool = False  #: keep the corpus and the teacher's features in the device's memory, and cut batches there


@dataclass(frozen=True)
class Distillation:
    weight: float = 0.0  #: of the distillation loss; 0 trains without a teacher
    loss: Literal["d_axis", "t_axis", "units"] = "d_axis"  #: cosine over time (paper), over features, or pseudo-labels
    teacher: str = ""  #: transformers folder or hub id
    layer: int | Literal["avg"] | tuple[int, ...] = "avg"  #: of the teacher; several are averaged
    cache: str = ""  #: folder of `vocable semantic extract`'s output for data.train; made if missing
    units: str = ""  #: folder of `vocable semantic units`'s output, for the loss "units"
    #: Remove the mean over the crop from the teacher's features and from the student's. A constant reaches a cosine of
    #: .85 with raw features of an early layer, and the loss has little left to teach.
    centre: bool = False


@dataclass(frozen=True)
class Content:
    """What else than distillation keeps RVQ-1 to content; each weight 0 leaves its loss out."""

    phones: float = 0.0  #: weight of a linear classifier's cross-entropy: the phone of each frame from RVQ-1
    labels: str = ""  #: folder of `vocable semantic phones`'s output
    #: Weight of the squared distance of RVQ-1's latents from the code vectors of the clean clip: of the clip's own, and
    #: of a copy's that noise, a room, a band, another level and another voice disturb (consistency loss, after
    #: arXiv 2409.19283). The phone classifier reads the copy too.
    consistency: float = 0.0
    #: Weight of the cross-entropy of the clean clip's ids, given the disturbed copy's latents, less the entropy of the
    #: ids. The entropy keeps the whole codebook in use.
    agreement: float = 0.0
    disturbed: float = 0.5  #: share of a batch's clips that are disturbed
    noise: str = ""  #: JSONL manifest of noises for that; white and pink noise come besides
    speaker: float = 0.0  #: weight of misleading a classifier that reads the speaker from RVQ-1


@dataclass(frozen=True)
class Losses:
    mel: float = 1.0
    spectrum: float = 10.0
    waveform: float = 3.0
    commitment: float = 0.25
    #: Weight of the mean squared length of the decoder's phase vectors, for a codec with `phase_noise`: without a price
    #: the decoder would make every vector long, and drown the noise where it does not know the phase either.
    phase: float = 0.0
    resolutions: tuple[tuple[int, int], ...] = ((2048, 128), (1024, 80), (512, 64), (256, 40))  #: (n_fft, n_mels)


@dataclass(frozen=True)
class Quantizer:
    start_step: int = 300  #: until then latents pass unquantized; then the codebooks start by k-means (0: never)
    kmeans_vectors: int = 16  #: vectors per codebook entry in that start
    kmeans_iterations: int = 12
    decay: float = 0.99
    dead_share: float = 0.05  #: an entry with less than this part of an even share is replaced
    dropout: float = 0.5  #: share of clips decoded from n layers, n drawn with chance 1 / n; the rest from all


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-3  #: reached after the warm-up, then a half cosine down to a hundredth
    warmup: float = 0.01  #: part of the run
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    muon: float = 0.0  #: learning rate of Muon for the matrices of hidden layers (torch.optim.Muon); 0: AdamW for all
    ema_decay: float = 0.0  #: publish an average of the weights over steps, which forgets this slowly; 0: the last


@dataclass(frozen=True)
class AdversaryRecipe:
    weight: float = 0.0  #: of the adversarial loss; 0 trains without discriminators
    features: float = 1.0  #: weight of feature matching
    normalize: bool = True  #: divide each layer's distance by the size of its activations (paper); False: released code
    loss: Literal["hinge", "lsgan"] = "hinge"  #: the paper's, or the released code's
    discriminators: Literal["slim", "stft", "paper"] = "slim"
    start_step: int = 0  #: they enter at this step: a codec that does not speak yet teaches them nothing
    shown: float = 1.0  #: share of a batch's clips that they see; fewer make a step cheaper
    learning_rate: float = 3e-4  #: follows the codec's schedule
    betas: tuple[float, float] = (0.8, 0.99)
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Recipe:
    name: str
    data: Data
    codec: CodecConfig = field(default_factory=lambda: PRESETS["fast"])
    distillation: Distillation = field(default_factory=Distillation)
    content: Content = field(default_factory=Content)
    losses: Losses = field(default_factory=Losses)
    quantizer: Quantizer = field(default_factory=Quantizer)
    optimizer: Optimizer = field(default_factory=Optimizer)
    adversary: AdversaryRecipe = field(default_factory=AdversaryRecipe)
    init: str = ""  #: a codec to begin from, in place of `codec` and random weights: fast, a folder or a hub id
    max_steps: int = 100_000
    seed: int = 0
    device: str = "cpu"  #: or cuda: the GPU that the launcher gives each process
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"  #: of products; weights and codes stay float32
    accumulate: int = 1  #: parts that a process works its share of a batch through in, where memory is short
    compile: bool = False  #: torch.compile encoder, decoder and discriminators
    threads: int = 0  #: CPU threads; 0: as torch chooses
    save_every: int = 500  #: steps between checkpoints
    evaluate_every: int = 1000  #: steps between passes over dev clips, with audio in the log
    dev_clips: int = 8

    def __post_init__(self) -> None:
        at_least_one = {
            "max_steps": self.max_steps,
            "accumulate": self.accumulate,
            "save_every": self.save_every,
            "evaluate_every": self.evaluate_every,
            "dev_clips": self.dev_clips,
            "data.batch_size": self.data.batch_size,
            "data.workers": self.data.workers,
            "quantizer.kmeans_vectors": self.quantizer.kmeans_vectors,
        }
        at_least_zero = {
            "seed": self.seed,
            "threads": self.threads,
            "quantizer.start_step": self.quantizer.start_step,
            "adversary.start_step": self.adversary.start_step,
        }
        check_least(1, at_least_one)
        check_least(0, at_least_zero)
        if not 0 <= self.quantizer.dead_share < 1:
            raise ValueError(f"recipe.quantizer.dead_share must be 0 to less than 1, not {self.quantizer.dead_share}")


def check_least(lowest: int, values: Mapping[str, int]) -> None:
    """ValueError for a value of a recipe, by name, that is below what it must be."""
    for name, value in values.items():
        if value < lowest:
            raise ValueError(f"recipe.{name} must be at least {lowest}, not {value}")


def load_recipe(path: str | os.PathLike[str], overrides: list[str] = []) -> Recipe:  # noqa: B006 (read only)
    """Read a YAML recipe and apply `key.subkey=value` overrides. Raises ValueError naming a wrong key or value.

    A recipe with `base: other.yaml`, a path relative to its own, has that one's values under its own.
    """
    return from_dict(read_values(path, overrides))


def read_values(path: str | os.PathLike[str], overrides: list[str]) -> dict[str, Any]:
    """What `load_recipe` builds a recipe from."""
    yaml = need("yaml", "train")
    path = Path(path)
    values = _read(path)
    try:
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator:
                raise ValueError(f"--set takes key=value, not {override!r}")
            *parents, last = key.split(".")
            node = values
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = yaml.safe_load(text)
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a recipe ({error})") from error
    return values


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a recipe over those of its base. `above`: the recipes that this one is a base of."""
    yaml = need("yaml", "train")
    if path.resolve() in above:
        raise ValueError(f"{path}: its base leads back to it")
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe" + (f"; it is the base of {above[-1]}" if above else ""))
    try:
        values: dict[str, Any] = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        base = path.parent / values.pop("base") if "base" in values else None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a recipe ({error})") from error
    return _merge(_read(base, (*above, path.resolve())), values) if base else values


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Both; where both hold a mapping, the mappings merged; where both hold anything else, that of `over`."""
    both = {
        key: _merge(under[key], over[key])
        for key in over
        if isinstance(under.get(key), dict) and isinstance(over[key], dict)
    }
    return under | over | both


def from_dict(values: Any) -> Recipe:
    """Build a Recipe from nested dictionaries, checking every key and the type of every value."""
    recipe: Recipe = build(Recipe, values, "recipe")
    return recipe


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: a dataclass from a dictionary, a tuple from a list, a number from a number."""
    if kind is CodecConfig:
        return CodecConfig.from_dict(value)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: a mapping is expected, not {value!r}")
        kinds = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(kinds))
        if unknown:
            raise ValueError(f"{where}: no field {', '.join(map(str, unknown))}; there are {', '.join(kinds)}")
        try:
            return kind(**{key: build(kinds[key], item, f"{where}.{key}") for key, item in value.items()})  # type: ignore[operator]
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) == len(value):
            return tuple(build(k, v, where) for k, v in zip(inner, value, strict=True))
    if origin is Literal and value in arguments:
        return value
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except ValueError as error:
            raise ValueError(f"{where}: {value!r} is not a number") from error
    if kind is str and isinstance(value, int):
        return str(value)  # a folder that is named 2024
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    if arguments and origin not in (tuple, Literal):  # a union: the first member that fits
        for member in arguments:
            try:
                return build(member, value, where)
            except ValueError:
                continue
    raise ValueError(f"{where}: {value!r} is not {kind}")
