"""Text as the language models read it: a list of symbols, which a table turns into ids.

Two front ends make symbols of text:

phonemes     the phones of espeak-ng, stress and length included: ["h", "ə", "l", "ˈoʊ", ","]
characters   letters in lower case, and no program under the GPL: ["h", "e", "l", "l", "o", ","]

Both keep the marks `. , ; : ! ?` as symbols of their own, and neither keeps the boundaries between words.
"""

# ruff: noqa: RUF002 (characters that look like others are the matter here)

from __future__ import annotations

import functools
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from vocable.extras import need
from vocable.lm.nearest import nearest, plain
from vocable.lm.normalization import MARKS, normalize, says_something, split_marks


def read_text(text: str, language: str, front_end: str) -> list[str]:
    """The symbols of a text.

    language: as manifests have it, ISO 639-1 ("en") or with a region ("sv-SE"). front_end: "phonemes" or "characters".
    Of marks that follow one another the strongest stays; none comes first. Raises ValueError for a text without a
    letter or digit, and for a language or front end that is not known.
    """
    if front_end not in FRONT_ENDS:
        raise ValueError(f"the front end is one of {', '.join(FRONT_ENDS)}, not {front_end!r}")
    language = language.lower()
    prepared = normalize(text, language) if says_something(text) else ""
    symbols: list[str] = []
    for piece, mark in split_marks(prepared):
        symbols += FRONT_ENDS[front_end](piece, language) if any(map(str.isalnum, piece)) else []
        if mark and symbols and symbols[-1] in MARKS:
            symbols[-1] = max(symbols[-1], mark, key=MARKS.index)
        elif mark and symbols:
            symbols.append(mark)
    if not symbols:
        raise ValueError(f"nothing to say in {text!r}: a text needs a letter or a digit")
    return symbols


# ---- the front ends --------------------------------------------------------------------------------------------------

#: espeak-ng and the converters of num2words keep what they are at in globals: one thread at a time may use them.
_ONE_THREAD = threading.Lock()

#: Where espeak-ng has another name for a language.
_VOICES = {"en": "en-us", "fr": "fr-fr", "no": "nb", "pt": "pt-br", "zh": "cmn", "zh-hk": "yue"}
_SOME_LANGUAGES = "en, de, es, fr, is, it, pt, ru and others by their ISO 639-1 code"

#: Letters that espeak-ng reads by their names but in these languages.
_SCRIPTS = {
    "Cyrillic": ("\u0400-\u052f", "ba be bg cv kk ky mk nog ru sr tt uk"),
    "Hebrew": ("\u0590-\u05ff", "he"),
    "Arabic": ("\u0600-\u06ff", "ar fa sd ug ur"),
    "Thai": ("\u0e00-\u0e7f", "th"),
    "Japanese": ("\u3040-\u30ff", "ja"),
    "Chinese": ("\u3005\u3400-\u9fff\uf900-\ufaff", "cmn hak yue"),
}
_FOREIGN = re.compile("|".join(f"(?P<{name}>[{letters}])" for name, (letters, _) in _SCRIPTS.items()))


def _phones(piece: str, language: str) -> list[str]:
    """The phones of text without marks, each with its stress and length."""
    with _ONE_THREAD:
        said = _espeak().read(piece, language)
    said = re.sub(r"\([\w-]+\)", " ", said)  # (en): from here on another language
    return re.sub(r"[_\s]+", " ", said).split()


class _Espeak:
    """espeak-ng, which holds one language at a time."""

    def __init__(self) -> None:
        loader, wrapper = need("espeakng_loader", "tts"), need("phonemizer.backend.espeak.wrapper", "tts").EspeakWrapper
        own: Any = type("Espeak", (wrapper,), {})  # the library of others who use phonemizer stays theirs
        own.set_library(loader.get_library_path())
        own.set_data_path(loader.get_data_path())
        self.library: Any = own()
        self.voices = {voice.language for voice in self.library.available_voices()}
        self.voice = ""

    def read(self, text: str, language: str) -> str:
        codes = [_VOICES.get(code, code) for code in (language, language.split("-")[0])]
        voice = next((code for code in codes if code in self.voices), None)
        if voice is None:
            raise ValueError(f"espeak-ng does not know the language {language!r}, but {_SOME_LANGUAGES}")
        for found in _FOREIGN.finditer(text):
            name = found.lastgroup or ""
            if voice.split("-")[0] not in _SCRIPTS[name][1].split():
                raise ValueError(
                    f"espeak-ng reads no {name} characters in {language!r}, as in {text!r}: spell them out"
                )
        if voice != self.voice:
            self.voice = ""  # until the new one is set
            self.library.set_voice(voice)
            self.voice = voice
        said: str = self.library.text_to_phonemes(text)
        return said


