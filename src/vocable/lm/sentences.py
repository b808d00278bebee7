"""Read a text: its sentences as symbols, and the pauses between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vocable.lm.model import LanguageModels
from vocable.lm.passage import Passage, Pause, parse

QUOTED = 60  #: characters of a sentence that an error message quotes


@dataclass(frozen=True)
class Sentence:
    """One sentence of a text, and the ids of its symbols."""

    passage: Passage
    symbols: list[int]


def read_sentences(
    models: LanguageModels,
    text: str,
    *,
    language: str | None = None,
    longest: int,
    lexicon: Mapping[str, str] | None = None,
) -> list[Sentence | Pause]:
    """Split a text into sentences of at most `longest` characters and pauses, and read the sentences.

    Other arguments are those of `USLM.generate`. Raises ValueError for a text that cannot be spoken.
    """
    parts = parse(text, partial(models.phones_of, language=language), lexicon)
    found: list[Sentence | Pause] = []
    for part in parts:
        found += [part] if isinstance(part, Pause) else _read(models, part.sentences(longest), language)
    if not any(isinstance(part, Sentence) for part in found):
        # Reading it raises the error of a text that says nothing.
        found += _read(models, [part for part in parts if isinstance(part, Passage)][:1], language)
    return found


def _read(models: LanguageModels, pieces: Sequence[Passage], language: str | None) -> list[Sentence]:
    sentences = []
    for piece in pieces:
        try:
            sentences.append(Sentence(piece, models.passage_symbols(piece, language)))
        except ValueError as error:
            raise ValueError(f"{piece.text[:QUOTED]!r}: {error}") from error
    return sentences
