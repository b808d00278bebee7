"""Split text at its punctuation: into the pieces between marks, and into sentences."""

# ruff: noqa: RUF001 (characters that look alike are intended)

from __future__ import annotations

import re
from collections.abc import Iterator

from vocable.lm import english

MARKS = ",;:.!?"  #: the punctuation marks that are symbols of the language models, the weakest first

#: Short forms and ordinals (17. júní) whose period ends no sentence.
_ABBREVIATED = rf"(?<![\w.])(?:{english.ABBREVIATED})|(?<!\w)\d+\.(?=\s+[a-zß-ÿ])"
#: Marks. A comma or colon between digits belongs to a number or a time, a period before a letter to a name
#: (example.com).
_MARK = re.compile(rf"{_ABBREVIATED}|(?P<mark>[;!?]|[,:](?!\d)|(?<!\d)[,:]|\.(?!\w))")

_CLOSING = "[\"'”’»›)\\]}」』）]*"
#: The end of a sentence with any isolated signs after it (a dash, a row of stars), or an empty line.
_SENTENCE_END = re.compile(
    rf"{_ABBREVIATED}|"
    rf"(?P<end>(?:[.!?…]{{1,20}}{_CLOSING}(?!\S)|[。！？｡།॥۔؟]+{_CLOSING})(?:\s+[^\w\s]+(?!\S))*|\n\s*\n)"
)
_CLAUSE_END = re.compile(rf"[,;:]{_CLOSING}(?=\s)|[，；：、،؛]{_CLOSING}")
_WORD_END = re.compile(r"(?=\s)")


def split_marks(text: str) -> Iterator[tuple[str, str]]:
    """Split a normalized text at its marks; yields (piece, the mark after it). The last piece has the mark ""."""
    start = 0
    for found in _MARK.finditer(text):
        if found["mark"]:
            yield text[start : found.start()], found["mark"]
            start = found.end()
    yield text[start:], ""


def split_sentences(text: str, longest: int) -> list[str]:
    """Split a text into sentences of at most `longest` characters.

    A longer sentence is split after its last comma, semicolon or colon that fits, else at its last space that fits,
    else within a word. The pieces hold the whole text, without white space at their ends. Raises ValueError if
    `longest` is below 1.
    """
    if longest < 1:
        raise ValueError(f"longest is {longest}: a sentence needs room for at least 1 character")
    ends = [found.end() for found in _SENTENCE_END.finditer(text) if found["end"]]
    pieces = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        rest = text[start:end].strip()
        while len(rest) > longest:
            cut = _last_boundary(rest, longest)
            pieces.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        pieces.append(rest)
    return [piece for piece in pieces if piece]


def _last_boundary(text: str, longest: int) -> int:
    """Return the end of the last clause within the first `longest` characters, else of the last word, else
    `longest`."""
    for boundary in (_CLAUSE_END, _WORD_END):
        ends = [found.end() for found in boundary.finditer(text[: longest + 1]) if found.end() <= longest]
        if ends:
            return ends[-1]
    return longest
