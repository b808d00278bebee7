"""Jobs that worker processes do, their results, and their errors. All of them can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vocable.lm.generated import Word
from vocable.lm.synthesis import TAKES

#: Formats of tokens: a line of a .jsonl token file, a .safetensors token file, or codes alone as uint16 [K', T].
TokenFormat = Literal["json", "safetensors", "npy"]


# ---- jobs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Voice:
    """A voice: the bytes of a token file, or of a recording."""

    data: bytes
    is_recording: bool


@dataclass(frozen=True)
class Speak:
    """Speak a text. Result: one `Sound` for each sentence."""

    text: str
    voice: Voice | None = None  #: None: the models invent one
    language: str | None = None  #: ISO 639-1; None: that of the models' training
    takes: int = TAKES
    seed: int | None = None  #: a job with a seed is never batched with others, so that its speech is always the same
    speed: float = 1.0


@dataclass(frozen=True)
class Convert:
    """Convert a recording to a voice. Result: one `Sound`."""

    source: bytes  #: an audio file
    voice: Voice
    text: str | None = None  #: of the source, if it is known
    language: str | None = None


@dataclass(frozen=True)
class Encode:
    """Encode a recording. Result: one `Tokens`."""

    recording: bytes  #: an audio file
    layers: slice | None = None
    format: TokenFormat = "safetensors"


@dataclass(frozen=True)
class Decode:
    """Decode tokens of one clip. Result: one `Sound`."""

    tokens: bytes  #: in one of the formats that hold a header
    format: Literal["json", "safetensors"] = "safetensors"
    layers: slice | None = None


@dataclass(frozen=True)
class PrepareVoice:
    """Prepare the voice of a recording. Result: one `Tokens`, a .safetensors file."""

    recording: bytes  #: an audio file


Job = Speak | Convert | Encode | Decode | PrepareVoice


# ---- results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sound:
    """Speech that a worker made."""

    waveform: np.ndarray  #: float32 [L]
    sample_rate: int  #: Hz
    text: str = ""  #: the sentence that is spoken
    warnings: tuple[str, ...] = ()  #: problems found while it was made
    #: Words of the sentence, with times from the start of the job's speech; None if the models cannot time them.
    words: tuple[Word, ...] | None = None

    @property
    def seconds(self) -> float:
        """Length of the speech."""
        return len(self.waveform) / self.sample_rate


@dataclass(frozen=True)
class Tokens:
    """Codes of a recording, as a file."""

    data: bytes
    token_id: str  #: of the codec
    shape: tuple[int, int]  #: layers and frames
    seconds: float  #: length of the recording
    warnings: tuple[str, ...] = ()


Result = Sound | Tokens


@dataclass(frozen=True)
class Loaded:
    """What the workers have loaded."""

    codec: dict[str, Any]  #: `Codec.describe`
    speech: str | None  #: id of the language models; None: there are none
    language: str | None  #: of the language models' training texts
    missing: str | None  #: why there are no language models


# ---- errors ----------------------------------------------------------------------------------------------------------


class Refused(ValueError):
    """A job that cannot be done as it was asked; the message, one line, says what to change."""


class TooLarge(Refused):
    """A job over a limit of the service."""


class Failed(RuntimeError):
    """A job that failed by a fault of the service."""


class Unavailable(RuntimeError):
    """A job that may succeed if it is sent again: its worker died, or the service is starting or stopping."""


class Stopping(Unavailable):
    """A job that was not done because the service is stopping."""


class Full(Unavailable):
    """A job that was not taken because too many wait."""
