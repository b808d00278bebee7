"""Front ends: text as a list of symbols, which a `SymbolTable` converts to ids.

phonemes     the phones of espeak-ng, with stress and length: ["h", "ə", "l", "ˈoʊ", ","]
characters   lower-case letters; needs no program under the GPL: ["h", "e", "l", "l", "o", ","]

Both keep the marks `. , ; : ! ?` as symbols, and neither keeps the boundaries between words.
"""

# ruff: noqa: RUF002 (characters that look alike are intended)

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from typing import Any

from vocable.extras import need
from vocable.lm.normalization import is_speakable, normalize
from vocable.lm.passage import PLACEHOLDER, Passage
from vocable.lm.punctuation import MARKS, split_marks

STAND_IN = "tick"  #: is read in place of a word with a pronunciation


def read_text(text: str, language: str, front_end: str) -> list[str]:
    """Convert a text to symbols.

    language: ISO 639-1 ("en"), also with a region ("sv-SE"). front_end: "phonemes" or "characters". Of consecutive
    marks only the strongest stays, and marks at the start are dropped. Raises ValueError for a text without a letter or
    digit, and for an unknown language or front end.
    """
    symbols = read_passage(Passage(text), language, front_end) if is_speakable(text) else []
    if not symbols:
        _check_front_end(front_end)
        raise ValueError(f"there is nothing to say in {text!r}: a text needs a letter or a digit")
    return symbols


def read_passage(passage: Passage, language: str, front_end: str) -> list[str]:
    """Convert a passage to symbols, as `read_text` does; words with pronunciations become their phones.

    The passage may be a part of a text that is not spoken alone, such as a sign; the list may be empty. Raises
    ValueError too for a pronunciation within markup.
    """
    _check_front_end(front_end)
    language = language.lower()
    words = iter(passage.pronounced)
    # A letter before the placeholder, in the case of the word: rules for short forms look at the word after them.
    initials = iter("X" if word.word[0].isupper() else "x" for word in passage.pronounced)
    prepared = normalize(re.sub(PLACEHOLDER, lambda m: next(initials) + m[0], passage.marked), language)
    if prepared.count(PLACEHOLDER) < len(passage.pronounced):
        raise ValueError("a pronunciation is within markup that is not spoken: move it out")
    symbols: list[str] = []
    for piece, mark in split_marks(prepared):
        *before, last = re.split(f"[Xx]{PLACEHOLDER}", piece)
        for part in before:
            symbols += _read_before_word(part, language, front_end)
            symbols += next(words).phones
        symbols += _read_part(last, language, front_end)
        if mark and symbols and symbols[-1] in MARKS:
            symbols[-1] = max(symbols[-1], mark, key=MARKS.index)
        elif mark and symbols:
            symbols.append(mark)
    return symbols


def _read_part(part: str, language: str, front_end: str) -> list[str]:
    """Return the symbols of a normalized text without marks."""
    return FRONT_ENDS[front_end](part, language) if any(map(str.isalnum, part)) else []


def _read_before_word(part: str, language: str, front_end: str) -> list[str]:
    """Return the symbols of a normalized text before a word with a pronunciation.

    The text is read with another word after it, whose symbols are removed: before a word, espeak-ng reads "a" as the
    article, at the end as a letter.
    """
    word = _read_part(STAND_IN, language, front_end)
    symbols = _read_part(f"{part} {STAND_IN}", language, front_end)
    return symbols[: -len(word)] if symbols[-len(word) :] == word else _read_part(part, language, front_end)


def _check_front_end(front_end: str) -> None:
    if front_end not in FRONT_ENDS:
        raise ValueError(f"the front end must be one of {', '.join(FRONT_ENDS)}, not {front_end!r}")


#: espeak-ng and num2words keep state in globals, so only one thread at a time may use them.
_ONE_THREAD = threading.Lock()

#: Languages that have another name in espeak-ng.
_VOICES = {"en": "en-us", "fr": "fr-fr", "no": "nb", "pt": "pt-br", "zh": "cmn", "zh-hk": "yue"}
_SOME_LANGUAGES = "en, de, es, fr, is, it, pt, ru and other ISO 639-1 codes"

