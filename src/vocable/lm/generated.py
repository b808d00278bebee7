"""Speech of a text: its waveform, its codes, and when each word is spoken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

BETWEEN_SENTENCES = 0.15  #: seconds of silence between two sentences


@dataclass(frozen=True)
class Word:
    """A word as it is written in the text, and when it is spoken."""

    text: str  #: with its punctuation
    start: float  #: seconds
    end: float  #: seconds


@dataclass(frozen=True)
class Symbol:
    """A symbol that the models speak, such as a phone, and when it is spoken."""

    text: str
    start: float  #: seconds
    end: float  #: seconds


@dataclass(frozen=True, eq=False)
class GeneratedSpeech:
    """A text as speech; or, without frames, a pause that the text asks for."""

    text: str
    waveform: Tensor  #: float32 [L], on the CPU
    sample_rate: int  #: Hz
    codes: Tensor  #: int64 [K, T], on the CPU
    warnings: list[str]  #: problems found in decoding, such as a symbol that was held for too long
    #: In order, from the start of `waveform`; None if the models cannot time them. Signs that are not spoken, such as a
    #: dash, are not among them.
    words: tuple[Word, ...] | None = None
    symbols: tuple[Symbol, ...] | None = None  #: as `words`; punctuation marks are among them, pauses are not

    @property
    def is_pause(self) -> bool:
        """Whether this is a pause."""
        return self.codes.shape[1] == 0


Part = TypeVar("Part", Word, Symbol)


def later(parts: Iterable[Part], seconds: float) -> list[Part]:
    """Return words or symbols with `seconds` added to their times."""
    return [replace(part, start=part.start + seconds, end=part.end + seconds) for part in parts]


class Timeline:
    """The sentences of a text one after another, with silence between two sentences, but none beside a pause."""

    def __init__(self) -> None:
        self.samples = 0  #: of all sentences and silences so far
        self._after_pause = True  #: no silence at the start

    def add(self, sentence: GeneratedSpeech) -> int:
        """Add a sentence; return the number of samples of silence before it."""
        silent = self._after_pause or sentence.is_pause
        silence = 0 if silent else round(BETWEEN_SENTENCES * sentence.sample_rate)
        self.samples += silence + len(sentence.waveform)
        self._after_pause = sentence.is_pause
        return silence


def with_pauses(sentences: Iterable[GeneratedSpeech]) -> Iterator[Tensor]:
    """Yield the waveforms of sentences, with silence between them."""
    timeline = Timeline()
    for sentence in sentences:
        if silence := timeline.add(sentence):
            yield torch.zeros(silence)
        yield sentence.waveform


def with_starts(sentences: Iterable[GeneratedSpeech]) -> Iterator[tuple[float, GeneratedSpeech]]:
    """Yield the second at which each sentence starts in the speech that `with_pauses` makes, and the sentence."""
    timeline = Timeline()
    for sentence in sentences:
        start = timeline.samples + timeline.add(sentence)
        yield start / sentence.sample_rate, sentence


def join(text: str, sentences: Sequence[GeneratedSpeech]) -> GeneratedSpeech:
    """Join the sentences of a text, with silence between them."""
    words: list[Word] = []
    symbols: list[Symbol] = []
    for start, sentence in with_starts(sentences):
        words += later(sentence.words or (), start)
        symbols += later(sentence.symbols or (), start)
    timed = all(sentence.words is not None for sentence in sentences)
    return GeneratedSpeech(
        text=text,
        waveform=torch.cat(list(with_pauses(sentences))),
        sample_rate=sentences[0].sample_rate,
        codes=torch.cat([sentence.codes for sentence in sentences], 1),
        warnings=[warning for sentence in sentences for warning in sentence.warnings],
        words=tuple(words) if timed else None,
        symbols=tuple(symbols) if timed else None,
    )
