"""Base class of the metrics, what they judge, and their registry."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np

from vocable.files import file_digest

SAMPLE_RATE = 16_000  #: Hz, of all waveforms that metrics and recognisers are given

#: A clip's score as (sum, count), so that the word edits of a long clip weigh more than those of a short one.
Score = tuple[float, float]


class NoAnswer(ValueError):
    """Raised by a metric that cannot judge a clip.

    The message is the reason. It is the same text for every such clip, because summaries count clips by it.
    """


def language_code(tag: str) -> str:
    """Return the language of a tag without region or script, in lower case: "en" of "en-US", "sv" of "sv_SE"."""
    return tag.replace("_", "-").partition("-")[0].lower()


@dataclass(frozen=True)
class Pair:
    """A recording and decoded or synthesized speech to judge: waveforms, float32 [L] at 16 kHz.

    Both are of equal length, except for synthesized speech, which only the word, phone, speaker and MOS metrics can
    judge.
    """

    reference: np.ndarray  #: the recording
    decoded: np.ndarray  #: the speech to judge
    text: str | None = None  #: what is said; None: not known
    language: str | None = "en"  #: of the text, "en" or "en-US"; None: not known
    voice: np.ndarray | None = None  #: speech in the voice that the decoded speech should have; None: the reference


@dataclass(frozen=True)
class Judges:
    """The pretrained models that metrics use, and where they are."""

    folder: Path = Path(".cache/models")  #: holds asr/whisper-base and other models
    asr: str = "base"  #: a size of Whisper (FOLDER/asr/whisper-SIZE, else from the hub), or a CTranslate2 folder
    wavlm: str = "microsoft/wavlm-base-plus-sv"  #: an x-vector model for transformers, for "speaker-wavlm"
    #: For "utmos": a repository for torch.hub, pinned to the commit of its v1.2.0, or a folder.
    utmos: str = "tarepan/SpeechMOS:ed25eacbfa42b99156c36ebec67a733b5dbb9b79"
    trust_utmos: bool = False  #: whether the code of that repository may be downloaded and run


class Metric(ABC):
    """Base class of the metrics. An object holds the loaded models; there is one for each process."""

    name: ClassVar[str]  #: on the command line
    label: ClassVar[str]  #: in table headings
    better: ClassVar[Literal["higher", "lower"]]  #: which values are better
    bounds: ClassVar[tuple[float, float]]  #: the lowest and the highest value
    packages: ClassVar[tuple[str, ...]] = ()  #: from PyPI, whose versions influence the values
    licence: ClassVar[str] = "Apache-2.0"  #: of third-party code and weights
    citation: ClassVar[str] = ""  #: where the metric is described
    digits: ClassVar[int] = 2  #: decimals in tables
    scale: ClassVar[float] = 1.0  #: factor in tables and summaries: 100 for percent
    needs_text: ClassVar[bool] = False  #: whether a clip without text cannot be judged

    @classmethod
    def heading(cls) -> str:
        """Return the label with an arrow up if higher values are better, down if lower ones are."""
        return f"{cls.label} {'↑' if cls.better == 'higher' else '↓'}"

    def __init__(self, judges: Judges) -> None:
        """Load the models. Raises ImportError that names the missing extra, ValueError that names missing weights."""
        self.judges = judges

    @abstractmethod
    def __call__(self, pair: Pair) -> Score:
        """Return the clip's score. Raises NoAnswer for a clip that the metric cannot judge."""

    def made_with(self) -> dict[str, str]:
        """Return the versions of packages and the names and hashes of weights.

        Scores are comparable between runs where these are equal.
        """
        return {package: importlib.metadata.version(package) for package in self.packages}


#: All metrics by name. Each is registered by the decorator `register` in its own file.
METRICS: dict[str, type[Metric]] = {}

M = TypeVar("M", bound=type[Metric])


def register(metric: M) -> M:
    """Add a metric class to METRICS. Raises ValueError if another metric has its name."""
    if metric.name in METRICS:
        raise ValueError(f"two metrics are named {metric.name!r}: rename one")
    METRICS[metric.name] = metric
    return metric


S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


def remember(
    count: int,
) -> Callable[[Callable[Concatenate[S, np.ndarray, P], R]], Callable[Concatenate[S, np.ndarray, P], R]]:
    """Decorate a method of a waveform so that each object keeps its last `count` results, the latest used last.

    Metrics and systems ask for the same recording one after another. The key is a digest of the waveform, with the
    other arguments. Exceptions are not kept.
    """

    def decorate(method: Callable[Concatenate[S, np.ndarray, P], R]) -> Callable[Concatenate[S, np.ndarray, P], R]:
        attribute = f"_results_of_{method.__name__}"

        @functools.wraps(method)
        def remembering(self: S, waveform: np.ndarray, /, *args: P.args, **kwargs: P.kwargs) -> R:
            results: dict[object, R] = vars(self).setdefault(attribute, {})
            key = (hashlib.sha256(waveform.tobytes()).digest(), args, tuple(kwargs.items()))
            result = results.pop(key) if key in results else method(self, waveform, *args, **kwargs)
            while len(results) >= count:
                results.pop(next(iter(results)))
            results[key] = result
            return result

        return remembering

    return decorate


def file_hash(path: Path) -> str:
    """Return the first ten digits of a file's SHA-256."""
    return file_digest(path)[:10]
