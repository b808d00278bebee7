"""Text as the language models read it: a list of symbols, which a table turns into ids.

Two front ends make symbols of text:

phonemes     the phones of espeak-ng, stress and length included: ["h", "ə", "l", "ˈoʊ", ","]
characters   letters in lower case, and no program under the GPL: ["h", "e", "l", "l", "o", ","]

Both keep the marks `. , ; : ! ?` as symbols of their own, and neither keeps the boundaries between words.
"""

# ruff: noqa: RUF001, RUF002 (characters that look like others are the matter here)

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vocable.extras import need

MARKS = ",;:.!?"  #: the punctuation that is kept, the weakest first


def read_text(text: str, language: str, front_end: str) -> list[str]:
    """The symbols of a text.

    language: as manifests have it, ISO 639-1 ("en") or with a region ("sv-SE"). front_end: "phonemes" or "characters".
    Of marks that follow one another the strongest stays; none comes first. Raises ValueError for a text without a
    letter or digit, and for a language or front end that is not known.
    """
    if front_end not in FRONT_ENDS:
        raise ValueError(f"the front end is one of {', '.join(FRONT_ENDS)}, not {front_end!r}")
    language = language.lower()
    prepared = _prepare(text, language) if _can_be_said(text) else ""  # of "%" alone English would make a word
    symbols: list[str] = []
    for piece, mark in _pieces(prepared):
        symbols += FRONT_ENDS[front_end](piece, language) if _can_be_said(piece) else []
        if mark and symbols and symbols[-1] in MARKS:
            symbols[-1] = max(symbols[-1], mark, key=MARKS.index)
        elif mark and symbols:
            symbols.append(mark)
    if not symbols:
        raise ValueError(f"nothing to say in {text!r}: a text needs a letter or a digit")
    return symbols


def _can_be_said(text: str) -> bool:
    return any(c.isalnum() for c in text)


# ---- before both front ends ------------------------------------------------------------------------------------------

#: English that a period shortens, as patterns, and what is said for it.
_SHORT_FORMS = {
    r"[Mm]r\.": "mister",
    r"[Mm]rs\.": "missus",
    r"[Mm]s\.": "miz",
    r"[Dd]r\.": "doctor",
    r"[Pp]rof\.": "professor",
    r"[Rr]ev\.": "reverend",
    r"[Gg]en\.": "general",
    r"[Cc]apt\.": "captain",
    r"[Ll]t\.": "lieutenant",
    r"[Ss]gt\.": "sergeant",
    r"[Gg]ov\.": "governor",
    r"[Jj]r\.": "junior",
    r"[Ss]r\.": "senior",
    r"[Ss]t\.(?= [A-Z])": "saint",
    r"[Ss]t\.": "street",
    r"[Mm]t\.(?= [A-Z])": "mount",
    r"[Nn]o\.(?= ?\d)": "number",
    r"[Ii]nc\.": "incorporated",
    r"[Ll]td\.": "limited",
    r"[Vv]s\.": "versus",
    r"[Ee]tc\.(?= [A-Z])": "et cetera.",  # as a rule this ends a sentence too
    r"[Ee]tc\.": "et cetera",
    r"[Ee]\.g\.": "for example",
    r"[Ii]\.e\.": "that is",
    r"[Aa]pprox\.": "approximately",
}
#: What ends in a period that ends no sentence, in any language: short forms, initials (J. Smith; I is a word),
#: letters with periods (z.B., U.S.) before more text, ordinals before a small letter (17. júní).
_SHORTENED = "|".join([*_SHORT_FORMS, r"[A-HJ-Z]\.(?=\s+\w)", r"(?:[^\W\d_]\.){2,}(?=\W*\w)", r"\d+\.(?=\s+[a-zß-ÿ])"])
#: , and : between digits belong to a number or a time, a period before a letter to a name (example.com).
_MARK = re.compile(rf"(?<!\w)(?:{_SHORTENED})|(?P<mark>[;!?]|[,:](?!\d)|(?<!\d)[,:]|\.(?!\w))")

