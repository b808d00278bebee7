"""A recipe: everything that makes a training run, as one YAML file.

The annotations of its dataclasses say what each value may be, and `build` checks them. Not by pydantic: language models
import these classes for inference too, which has no other need of it, and the lines of our own are fewer than the
translation of its errors would be.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import reprlib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from vocable.codec.config import PRESETS, CodecConfig
from vocable.extras import need


@dataclass(frozen=True)
class Bound:
    """A condition on a value besides its type, as an annotation; `words` complete "must be"."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Bound("at least 1", lambda n: n >= 1)]
Natural = Annotated[int, Bound("at least 0", lambda n: n >= 0)]
Seed = Annotated[int, Bound("at least 0 and less than 2**32", lambda n: 0 <= n < 2**32)]
Positive = Annotated[float, Bound("more than 0", lambda x: x > 0)]
Weight = Annotated[float, Bound("at least 0", lambda x: x >= 0)]
Fraction = Annotated[float, Bound("0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[float, Bound("0 to less than 1", lambda x: 0 <= x < 1)]
WindowSize = Annotated[int, Bound("at least 4", lambda n: n >= 4)]
#: Of a run's folder in runs/.
Name = Annotated[
    str, Bound("a name of letters, digits, spaces and .+-", lambda s: re.fullmatch(r"\w[\w .+-]*", s) is not None)
]


class Section:
    """Base of a recipe's frozen dataclasses: a new one checks its fields. Raises ValueError naming a wrong one."""

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value = build(kind, getattr(self, name), f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Data(Section):
    train: str | tuple[str, ...]  #: JSONL manifest, or several; relative to the working directory, as every path is
    dev: str
    crop_seconds: Positive = 1.0
    batch_size: Count = 12  #: clips a step, all processes and parts together
    #: Decode every clip once, into memory as int16 (115 MB an hour). Without it a crop decodes its whole recording, so
    #: long recordings are better cut into utterances.
    preload: bool = True
    workers: Count = 2  #: threads that decode clips, and cut batches ahead
    #: A language with a share p of the hours is drawn with a chance in proportion to p to this power: 1 draws every
    #: hour alike, 0 every language.
    language_temperature: Fraction = 1.0
    on_device: bool = False  #: keep the corpus and the teacher's features in the device's memory, and cut batches there


@dataclass(frozen=True)
class Distillation(Section):
    weight: Weight = 0.0  #: of the distillation loss; 0 trains without a teacher
    loss: Literal["d_axis", "t_axis", "units"] = "d_axis"  #: cosine over time (paper), over features, or pseudo-labels
    teacher: str = ""  #: transformers folder or hub id
    layer: Natural | Literal["avg"] | tuple[Natural, ...] = "avg"  #: of the teacher; several are averaged
    cache: str = ""  #: folder of `vocable semantic extract`'s output for data.train; made if missing
    units: str = ""  #: folder of `vocable semantic units`'s output, for the loss "units"
    #: Remove the mean over the crop from the teacher's features and from the student's. A constant reaches a cosine of
    #: .85 with raw features of an early layer, and the loss has little left to teach.
    centre: bool = False


@dataclass(frozen=True)
class Content(Section):
    """What else than distillation keeps RVQ-1 to content; each weight 0 leaves its loss out."""

    phones: Weight = 0.0  #: weight of a linear classifier's cross-entropy: the phone of each frame from RVQ-1
    labels: str = ""  #: folder of `vocable semantic phones`'s output
    #: Weight of the squared distance of RVQ-1's latents from the code vectors of the clean clip: of the clip's own, and
    #: of a copy's that noise, a room, a band, another level and another voice disturb (consistency loss, after
    #: arXiv 2409.19283). The phone classifier reads the copy too.
    consistency: Weight = 0.0
    #: Weight of the cross-entropy of the clean clip's ids, given the disturbed copy's latents, less the entropy of the
    #: ids. The entropy keeps the whole codebook in use.
    agreement: Weight = 0.0
    disturbed: Fraction = 0.5  #: share of a batch's clips that are disturbed
    noise: str = ""  #: JSONL manifest of noises for that; white and pink noise come besides
    speaker: Weight = 0.0  #: weight of misleading a classifier that reads the speaker from RVQ-1


@dataclass(frozen=True)
class Losses(Section):
    mel: Weight = 1.0
    spectrum: Weight = 10.0
    waveform: Weight = 3.0
    commitment: Weight = 0.25
    #: Weight of the mean squared length of the decoder's phase vectors, for a codec with `phase_noise`: without a price
    #: the decoder would make every vector long, and drown the noise where it does not know the phase either.
    phase: Weight = 0.0
    #: (n_fft, n_mels) of each STFT, whose hop is a quarter of n_fft
    resolutions: tuple[tuple[WindowSize, Count], ...] = ((2048, 128), (1024, 80), (512, 64), (256, 40))


@dataclass(frozen=True)
class Quantizer(Section):
    start_step: Natural = 300  #: until then latents pass unquantized; then the codebooks start by k-means (0: never)
    kmeans_vectors: Count = 16  #: vectors per codebook entry in that start
    kmeans_iterations: Natural = 12
    decay: BelowOne = 0.99
    dead_share: BelowOne = 0.05  #: an entry with less than this part of an even share is replaced
    dropout: Fraction = 0.5  #: share of clips decoded from n layers, n drawn with chance 1 / n; the rest from all


@dataclass(frozen=True)
class Optimizer(Section):
    learning_rate: Positive = 1e-3  #: reached after the warm-up, then a half cosine down to a hundredth
    warmup: BelowOne = 0.01  #: part of the run
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.98)
    weight_decay: Weight = 0.01  #: of all parameters, norms and biases too
    clip_norm: Positive = 1.0
    muon: Weight = 0.0  #: learning rate of Muon for the matrices of hidden layers (torch.optim.Muon); 0: AdamW for all
    ema_decay: BelowOne = 0.0  #: publish an average of the weights over steps, which forgets this slowly; 0: the last


@dataclass(frozen=True)
class AdversaryRecipe(Section):
    weight: Weight = 0.0  #: of the adversarial loss; 0 trains without discriminators
    features: Weight = 1.0  #: weight of feature matching
    normalize: bool = True  #: divide each layer's distance by the size of its activations (paper); False: released code
    loss: Literal["hinge", "lsgan"] = "hinge"  #: the paper's, or the released code's
    discriminators: Literal["slim", "stft", "paper"] = "slim"
    start_step: Natural = 0  #: they enter at this step: a codec that does not speak yet teaches them nothing
    shown: Fraction = 1.0  #: share of a batch's clips that they see, one at least; fewer make a step cheaper
    learning_rate: Positive = 3e-4  #: follows the codec's schedule
    betas: tuple[BelowOne, BelowOne] = (0.8, 0.99)
    clip_norm: Positive = 1.0


@dataclass(frozen=True)
class Recipe(Section):
    name: Name
    data: Data
    codec: CodecConfig = field(default_factory=lambda: PRESETS["fast"])
    distillation: Distillation = field(default_factory=Distillation)
    content: Content = field(default_factory=Content)
    losses: Losses = field(default_factory=Losses)
    quantizer: Quantizer = field(default_factory=Quantizer)
    optimizer: Optimizer = field(default_factory=Optimizer)
    adversary: AdversaryRecipe = field(default_factory=AdversaryRecipe)
    init: str = ""  #: a codec to begin from, in place of `codec` and random weights: fast, a folder or a hub id
    max_steps: Count = 100_000
    seed: Seed = 0
    device: str = "cpu"  #: or cuda: the GPU that the launcher gives each process
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"  #: of products; weights and codes stay float32
    accumulate: Count = 1  #: parts that a process works its share of a batch through in, where memory is short
    compile: bool = False  #: torch.compile encoder, decoder and discriminators
    threads: Natural = 0  #: CPU threads; 0: as torch chooses
    save_every: Count = 500  #: steps between checkpoints
    evaluate_every: Count = 1000  #: steps between passes over dev clips, with audio in the log
    dev_clips: Count = 8

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
    """Read a YAML recipe and apply `key.subkey=value` overrides. Raises ValueError naming a wrong key or value.

    A recipe with `base: other.yaml`, a path relative to its own, has that one's values under its own.
    """
    return from_dict(read_values(path, overrides))


def read_values(path: str | os.PathLike[str], overrides: list[str]) -> dict[str, Any]:
    """What `load_recipe` builds a recipe from."""
    yaml = need("yaml", "train")
    path = Path(path)
    try:
        values = _read(path)
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
    except RecursionError:
        raise ValueError(f"{path}: not a recipe (it is nested too deeply)") from None
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
    """Build a Recipe from nested dictionaries, checking every key and every value."""
    recipe: Recipe = build(Recipe, values, "recipe")
    return recipe


def changed_fields(recipe: Any, before: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of fields of `recipe`, a dataclass, that are not as in `before`, its like from JSON.

    A field that `before` lacks, because it is of an earlier version, had its default there.
    """
    for f in dataclasses.fields(recipe):
        now, name = getattr(recipe, f.name), prefix + f.name
        if f.name in before:
            then = before[f.name]
        else:
            then = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if dataclasses.is_dataclass(now) and isinstance(then, dict):
            yield from changed_fields(now, then, f"{name}.")
        elif then is dataclasses.MISSING or _plain(now) != _plain(then):
            yield name


def _plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples are lists, dataclasses mappings."""
    return json.loads(json.dumps(value, default=dataclasses.asdict))


def _kinds(section: Any) -> dict[str, Any]:
    """What each field of a dataclass may be."""
    return typing.get_type_hints(section, include_extras=True)


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: a dataclass from a dictionary, a tuple from a list, a number from a number.

    Raises ValueError, which names `where`, for a value of another type, one that its annotation rules out, NaN,
    infinity and an empty list.
    """
    if dataclasses.is_dataclass(kind):
        return _build_section(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        built = build(arguments[0], value, where)
        for bound in arguments[1:]:
            if not bound.holds(built):
                raise ValueError(f"{where} must be {bound.words}, not {reprlib.repr(value)}")
        return built
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) == len(value) > 0:
            return tuple(build(k, v, where) for k, v in zip(inner, value, strict=True))
    if origin is Literal and value in arguments:
        return value
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as a string
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{where}: {reprlib.repr(value)} is not a number") from error
        if not math.isfinite(number):
            raise ValueError(f"{where} must be finite, not {value!r}")
        return number
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a folder that is named 2024
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    if arguments and origin not in (tuple, Literal):  # a union: the first member that fits
        for member in arguments:
            try:
                return build(member, value, where)
            except ValueError:
                continue
    raise ValueError(f"{where}: {reprlib.repr(value)} is not {_said(kind)}")


def _build_section(kind: Any, value: Any, where: str) -> Any:
    """A dataclass from a dictionary with some or all of its fields."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a mapping is expected, not {reprlib.repr(value)}")
    if kind is CodecConfig:
        try:
            return CodecConfig.from_dict(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
    kinds = _kinds(kind)
    unknown = sorted(map(str, value.keys() - kinds.keys()))
    if unknown:
        raise ValueError(f"{where}: no field {', '.join(unknown)}; there are {', '.join(kinds)}")
    try:
        return kind(**{key: build(kinds[key], item, f"{where}.{key}") for key, item in value.items()})
    except TypeError as error:  # a field without a default is missing
        raise ValueError(f"{where}: {error}") from error


def _said(kind: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return ", ".join([_said(arguments[0]), *(bound.words for bound in arguments[1:])])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    if arguments:
        return " or ".join(map(_said, arguments))
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
