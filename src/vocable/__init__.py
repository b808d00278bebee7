"""Speech as tokens: the SpeechTokenizer codec (arXiv 2308.16692), text to speech and voice conversion."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocable.audio import AudioError as AudioError
    from vocable.codec.checkpoint import CheckpointError as CheckpointError
    from vocable.codec.model import SpeechTokenizer as SpeechTokenizer
    from vocable.codec.tokens import TokensError as TokensError
    from vocable.conversion import VoiceConverter as VoiceConverter
    from vocable.conversion import swap_layers as swap_layers
    from vocable.lm.cancelling import Cancelled as Cancelled
    from vocable.lm.uslm import USLM as USLM

__version__ = "0.1.0"
__all__ = [
    "USLM",
    "AudioError",
    "Cancelled",
    "CheckpointError",
    "SpeechTokenizer",
    "TokensError",
    "VoiceConverter",
    "__version__",
    "swap_layers",
]

_MODULES = {
    "AudioError": "vocable.audio",
    "Cancelled": "vocable.lm.cancelling",
    "CheckpointError": "vocable.codec.checkpoint",
    "SpeechTokenizer": "vocable.codec.model",
    "TokensError": "vocable.codec.tokens",
    "USLM": "vocable.lm.uslm",
    "VoiceConverter": "vocable.conversion",
    "swap_layers": "vocable.conversion",
}


def __getattr__(name: str) -> object:
    # Importing torch takes seconds, and `vocable --help` and `vocable.__version__` do not need it.
    if name not in _MODULES:
        raise AttributeError(f"module 'vocable' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
