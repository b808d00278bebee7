"""Normalize text: one plain spelling without markup, English written out in words."""

# ruff: noqa: RUF001 (characters that look alike are intended)

from __future__ import annotations

import html
import re
import unicodedata

from vocable.lm import english
from vocable.lm.punctuation import MARKS

_PLAIN_FORMS = str.maketrans(
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
    """Return a text in one plain spelling.

    Markup is removed; apostrophes, hyphens, digit groups and punctuation get one form each; signs that are not spoken
    become spaces; English is written out in words. language: as in `read_text`, in lower case.
    """
    is_english = language.split("-")[0] == "en"
    if text.isupper() and len(text.split()) > 1:  # as in LibriSpeech: espeak-ng would spell IT out
        text = text.lower()
        text = re.sub(r"\bi\b", "I", text) if is_english else text
    text = _without_markup(text)
    text = re.sub(
        r"(?<=\d)[\u00a0\u202f](?=\d{3}(?!\d))", "", text
    )  # no-break spaces between digit groups, before NFKC makes them plain spaces
    text = _fold(text.translate(_PLAIN_FORMS))
    text = text.replace("−", " minus " if is_english else "-")
    if is_english:
        text = english.spell_out_dates(text, day_first=language != "en" and not language.startswith("en-us"))
    thousands = "," if language.split("-")[0] in _DECIMAL_POINT else r"\."
    text = re.sub(rf"(?<![\d.,])\d{{1,3}}(?:{thousands}\d{{3}})+(?!\d)", lambda m: re.sub(r"\D", "", m[0]), text)
    text = re.sub(r"(?<=\d)[-–—](?=\d)", " ", text)
    text = re.sub(r"(?<!\S)-(?!\S)|--+|[–—―]", ", ", text)  # other hyphens stay: espeak-ng reads ice-cream and -5
    text = re.sub(r"\.{2,}", ". ", text)
    text = re.sub(r"/(?!\d)|(?<!\d)/|#(?! ?\d)(?<!\b[A-G]#)", " ", text)  # 1/2, #5 and C# are spoken
    text = "".join(c if _is_kept(c) else "" if unicodedata.category(c) == "Cf" else " " for c in text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)  # quotation marks; an apostrophe is within a word
    amount = r"\d+(?:[.,]\d+)?(?: ?(?:hundred|thousand|[mb]illion|trillion|[KkMmBbTt]n?)\b)?"
    text = " ".join(re.sub(rf"(?<!\d)(?<!\d )([$£€¥₹]) ?({amount})", r" \2 \1 ", text).split())
    return english.spell_out(text) if is_english else text


def is_speakable(text: str) -> bool:
    """Return whether a text holds a letter or digit outside of markup."""
    return any(c.isalnum() for c in _without_markup(text))


_ENTITY = re.compile(r"&(?:[A-Za-z]{2,31}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
#: HTML tags and comments; not <5, nor an address in angle brackets.
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?>|<!--[^<>]*-->")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\s[^()\n]*)?\)")
_HEADING = re.compile(r"^[^\S\n]*#{1,6}\s+([^\n]*?)[#\s]*$", re.MULTILINE)
_LINE_START = re.compile(r"^[^\S\n]*(?:>[^\S\n]*)*(?:[-*+][^\S\n]+)?", re.MULTILINE)


def _without_markup(text: str) -> str:
    """Return a text without HTML and Markdown syntax, and without the scheme of addresses (https://)."""
    for _ in range(2):  # twice: a text that was escaped twice holds &amp;lt;
        text = _ENTITY.sub(lambda m: html.unescape(m[0]), text)
    text = _LINK.sub(r"\1", _TAG.sub(" ", text))
    text = re.sub(r"\bhttps?://(?:www\.)?", "", text)
    text = _HEADING.sub(lambda m: m[1] if m[1][-1:] in MARKS else f"{m[1]}.", text)
    text = re.sub(r"(?<=\d) ?\* ?(?=\d)", "×", re.sub(r"<([^\s<>]+)>", r" \1 ", _LINE_START.sub("", text)))
    # Of the remaining < and >, those between two operands are comparisons and stay; others are ornaments.
    return re.sub(r"[-=]+>|<[-=]+|[<>](?!\s?[\w(-])|(?<![\w)])(?<![\w)]\s)[<>]|[|~_*]", " ", text)


def _fold(text: str) -> str:
    """Return a text in NFKC, except for fractions and powers: NFKC would turn 10² into 102, and 1½ into 11/2."""
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


def _is_kept(c: str) -> bool:
    """Return whether a character is spoken or a mark: quotation marks, brackets, ornaments and emoji are not."""
    category = unicodedata.category(c)
    return category[0] in "LMN" or category == "Sc" or c in MARKS or c in "'-%&@#/°+=<>±×÷≥≤≠≈√∞⁻"
