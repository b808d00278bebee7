"""Pronunciations by hand: IPA as phones in the form of espeak-ng, and lexicon files."""

# ruff: noqa: RUF001 (characters that look alike are intended)

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from vocable.lm.nearest_phone import base_letters, has_sound, is_vowel

_STRESS = "ˈˌ"
#: Characters between phones; no phone reaches across one.
_BOUNDARIES = " .-_|‖‿"
#: Ways to type characters of IPA. Tie bars are dropped.
_TYPED = str.maketrans({"'": "ˈ", "’": "ˈ", ":": "ː", "\u0361": "", "\u035c": ""})


def read_ipa(ipa: str, symbols: Collection[str], language: str) -> list[str]:
    """Convert IPA to phones: the longest of `symbols` at each place, else one letter with its modifiers.

    IPA has the mark of stress before the syllable, espeak-ng before the vowel, so the mark is moved to the next vowel.
    In English, r is read as ɹ, as dictionaries write it. Raises ValueError for a character that is not of IPA, and for
    IPA without a phone.
    """
    text = unicodedata.normalize("NFC", ipa).translate(_TYPED)
    if language.lower().split("-")[0] == "en":
        text = text.replace("r", "ɹ")
    known = {symbol.translate({ord(c): "" for c in _STRESS}) for symbol in symbols} | {"əʊ"}  # British goat
    longest = max(map(len, known))
    phones: list[str] = []
    stress, i = "", 0
    while i < len(text):
        if text[i] in _STRESS:
            stress = text[i]
            i += 1
        elif text[i] in _BOUNDARIES:
            i += 1
        else:
            sizes = range(min(longest, len(text) - i), 0, -1)
            size = next((n for n in sizes if text[i : i + n] in known), 1)
            while i + size < len(text) and _is_modifier(text[i + size]):
                size += 1
            phone = text[i : i + size]
            if not base_letters(phone) or not has_sound(phone):
                raise ValueError(f"{text[i]!r} in /{ipa}/ is not a phone of IPA")
            if stress and is_vowel(phone):
                phone, stress = stress + phone, ""
            phones.append(phone)
            i += size
    if not phones:
        raise ValueError(f"/{ipa}/ holds no phone of IPA")
    return phones


def _is_modifier(c: str) -> bool:
    """Return whether a character belongs to the phone before it: length, diacritics, tones."""
    return c not in _STRESS and unicodedata.category(c) in ("Mn", "Lm", "Sk", "Nd", "No")


def read_lexicon(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a lexicon: on each line a word, a tab and its IPA. Empty lines are skipped.

    Raises ValueError that names the line for one that is not of this form and for a word that comes twice.
    """
    lexicon: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; save it as UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word, _, ipa = (part.strip() for part in line.partition("\t"))
        ipa = ipa[1:-1] if ipa[:1] == ipa[-1:] == "/" else ipa
        where = f"{path}, line {number}"
        if not word or len(word.split()) > 1 or not ipa:
            raise ValueError(f"{where}: write a word, a tab and its pronunciation in IPA, not {line.strip()!r}")
        if word in lexicon:
            raise ValueError(f"{where}: {word!r} is there twice; leave one out")
        try:
            read_ipa(ipa, (), "")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        lexicon[word] = ipa
    return lexicon
