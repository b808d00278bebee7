"""What a metric is: a pair of waveforms in, a sum and a count out, and what a reader must know to trust it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from vocable.files import file_digest

SAMPLE_RATE = 16_000  #: Hz, of both waveforms

#: A clip's figure as (sum, count), so that word edits weigh by words.
Score = tuple[float, float]


class NoAnswer(ValueError):
    """Raised by a metric that cannot judge a clip. The message is the reason, the same for every such clip: summaries
    count clips by it."""


def language_code(tag: str) -> str:
    """The language of a tag without region or script, lower case: "en" of "en-US", "sv" of "sv_SE"."""
    return tag.replace("_", "-").partition("-")[0].lower()


@dataclass(frozen=True)
class Pair:
    """What a metric judges. Waveforms are float32 [L] at 16 kHz, reference and decoded of equal length; but not where
    decoded was made from a text, of which words, phones, voice and opinion are judged alone."""

    reference: np.ndarray
    decoded: np.ndarray
    text: str | None = None
    language: str | None = "en"  #: of the text, "en" or "en-US"; None: not known
    #: Speech in the voice that the decoded speech should have; None: the reference.
    voice: np.ndarray | None = None


@dataclass(frozen=True)
class Models:
    """Which models the metrics use, and where they are."""

    folder: Path = Path(".cache/models")  #: holds asr/whisper-base and the like
    asr: str = "base"  #: a size of Whisper (folder/asr/whisper-SIZE, else from the hub), or a CTranslate2 folder
    wavlm: str = "microsoft/wavlm-base-plus-sv"  #: an x-vector model for transformers, for "speaker-wavlm"
    #: for "utmos": a repository for torch.hub, pinned to the commit of its v1.2.0, or a folder
    utmos: str = "tarepan/SpeechMOS:ed25eacbfa42b99156c36ebec67a733b5dbb9b79"
    trust_utmos: bool = False  #: whether the code of that repository may be downloaded and run


class Metric(ABC):
    """A metric, with its models loaded: one object a process."""

    name: ClassVar[str]  #: as the command line says it
    label: ClassVar[str]  #: as a table heads it
    better: ClassVar[Literal["higher", "lower"]]
    bounds: ClassVar[tuple[float, float]]
    packages: ClassVar[tuple[str, ...]] = ()  #: from PyPI; their versions shape the figure
    licence: ClassVar[str] = "Apache-2.0"  #: of code and weights that are not ours
    citation: ClassVar[str] = ""
    digits: ClassVar[int] = 2
    scale: ClassVar[float] = 1.0  #: 100 for percent
    needs_text: ClassVar[bool] = False

    @classmethod
    def heading(cls) -> str:
        """The label, with an arrow that points to where it is better."""
        return f"{cls.label} {'↑' if cls.better == 'higher' else '↓'}"

    def __init__(self, models: Models) -> None:
        """Load what it needs. Raises ImportError naming the extra, or ValueError naming the weights, it lacks."""
        self.models = models

    @abstractmethod
    def __call__(self, pair: Pair) -> Score:
        """The clip's score. Raises NoAnswer for a clip that the metric cannot judge."""

    def made_with(self) -> dict[str, str]:
        """Versions of packages, and names and hashes of weights: runs compare where these are equal."""
        return {package: importlib.metadata.version(package) for package in self.packages}


def weights_hash(model: torch.nn.Module) -> str:
    """The first ten digits of a SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:10]


def file_hash(path: Path) -> str:
    """The first ten digits of a file's SHA-256."""
    return file_digest(path)[:10]
