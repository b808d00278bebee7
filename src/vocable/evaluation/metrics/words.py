"""Word and character error rates: what a recogniser hears in decoded speech, against the text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vocable.evaluation.metrics.base import Metric, Models, NoAnswer, Pair, Score, file_hash, language_code
from vocable.extras import need

#: Without the fallback to higher temperatures, which samples and so differs from run to run. On speech that is hard to
#: make out, Whisper may say the same words to the end of its window: no four of its tokens come twice.
OPTIONS: dict[str, Any] = {
    "beam_size": 5,
    "temperature": 0.0,
    "condition_on_previous_text": False,
    "without_timestamps": True,
    "no_repeat_ngram_size": 4,
}
#: Languages that Whisper base is held to by characters: words are not written apart, or have too many forms for it.
BY_CHARACTERS = ("is", "zh")


@dataclass(frozen=True)
class TimedWord:
    """A word that was heard, and when, in seconds."""

    text: str
    start: float
    end: float


class Recogniser:
    """Whisper through faster-whisper, in float32, on one thread."""

    def __init__(self, models: Models) -> None:
        whisper = need("faster_whisper", "eval")
        folder = next((f for f in candidates(models) if (f / "model.bin").is_file()), None)
        try:
            self.folder = folder or Path(whisper.download_model(models.asr))
        except (OSError, ValueError) as error:  # all of huggingface_hub's errors, and an unknown size, are of these
            known = " or ".join(map(str, candidates(models)))
            raise ValueError(f"Whisper {models.asr!r}: neither in {known}, nor to be had from the hub") from error
        self._model = whisper.WhisperModel(str(self.folder), device="cpu", compute_type="float32", cpu_threads=1)
        self._last: tuple[bytes, str] = (b"", "")

    def __call__(self, waveform: np.ndarray, language: str | None) -> str:
        """What it hears. The last answer is kept: word and character error rates ask for the same.

        Raises NoAnswer for a language that the model does not know.
        """
        language = self.code_of(language)
        key = waveform.tobytes() + (language or "").encode()
        if key != self._last[0]:
            segments, _ = self._model.transcribe(waveform, language=language, **OPTIONS)
            self._last = key, " ".join(segment.text for segment in segments)
        return self._last[1]

    def timed_words(self, waveform: np.ndarray, language: str | None) -> list[TimedWord]:
        """What it hears, word by word. Raises NoAnswer for a language that the model does not know."""
        options = OPTIONS | {"without_timestamps": False, "word_timestamps": True}
        segments, _ = self._model.transcribe(waveform, language=self.code_of(language), **options)
        return [TimedWord(w.word.strip(), float(w.start), float(w.end)) for s in segments for w in s.words]

    def code_of(self, language: str | None) -> str | None:
        """The model's code for a language, "en" for "en-US"; None for None, which leaves the choice to the model.

        Raises NoAnswer for a language that the model does not know.
        """
        code = None if language is None else language_code(language)
        if code is not None and code not in self._model.supported_languages:
            raise NoAnswer(f"{self.folder.name} does not know the language {code!r}")
        return code


def candidates(models: Models) -> tuple[Path, Path]:
    """Where a recogniser may lie on disk."""
    return Path(models.asr), models.folder / "asr" / f"whisper-{models.asr}"


@lru_cache(maxsize=1)
def recogniser(models: Models) -> Recogniser:
    """One for all metrics of a process."""
    return Recogniser(models)


def has_normalizer(language: str | None) -> bool:
    """Whether numbers and spellings of a language are made alike before words are compared: of English alone."""
    return language is not None and language_code(language) == "en"


def normalizer(language: str | None) -> Callable[[str], str]:
    """Whisper's own normalizers: English spelling and numbers for English, letters and digits alone for the rest."""
    return _normalizer(has_normalizer(language))


@cache
def _normalizer(english: bool) -> Callable[[str], str]:
    module = need(f"whisper_normalizer.{'english' if english else 'basic'}", "eval")
    made: Callable[[str], str] = module.EnglishTextNormalizer() if english else module.BasicTextNormalizer()
    return made


class WER(Metric):
    """Word error rate by Whisper, texts normalised as Whisper's authors do."""

    name, label, better, bounds, scale, digits = "wer", "WER %", "lower", (0.0, np.inf), 100.0, 1
    packages = ("faster-whisper", "ctranslate2", "jiwer", "whisper-normalizer")
    licence = "MIT"
    citation = "Radford et al., arXiv 2212.04356"
    needs_text = True

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        need("whisper_normalizer", "eval")
        self._hear, self._jiwer = recogniser(models), need("jiwer", "eval")

    def __call__(self, pair: Pair) -> Score:
        language = self._hear.code_of(pair.language)
        if pair.text is None:
            raise NoAnswer("no text")
        normalize = normalizer(language)
        said = normalize(pair.text).strip()
        if not said:
            raise NoAnswer("no word is left of the text once it is normalised")
        return self.edits(said, normalize(self._hear(pair.decoded, language)).strip())

    def edits(self, said: str, heard: str) -> Score:
        """Edits, and units of the text."""
        found = self._jiwer.process_words(said, heard)
        return found.substitutions + found.deletions + found.insertions, len(said.split())

    def made_with(self) -> dict[str, str]:
        folder = self._hear.folder
        options = ", ".join(f"{key} {value}" for key, value in OPTIONS.items())
        return super().made_with() | {
            "asr": f"{folder.name} {file_hash(folder / 'model.bin')}",
            "asr options": options,
        }


class CER(WER):
    """Character error rate by Whisper: for languages whose words the recogniser cannot be held to. Spaces and tone or
    accent marks that combine count for nothing."""

    name, label = "cer", "CER %"

    def edits(self, said: str, heard: str) -> Score:
        said, heard = ("".join(unicodedata.normalize("NFC", text).split()) for text in (said, heard))
        found = self._jiwer.process_characters(said, heard)
        return found.substitutions + found.deletions + found.insertions, len(said)
