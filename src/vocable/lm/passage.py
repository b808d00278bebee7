"""Texts with instructions for speaking: `[pause 0.7s]`, and `[word](/wɜːd/)` for a pronunciation in IPA."""

# ruff: noqa: RUF001, RUF002 (characters that look alike are intended)

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vocable.lm.normalization import is_speakable
from vocable.lm.punctuation import split_sentences

LONGEST_PAUSE = 10.0  #: seconds
#: Takes the place of a word with a pronunciation: a letter of no living script (an Egyptian hieroglyph), so that rules
#: for sentences and short forms see a word, and one character, so that it is never divided.
PLACEHOLDER = "\U00013000"

_PAUSE = re.compile(r"\[pause\b([^\[\]\n]*)\]", re.IGNORECASE)
_SECONDS = re.compile(r"\s+(\d{1,3}(?:\.\d{1,6})?) ?s\s*")
_PRONUNCIATION = re.compile(r"\[([^\[\]\n]*)\]\(/([^/\n]*)/\)")
#: A word that a lexicon may hold: letters and digits, with apostrophes, hyphens and periods inside.
_WORD = re.compile(r"[^\W_](?:[\w'’.-]*[^\W_])?")


@dataclass(frozen=True)
class Pause:
    """Silence between two passages."""

    seconds: float


@dataclass(frozen=True)
class Pronounced:
    """A written word, and the phones to speak for it."""

    word: str
    phones: list[str]


@dataclass(frozen=True)
class Passage:
    """A text without pauses. Each PLACEHOLDER in `marked` is the next word of `pronounced`."""

    marked: str
    pronounced: tuple[Pronounced, ...] = ()

    @property
    def text(self) -> str:
        """The text as it is written, without its pronunciations."""
        words = iter(self.pronounced)
        return "".join(next(words).word if c == PLACEHOLDER else c for c in self.marked)

    def sentences(self, longest: int) -> list[Passage]:
        """Split the passage into sentences, as `split_sentences` does. Those without letters or digits are left out."""
        return [piece for piece in self._divide(split_sentences(self.marked, longest)) if is_speakable(piece.marked)]

    def words(self) -> list[Passage]:
        """Split the passage at its white space."""
        return self._divide(self.marked.split())

    def _divide(self, pieces: list[str]) -> list[Passage]:
        """Give each of the pieces, which hold the whole text in order, its pronunciations."""
        words = iter(self.pronounced)
        return [Passage(piece, tuple(next(words) for c in piece if c == PLACEHOLDER)) for piece in pieces]


def parse(
    text: str, phones_of: Callable[[str], list[str]], lexicon: Mapping[str, str] | None = None
) -> list[Passage | Pause]:
    """Split a text at its pauses and find the words with pronunciations.

    phones_of: converts IPA to phones; raises ValueError for what it cannot convert. lexicon: IPA by word; upper and
    lower case are the same, and pronunciations in the text have precedence. Raises ValueError for a pause that is not 0
    to LONGEST_PAUSE seconds long, and for a pronunciation without a word.
    """
    text = text.replace(PLACEHOLDER, " ")
    parts: list[Passage | Pause] = []
    start = 0
    known = {_key(word): ipa for word, ipa in (lexicon or {}).items()}
    for found in _PAUSE.finditer(text):
        parts += [_passage(text[start : found.start()], phones_of, known), _pause(found)]
        start = found.end()
    return [*parts, _passage(text[start:], phones_of, known)]


def _pause(found: re.Match[str]) -> Pause:
    seconds = _SECONDS.fullmatch(found[1])
    if not seconds or float(seconds[1]) > LONGEST_PAUSE:
        raise ValueError(f"{found[0]}: write a pause of 0 to {LONGEST_PAUSE:g} seconds as [pause 0.7s]")
    return Pause(float(seconds[1]))


def _passage(text: str, phones_of: Callable[[str], list[str]], known: Mapping[str, str]) -> Passage:
    """Replace the words that have pronunciations by placeholders."""
    pronounced: list[Pronounced] = []

    def replace(word: str, ipa: str) -> str:
        try:
            pronounced.append(Pronounced(word, phones_of(ipa)))
        except ValueError as error:
            raise ValueError(f"the pronunciation of {word!r}: {error}") from error
        return PLACEHOLDER

    def plain(part: str) -> str:
        return _WORD.sub(lambda m: replace(m[0], known[_key(m[0])]) if _key(m[0]) in known else m[0], part)

    marked, start = "", 0
    for found in _PRONUNCIATION.finditer(text):
        if not is_speakable(found[1]):
            raise ValueError(f"{found[0]}: write the word before its pronunciation, as in [word](/wɜːd/)")
        marked += plain(text[start : found.start()]) + replace(found[1].strip(), found[2])
        start = found.end()
    marked += plain(text[start:])
    return Passage(marked, tuple(pronounced))


def _key(word: str) -> str:
    return word.replace("’", "'").casefold()