_ONE_FOR_MANY = str.maketrans(
    dict.fromkeys("‘’‚‛ʼ´`", "'")
    | dict.fromkeys("‐‑−", "-")
    | dict.fromkeys("。｡।॥۔։።", ". ")
    | dict.fromkeys("、،", ", ")
    | {"؛": "; ", "؟": "? "}
)
_CURRENCIES = {"$": "dollar", "£": "pound", "€": "euro"}
#: Languages that write 1,000.5; the others write 1.000,5.
_DECIMAL_POINT = {"bn", "cy", "en", "ga", "he", "hi", "ja", "ko", "ml", "mr", "ms", "mt", "ta", "te", "th", "ur", "zh"}


def _prepare(text: str, language: str) -> str:
    """The text in one spelling: NFKC, straight apostrophes, plain numbers, marks out of MARKS, English written out."""
    english = language.split("-")[0] == "en"
    if text.isupper() and len(text.split()) > 1:  # as in LibriSpeech, where espeak would say "I.T." for IT
        text = text.lower()
        text = re.sub(r"\bi\b", "I", text) if english else text
    text = re.sub(r"(?<=\d)[\u00a0\u202f](?=\d{3}(?!\d))", "", text)  # spaces that join: NFKC makes them plain ones
    text = unicodedata.normalize("NFKC", text.translate(_ONE_FOR_MANY))
    thousands = "," if language.split("-")[0] in _DECIMAL_POINT else r"\."
    text = re.sub(rf"(?<![\d.,])\d{{1,3}}(?:{thousands}\d{{3}})+(?!\d)", lambda m: re.sub(r"\D", "", m[0]), text)
    text = re.sub(r"(?<=\d)[-–—](?=\d)", " ", text)
    text = re.sub(r"(?<!\S)-(?!\S)|--+|[–—―]", ", ", text)  # other hyphens stay: espeak knows ice-cream and -5
    text = re.sub(r"\.{2,}", ". ", text)
    text = "".join(c if _is_said(c) else "" if unicodedata.category(c) == "Cf" else " " for c in text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)  # a quotation mark: an apostrophe stands within a word
    amount = r"\d+(?:[.,]\d+)?(?: (?:hundred|thousand|[mb]illion|trillion)\b)?"
    text = " ".join(re.sub(rf"(?<!\d)(?<!\d )([$£€]) ?({amount})", r" \2 \1 ", text).split())
    return _in_english_words(text) if english else text


def _is_said(c: str) -> bool:
    """Whether a character is more than a quotation mark, a bracket, an ornament or an emoji."""
    category = unicodedata.category(c)
    return category[0] in "LMN" or category == "Sc" or c in MARKS or c in "'-%&@#/°+="


def _in_english_words(text: str) -> str:
    text = re.sub(r"\.(\W*)$", r"..\1", text)  # a period at the very end ends the sentence, whatever it shortens too
    for form, words in _SHORT_FORMS.items():
        text = re.sub(rf"(?<!\w){form}", words, text)
    text = re.sub(r"(?<![\d.,])1 ?([$£€])", lambda m: f"1 {_CURRENCIES[m[1]]}", text)
    text = re.sub(r"[$£€]", lambda m: f" {_CURRENCIES[m[0]]}s", text)
    return text.replace("%", " percent").replace("&", " and ")


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """What stands before each mark, and the mark; at last what is left, and no mark."""
    start = 0
    for found in _MARK.finditer(text):
        if found["mark"]:
            yield text[start : found.start()], found["mark"]
            start = found.end()
    yield text[start:], ""


# ---- the front ends --------------------------------------------------------------------------------------------------

#: Where espeak-ng has another name for a language.
_VOICES = {"en": "en-us", "fr": "fr-fr", "no": "nb", "pt": "pt-br", "zh": "cmn", "zh-hk": "yue"}
_SOME_LANGUAGES = "en, de, es, fr, is, it, pt, ru and others by their ISO 639-1 code"


_CHINESE = re.compile("[\u3005\u3400-\u9fff\uf900-\ufaff]")


