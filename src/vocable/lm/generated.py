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


def with_pauses(sentences: Iterable[GeneratedSpeech]) -> Iterator[Tensor]:
    """Yield the waveforms of sentences, with silence between them."""
    for silence, sentence in _with_silences(sentences):
        if silence:
            yield torch.zeros(silence)
        yield sentence.waveform


def with_starts(sentences: Iterable[GeneratedSpeech]) -> Iterator[tuple[float, GeneratedSpeech]]:
    """Yield the second at which each sentence starts in the speech that `with_pauses` makes, and the sentence."""
    samples = 0
    for silence, sentence in _with_silences(sentences):
        samples += silence
        yield samples / sentence.sample_rate, sentence
        samples += len(sentence.waveform)


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


def _with_silences(sentences: Iterable[GeneratedSpeech]) -> Iterator[tuple[int, GeneratedSpeech]]:
    """Yield the samples of silence before each sentence, none beside a pause, and the sentence."""
    after_pause = True  # no silence at the start
    for sentence in sentences:
        silence = 0 if after_pause or sentence.is_pause else round(BETWEEN_SENTENCES * sentence.sample_rate)
        yield silence, sentence
        after_pause = sentence.is_pause
