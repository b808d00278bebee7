"""Text in one plain spelling, and long texts in sentences."""

# ruff: noqa: RUF001 (characters that look like others are the matter here)

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

from vocable.lm import english

MARKS = ",;:.!?"  #: the punctuation that is kept, the weakest first

#: What ends in a period that ends no sentence: short forms, and ordinals before a small letter (17. júní).
_SHORTENED = rf"(?<![\w.])(?:{english.SHORTENED})|(?<!\w)\d+\.(?=\s+[a-zß-ÿ])"
#: , and : between digits belong to a number or a time, a period before a letter to a name (example.com).
_MARK = re.compile(rf"{_SHORTENED}|(?P<mark>[;!?]|[,:](?!\d)|(?<!\d)[,:]|\.(?!\w))")

_ONE_FOR_MANY = str.maketrans(
    dict.fromkeys("‘’‚‛ʼ´`", "'")
    | dict.fromkeys("‐‑", "-")
    | dict.fromkeys("。｡।॥۔։።", ". ")
    | dict.fromkeys("、،", ", ")
    | dict.fromkeys("™℠", "")
    | {"؛": "; ", "؟": "? ", "№": "#"}
)
#: Languages that write 1,000.5; the others write 1.000,5.
_DECIMAL_POINT = {"bn", "cy", "en", "ga", "he", "hi", "ja", "ko", "ml", "mr", "ms", "mt", "ta", "te", "th", "ur", "zh"}


def normalize(text: str, language: str) -> str:
    """The text without markup, in one spelling: plain apostrophes, hyphens and numbers, no marks but MARKS, and signs
    that are said; English written out in words. language: as in `read_text`, in lower case."""
    is_english = language.split("-")[0] == "en"
    if text.isupper() and len(text.split()) > 1:  # as in LibriSpeech, where espeak would say "I.T." for IT
        text = text.lower()
        text = re.sub(r"\bi\b", "I", text) if is_english else text
    text = _without_markup(text)
    text = re.sub(r"(?<=\d)[\u00a0\u202f](?=\d{3}(?!\d))", "", text)  # spaces that join: NFKC makes them plain ones
    text = _fold(text.translate(_ONE_FOR_MANY))
    text = text.replace("−", " minus " if is_english else "-")
    if is_english:
        text = english.read_dates(text, day_first=language != "en" and not language.startswith("en-us"))
    thousands = "," if language.split("-")[0] in _DECIMAL_POINT else r"\."
    text = re.sub(rf"(?<![\d.,])\d{{1,3}}(?:{thousands}\d{{3}})+(?!\d)", lambda m: re.sub(r"\D", "", m[0]), text)
    text = re.sub(r"(?<=\d)[-–—](?=\d)", " ", text)
    text = re.sub(r"(?<!\S)-(?!\S)|--+|[–—―]", ", ", text)  # other hyphens stay: espeak knows ice-cream and -5
    text = re.sub(r"\.{2,}", ". ", text)
    text = re.sub(r"/(?!\d)|(?<!\d)/|#(?! ?\d)(?<!\b[A-G]#)", " ", text)  # 1/2, #5 and C# say something
    text = "".join(c if _is_said(c) else "" if unicodedata.category(c) == "Cf" else " " for c in text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)  # a quotation mark: an apostrophe stands within a word
    amount = r"\d+(?:[.,]\d+)?(?: ?(?:hundred|thousand|[mb]illion|trillion|[KkMmBbTt]n?)\b)?"
    text = " ".join(re.sub(rf"(?<!\d)(?<!\d )([$£€¥₹]) ?({amount})", r" \2 \1 ", text).split())
    return english.in_words(text) if is_english else text


def says_something(text: str) -> bool:
    """Whether a text holds a letter or digit that is not markup."""
    return any(c.isalnum() for c in _without_markup(text))


_ENTITY = re.compile(r"&(?:[A-Za-z]{2,31}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
#: Not <5, nor an address in angle brackets.
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?>|<!--[^<>]*-->")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\s[^()\n]*)?\)")
_HEADING = re.compile(r"^[^\S\n]*#{1,6}\s+([^\n]*?)[#\s]*$", re.MULTILINE)
_LINE_START = re.compile(r"^[^\S\n]*(?:>[^\S\n]*)*(?:[-*+][^\S\n]+)?", re.MULTILINE)


