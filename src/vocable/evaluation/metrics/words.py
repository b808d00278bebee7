"""Word and character error rates of decoded speech, against the text; and the recogniser."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vocable.evaluation.metrics.base import (
    Judges,
    Metric,
    NoAnswer,
    Pair,
    Score,
    file_hash,
    language_code,
    register,
    remember,
)
from vocable.extras import need

#: Options of decoding. The fallback to higher temperatures is off, because it samples, and results would differ from
#: run to run. On unintelligible speech, Whisper may repeat the same words to the end of its window: so no sequence of
#: four tokens may occur twice.
OPTIONS: dict[str, Any] = {
    "beam_size": 5,
    "temperature": 0.0,
    "condition_on_previous_text": False,
    "without_timestamps": True,
    "no_repeat_ngram_size": 4,
}
#: Languages that are judged by characters (CER) with Whisper base: Chinese has no spaces between words, and Icelandic
#: words have more forms than the model knows.
BY_CHARACTERS = ("is", "zh")


@dataclass(frozen=True)
class TimedWord:
    """A recognised word, with its start and end in seconds."""

    text: str
    start: float
    end: float


class Recogniser:
    """Whisper through faster-whisper, in float32 on one thread. Waveforms are float32 [L] at 16 kHz."""

    def __init__(self, judges: Judges) -> None:
        whisper = need("faster_whisper", "eval")
        folder = next((f for f in candidates(judges) if (f / "model.bin").is_file()), None)
        try:
            self.folder = folder or Path(whisper.download_model(judges.asr))
        except (OSError, ValueError) as error:  # huggingface_hub's errors, and that for an unknown size
            known = " or ".join(map(str, candidates(judges)))
            raise ValueError(f"Whisper {judges.asr!r}: neither in {known}, nor to be had from the hub") from error
        self._model = whisper.WhisperModel(str(self.folder), device="cpu", compute_type="float32", cpu_threads=1)

    # Both error rates ask for the same decoded speech, and all systems for the same recording.
    @remember(2)
    def __call__(self, waveform: np.ndarray, language: str | None) -> str:
        """Return the transcript. Raises NoAnswer for a language that the model does not know."""
        segments, _ = self._model.transcribe(waveform, language=self.code_of(language), **OPTIONS)
        return " ".join(segment.text for segment in segments)

    def timed_words(self, waveform: np.ndarray, language: str | None) -> list[TimedWord]:
        """Return the recognised words with their times. Raises NoAnswer for a language that the model does not know."""
        options = OPTIONS | {"without_timestamps": False, "word_timestamps": True}
        segments, _ = self._model.transcribe(waveform, language=self.code_of(language), **options)
        return [TimedWord(w.word.strip(), float(w.start), float(w.end)) for s in segments for w in s.words]

    def code_of(self, language: str | None) -> str | None:
        """Return the model's code for a language: "en" for "en-US"; None for None, and then the model decides.

        Raises NoAnswer for a language that the model does not know.
        """
        code = None if language is None else language_code(language)
        if code is not None and code not in self._model.supported_languages:
            raise NoAnswer(f"{self.folder.name} does not know the language {code!r}")
        return code


def candidates(judges: Judges) -> tuple[Path, Path]:
    """Return the folders in which a recogniser is looked for."""
    return Path(judges.asr), judges.folder / "asr" / f"whisper-{judges.asr}"


@lru_cache(maxsize=1)
def recogniser(judges: Judges) -> Recogniser:
    """Return the process's recogniser, which all metrics use."""
    return Recogniser(judges)


def has_normalizer(language: str | None) -> bool:
    """Return whether numbers and spellings are normalised before words are compared: only those of English are."""
    return language is not None and language_code(language) == "en"


def normalizer(language: str | None) -> Callable[[str], str]:
    """Return Whisper's normalizer of a language: spelling and numbers for English, letters and digits for others."""
    return _normalizer(has_normalizer(language))


@cache
def _normalizer(english: bool) -> Callable[[str], str]:
    module = need(f"whisper_normalizer.{'english' if english else 'basic'}", "eval")
    made: Callable[[str], str] = module.EnglishTextNormalizer() if english else module.BasicTextNormalizer()
    return made


@register
class WER(Metric):
    """Word error rate by Whisper; both texts are normalised as Whisper's authors do."""

    name, label, better, bounds, scale, digits = "wer", "WER %", "lower", (0.0, np.inf), 100.0, 1
    packages = ("faster-whisper", "ctranslate2", "jiwer", "whisper-normalizer")
    licence = "MIT"
    citation = "Radford et al., arXiv 2212.04356"
    needs_text = True

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        need("whisper_normalizer", "eval")
        self._recognise, self._jiwer = recogniser(judges), need("jiwer", "eval")

    def __call__(self, pair: Pair) -> Score:
        """Return edits and units of the text. Raises NoAnswer without a text, and for an unknown language."""
        language = self._recognise.code_of(pair.language)
        if pair.text is None:
            raise NoAnswer("no text")
        normalize = normalizer(language)
        text = normalize(pair.text).strip()
        if not text:
            raise NoAnswer("no word is left of the text once it is normalised")
        return self.edits(text, normalize(self._recognise(pair.decoded, language)).strip())

    def edits(self, text: str, transcript: str) -> Score:
        """Return the edits, and the words of the text."""
        found = self._jiwer.process_words(text, transcript)
        return found.substitutions + found.deletions + found.insertions, len(text.split())

    def made_with(self) -> dict[str, str]:
        """Return the versions of packages and the names and hashes of weights."""
        folder = self._recognise.folder
        options = ", ".join(f"{key} {value}" for key, value in OPTIONS.items())
        return super().made_with() | {
            "asr": f"{folder.name} {file_hash(folder / 'model.bin')}",
            "asr options": options,
        }


@register
class CER(WER):
    """Character error rate by Whisper, for the languages in BY_CHARACTERS. Spaces do not count, and combining tone or
    accent marks are composed with their letters."""

    name, label = "cer", "CER %"

    def edits(self, text: str, transcript: str) -> Score:
        """Return the edits, and the characters of the text."""
        text, transcript = ("".join(unicodedata.normalize("NFC", line).split()) for line in (text, transcript))
        found = self._jiwer.process_characters(text, transcript)
        return found.substitutions + found.deletions + found.insertions, len(text)