#: Scripts by name: their letters, and the languages in which espeak-ng reads them. In other languages it would read
#: the name of each letter.
_SCRIPTS = {
    "Cyrillic": ("\u0400-\u052f", "ba be bg cv kk ky mk nog ru sr tt uk"),
    "Hebrew": ("\u0590-\u05ff", "he"),
    "Arabic": ("\u0600-\u06ff", "ar fa sd ug ur"),
    "Thai": ("\u0e00-\u0e7f", "th"),
    "Japanese": ("\u3040-\u30ff", "ja"),
    "Chinese": ("\u3005\u3400-\u9fff\uf900-\ufaff", "cmn hak yue"),
}
_FOREIGN = re.compile("|".join(f"(?P<{name}>[{letters}])" for name, (letters, _) in _SCRIPTS.items()))


def _phonemes(piece: str, language: str) -> list[str]:
    """Return the phones of a text without marks, each with its stress and length."""
    with _ONE_THREAD:
        phones = _espeak().read(piece, language)
    phones = re.sub(r"\([\w-]+\)", " ", phones)  # espeak-ng writes (en) where it changes the language
    return re.sub(r"[_\s]+", " ", phones).split()


class _Espeak:
    """The espeak-ng library, which has one voice (a language) at a time."""

    def __init__(self) -> None:
        loader, wrapper = need("espeakng_loader", "tts"), need("phonemizer.backend.espeak.wrapper", "tts").EspeakWrapper
        own: Any = type("Espeak", (wrapper,), {})  # other users of phonemizer in this process keep their library
        own.set_library(loader.get_library_path())
        own.set_data_path(loader.get_data_path())
        self.library: Any = own()
        self.voices = {voice.language for voice in self.library.available_voices()}
        self.voice = ""

    def read(self, text: str, language: str) -> str:
        """Return the phones of a text as espeak-ng writes them. Raises ValueError for what it cannot read."""
        codes = [_VOICES.get(code, code) for code in (language, language.split("-")[0])]
        voice = next((code for code in codes if code in self.voices), None)
        if voice is None:
            raise ValueError(f"espeak-ng does not know the language {language!r}; it knows {_SOME_LANGUAGES}")
        for found in _FOREIGN.finditer(text):
            name = found.lastgroup or ""
            if voice.split("-")[0] not in _SCRIPTS[name][1].split():
                raise ValueError(
                    f"espeak-ng cannot read the {name} characters of {text!r} in {language!r}: spell them out"
                )
        if voice != self.voice:
            self.voice = ""  # in case setting the new one fails
            self.library.set_voice(voice)
            self.voice = voice
        phones: str = self.library.text_to_phonemes(text)
        return phones


@functools.cache
def _espeak() -> _Espeak:
    """Return the one copy of the library: phonemizer never frees a copy, so all languages share one."""
    return _Espeak()


_NUMBER = re.compile(r"((?:(?<!\w)-)?\d+)(?:[.,](\d+))?((?:st|nd|rd|th)\b|[ºª])?")


def _characters(piece: str, language: str) -> list[str]:
    """Return the letters and apostrophes of a text without marks. Numbers are spelled out, other signs dropped."""
    num2words, language = need("num2words", "tts"), language.split("-")[0]
    if language not in num2words.CONVERTER_CLASSES:
        raise ValueError(f"num2words does not know the language {language!r}; it knows {_SOME_LANGUAGES}")

    def spell(number: re.Match[str]) -> str:
        whole, decimals, ordinal = number.groups()
        try:
            value = float(f"{whole}.{decimals}") if decimals else int(whole)
            words: str = num2words.num2words(value, lang=language, to="ordinal" if ordinal else "cardinal")
        except Exception as error:  # languages that it supports in part raise errors of many types
            raise ValueError(f"num2words cannot spell out {number[0]} in {language!r}: write it in words") from error
        return words

    piece = re.sub(r"(\d*) ?([¼-¾⅐-⅞])", _decimal, piece)
    piece = re.sub("[²³¹⁰⁴-⁹]", lambda m: f" {unicodedata.digit(m[0])}", piece)
    with _ONE_THREAD:
        spelled = _NUMBER.sub(spell, piece).lower()
    return [c for c in spelled if c == "'" or unicodedata.category(c)[0] in "LM"]


def _decimal(found: re.Match[str]) -> str:
    """Write 1½ as 1.5."""
    return f"{round(int(found[1] or 0) + unicodedata.numeric(found[2]), 2)}"


FRONT_ENDS = {
    "phonemes": _phonemes,
    "characters": _characters,
}  #: by name: functions of (text without marks, language) -> symbols