@functools.cache
def _espeak() -> _Espeak:
    """The one copy of the library, which all languages share: each more would never be let go."""
    return _Espeak()


_NUMBER = re.compile(r"((?:(?<!\w)-)?\d+)(?:[.,](\d+))?((?:st|nd|rd|th)\b|[ºª])?")


def _letters(piece: str, language: str) -> list[str]:
    """The letters and apostrophes of text without marks, numbers spelled out; other signs are not said."""
    num2words, language = need("num2words", "tts"), language.split("-")[0]
    if language not in num2words.CONVERTER_CLASSES:
        raise ValueError(f"num2words does not know the language {language!r}, but {_SOME_LANGUAGES}")

    def spell(number: re.Match[str]) -> str:
        whole, decimals, ordinal = number.groups()
        try:
            value = float(f"{whole}.{decimals}") if decimals else int(whole)
            words: str = num2words.num2words(value, lang=language, to="ordinal" if ordinal else "cardinal")
        except Exception as error:  # beside its own errors, those of languages that it half knows
            raise ValueError(f"num2words has no words for {number[0]} in {language!r}: spell it out") from error
        return words

    piece = re.sub(r"(\d*) ?([¼-¾⅐-⅞])", _decimal, piece)  # 1½ is 1.5
    piece = re.sub("[²³¹⁰⁴-⁹]", lambda m: f" {unicodedata.digit(m[0])}", piece)
    with _ONE_THREAD:
        spelled = _NUMBER.sub(spell, piece).lower()
    return [c for c in spelled if c == "'" or unicodedata.category(c)[0] in "LM"]


def _decimal(found: re.Match[str]) -> str:
    return f"{round(int(found[1] or 0) + unicodedata.numeric(found[2]), 2)}"


FRONT_ENDS = {"phonemes": _phones, "characters": _letters}  #: by name: text without marks, and its language, to symbols


# ---- ids -------------------------------------------------------------------------------------------------------------

_NO_STRESS = str.maketrans("", "", "ˈˌ")


class SymbolTable:
    """The symbols that a model was trained on. A symbol's id is its place; the table never changes."""

    def __init__(self, symbols: Sequence[str]) -> None:
        if not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("a table of symbols holds strings")
        self.symbols = tuple(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self._ids) < len(self.symbols):
            raise ValueError("a table of symbols has each symbol once")
        self._alike: dict[str, str] = {}  # the first symbol of each that are plainly the same
        for symbol in self.symbols:
            self._alike.setdefault(plain(symbol), symbol)
        self._found: dict[str, str | None] = {}

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> SymbolTable:
        """All symbols of some texts, sorted."""
        return cls(sorted({symbol for text in texts for symbol in text}))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Ids of symbols. A symbol that is not in the table is read as `known` says; one that is like none is left out
        with a warning, and so is a mark without one. Raises ValueError where no symbol is left."""
        symbols = [symbol for symbol in symbols if symbol in self._ids or symbol not in MARKS]
        unknown = self.unknown(symbols)
        left = [symbol for symbol in map(self.known, symbols) if symbol is not None]
        if unknown:
            names = ", ".join(map(repr, unknown))
            if not any(symbol not in MARKS for symbol in left):
                raise ValueError(f"the model was trained on nothing like {names}: write the text without them")
            warnings.warn(f"the model was trained on nothing like {names}: left out", stacklevel=2)
        return [self._ids[symbol] for symbol in left]

    def unknown(self, symbols: Iterable[str]) -> list[str]:
        """The symbols, but marks, that are like none of the table, each once."""
        return [symbol for symbol in dict.fromkeys(symbols) if symbol not in MARKS and self.known(symbol) is None]

    def known(self, symbol: str) -> str | None:
        """The symbol of the table that stands for `symbol`: itself, or that without its stress, or one that differs in
        stress, length and diacritics alone, or the phone that sounds nearest; None where it has no sound."""
        if symbol in self._ids:
            return symbol
        if symbol not in self._found:
            letters = plain(symbol)
            same = (symbol.translate(_NO_STRESS), self._alike.get(letters), "c" if letters == "ç" else None)
            like = next((like for like in same if like in self._ids), None) if letters else None
            self._found[symbol] = like or nearest(symbol, self._alike)
        return self._found[symbol]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Symbols of ids. Raises ValueError for an id that is none."""
        ids = list(ids)
        wrong = next((i for i in ids if not 0 <= i < len(self)), None)
        if wrong is not None:
            raise ValueError(f"id {wrong} is none of {len(self)} symbols")
        return [self.symbols[i] for i in ids]