def _phones(piece: str, language: str) -> list[str]:
    """The phones of text without marks, each with its stress and length."""
    espeak = _espeak(language)
    if not espeak.voice.language.startswith(("cmn", "yue", "hak")) and _CHINESE.search(piece):
        raise ValueError(f"espeak-ng reads no Chinese characters in {language!r}, as in {piece!r}: spell them out")
    said = re.sub(r"\([\w-]+\)", " ", espeak.text_to_phonemes(piece))  # (en): from here on another language
    return re.sub(r"[_\s]+", " ", said).split()


@functools.cache
def _espeak(language: str) -> Any:
    """espeak-ng in one language: an own copy of the library, since the library holds one voice at a time."""
    loader, wrapper = need("espeakng_loader", "tts"), need("phonemizer.backend.espeak.wrapper", "tts").EspeakWrapper
    wrapper.set_library(loader.get_library_path())
    wrapper.set_data_path(loader.get_data_path())
    espeak = wrapper()
    known = {voice.language for voice in espeak.available_voices()}
    for code in (language, language.split("-")[0]):
        if (voice := _VOICES.get(code, code)) in known:
            espeak.set_voice(voice)
            return espeak
    raise ValueError(f"espeak-ng does not know the language {language!r}, but {_SOME_LANGUAGES}")


_NUMBER = re.compile(r"((?:(?<!\w)-)?\d+)(?:[.,](\d+))?((?:st|nd|rd|th)\b)?")


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

    spelled = _NUMBER.sub(spell, piece).lower()
    return [c for c in spelled if c == "'" or unicodedata.category(c)[0] in "LM"]


FRONT_ENDS = {"phonemes": _phones, "characters": _letters}  #: by name: text without marks, and its language, to symbols


# ---- long texts ------------------------------------------------------------------------------------------------------

_CLOSING = "[\"'”’»›)\\]}」』）]*"
#: The end of a sentence and what stands alone behind it (a dash, a row of stars), or an empty line.
_SENTENCE_END = re.compile(
    rf"(?<!\w)(?:{_SHORTENED})|"
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


# ---- ids -------------------------------------------------------------------------------------------------------------

_NO_STRESS = str.maketrans("", "", "ˈˌ")
_PLAIN = str.maketrans("", "", "ˈˌː\u0303")  # the last is the tilde of croissant's nasal vowel
_NEAREST = {"x": "k", "ɬ": "l"}  #: of loch and Llanelli, as most say them who have no such phone


class SymbolTable:
    """The symbols that a model was trained on. A symbol's id is its place; the table never changes."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._alike = {symbol.translate(_PLAIN): i for i, symbol in reversed(list(enumerate(self.symbols)))}
        if len(self._ids) < len(self.symbols):
            raise ValueError("a table of symbols has each symbol once")

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> SymbolTable:
        """All symbols of some texts, sorted."""
        return cls(sorted({symbol for text in texts for symbol in text}))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Ids of symbols. A phone that is not in the table is read without its stress, or else as one that differs in
        stress, length and nasality alone, or as its nearest; a mark that is not is passed over.

        Raises ValueError that names all symbols that are still unknown.
        """
        symbols = [symbol for symbol in symbols if symbol in self._ids or symbol not in MARKS]
        ids = [self._find(symbol) for symbol in symbols]
        if None in ids:
            unknown = dict.fromkeys(repr(symbol) for symbol, i in zip(symbols, ids, strict=True) if i is None)
            raise ValueError(f"the model was not trained on {', '.join(unknown)}: write the text without them")
        return [i for i in ids if i is not None]

    def _find(self, symbol: str) -> int | None:
        for known in (symbol, symbol.translate(_NO_STRESS)):
            if known in self._ids:
                return self._ids[known]
        plain = symbol.translate(_PLAIN)
        return self._alike.get(plain, self._alike.get(_NEAREST.get(plain, plain)))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Symbols of ids. Raises ValueError for an id that is none."""
        ids = list(ids)
        wrong = next((i for i in ids if not 0 <= i < len(self)), None)
        if wrong is not None:
            raise ValueError(f"id {wrong} is none of {len(self)} symbols")
        return [self.symbols[i] for i in ids]