def _without_markup(text: str) -> str:
    """Text without the marks of HTML and Markdown, and without what stands before an address (https://)."""
    for _ in range(2):  # &amp;lt; is met where a text was escaped twice
        text = _ENTITY.sub(lambda m: html.unescape(m[0]), text)
    text = _LINK.sub(r"\1", _TAG.sub(" ", text))
    text = re.sub(r"\bhttps?://(?:www\.)?", "", text)
    text = _HEADING.sub(lambda m: m[1] if m[1][-1:] in MARKS else f"{m[1]}.", text)
    text = re.sub(r"(?<=\d) ?\* ?(?=\d)", "×", re.sub(r"<([^\s<>]+)>", r" \1 ", _LINE_START.sub("", text)))
    # What is left of < and > compares two things, or else is an ornament as the others are.
    return re.sub(r"[-=]+>|<[-=]+|[<>](?!\s?[\w(-])|(?<![\w)])(?<![\w)]\s)[<>]|[|~_*]", " ", text)


def _fold(text: str) -> str:
    """NFKC, but that fractions and powers stay what they are: 10² is not 102, nor 1½ cups 11 halves."""
    folded = []
    for c in unicodedata.normalize("NFC", text):
        kind = unicodedata.decomposition(c).split(" ")[0]
        if (kind in ("<fraction>", "<super>") and not c.isalpha()) or c in "ªº":
            folded.append(f" {c}" if kind == "<fraction>" else c)
        elif kind == "<sub>" and folded and folded[-1][-1:].isdigit():
            folded.append(f" {unicodedata.normalize('NFKC', c)}")
        else:
            folded.append(unicodedata.normalize("NFKC", c))
    return unicodedata.normalize("NFC", "".join(folded))


def _is_said(c: str) -> bool:
    """Whether a character is more than a quotation mark, a bracket, an ornament or an emoji."""
    category = unicodedata.category(c)
    return category[0] in "LMN" or category == "Sc" or c in MARKS or c in "'-%&@#/°+=<>±×÷≥≤≠≈√∞⁻"


def split_marks(text: str) -> Iterator[tuple[str, str]]:
    """What stands before each mark of a normalized text, and the mark; at last what is left, and no mark."""
    start = 0
    for found in _MARK.finditer(text):
        if found["mark"]:
            yield text[start : found.start()], found["mark"]
            start = found.end()
    yield text[start:], ""


# ---- long texts ------------------------------------------------------------------------------------------------------

_CLOSING = "[\"'”’»›)\\]}」』）]*"
#: The end of a sentence and what stands alone behind it (a dash, a row of stars), or an empty line.
_SENTENCE_END = re.compile(
    rf"{_SHORTENED}|"
    rf"(?P<end>(?:[.!?…]{{1,20}}{_CLOSING}(?!\S)|[。！？｡।॥۔؟]+{_CLOSING})(?:\s+[^\w\s]+(?!\S))*|\n\s*\n)"
)
_CLAUSE_END = re.compile(rf"[,;:]{_CLOSING}(?=\s)|[，；：、،؛]{_CLOSING}")
_WORD_END = re.compile(r"(?=\s)")


def split_sentences(text: str, longest: int) -> list[str]:
    """A text in sentences of at most `longest` characters.

    Longer ones are split after , ; : or else between words, as late as they can be, or within a word that is longer.
    The pieces hold all of the text but white space at their ends.
    """
    if longest < 1:
        raise ValueError(f"a piece of text has at least 1 character, not {longest}")
    ends = [found.end() for found in _SENTENCE_END.finditer(text) if found["end"]]
    pieces = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        rest = text[start:end].strip()
        while len(rest) > longest:
            cut = _last_end(rest, longest)
            pieces.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        pieces.append(rest)
    return [piece for piece in pieces if piece]


def _last_end(text: str, longest: int) -> int:
    """Where the last clause ends within `longest` characters, or else the last word."""
    for boundary in (_CLAUSE_END, _WORD_END):
        ends = [found.end() for found in boundary.finditer(text[: longest + 1]) if found.end() <= longest]
        if ends:
            return ends[-1]
    return longest
