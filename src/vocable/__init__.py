"""vocable: speech as tokens. SpeechTokenizer (arXiv 2308.16692): encoder, residual vector quantizer, decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocable.codec.model import SpeechTokenizer as SpeechTokenizer
    from vocable.conversion import VoiceConverter as VoiceConverter
    from vocable.lm.uslm import USLM as USLM

__version__ = "0.1.0"
__all__ = ["USLM", "SpeechTokenizer", "VoiceConverter", "__version__"]


def __getattr__(name: str) -> object:
    # Importing torch takes seconds; `vocable --help` and `vocable.__version__` do without.
    if name == "SpeechTokenizer":
        from vocable.codec.model import SpeechTokenizer

        return SpeechTokenizer
    if name == "VoiceConverter":
        from vocable.conversion import VoiceConverter

        return VoiceConverter
    if name == "USLM":
        from vocable.lm.uslm import USLM

        return USLM
    raise AttributeError(f"module 'vocable' has no attribute {name!r}")
