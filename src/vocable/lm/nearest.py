"""Which of some phones sounds nearest to another: any phone that espeak-ng writes, for models that never heard it."""

# ruff: noqa: RUF001 (characters that look like others are the matter here)

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping

#: The chart of consonants (International Phonetic Association, 2020): a row for each manner of articulation, a column
#: for each place from the lips to the glottis, each cell voiceless and voiced.
_CONSONANTS = """
pb -- -- td ʈɖ -- -- kɡ qɢ -- ʔ-
ɸβ fv θð sz -- ʃʒ çʝ xɣ χ- ħʕ hɦ
-- -w -- -ɹ -- -- -j -- -- -- --
-ʙ -ⱱ -- -r -- -- -- -- -- -- --
-- -- -- -l -ɭ -- -- -ʟ -- -- --
-- -- -- ɬɮ -- -- -- -- -- -- --
-m -ɱ -- -n -ɳ -- -- -ŋ -ɴ -- --
"""
#: The chart of vowels, from close to open: front, central and back, each unrounded and rounded.
_VOWELS = """
iy ɨʉ ɯu
ɪʏ -- -ʊ
eø ɘɵ ɤo
-- ə- --
ɛœ ɜɞ ʌɔ
aɶ ɐ- ɑɒ
"""
_SAME = {
    "æ": "a",
    "ᵻ": "ɪ",
    "ɚ": "əɹ",
    "ɝ": "ɜɹ",
    "ɲ": "nj",
    "ʎ": "lj",
    "ɫ": "l",
    "ɗ": "d",
    "ɓ": "b",
    "ɠ": "ɡ",
    "g": "ɡ",
}
_SAME |= {
    "ʂ": "ʃ",
    "ʐ": "ʒ",
    "ɕ": "ʃ",
    "ʑ": "ʒ",
    "ʦ": "ts",
    "ʣ": "dz",
    "ʧ": "tʃ",
    "ʤ": "dʒ",
    "ɻ": "ɹ",
    "c": "k",
    "ɟ": "ɡ",
}
_SAME |= {"ɾ": "r", "ɽ": "r", "ʀ": "r", "ʁ": "r"}  # all that languages have for r
_SAME |= {"ʋ": "v", "ʍ": "w", "ε": "ɛ", "φ": "ɸ", "ß": "s"}  # letters that are written for phones
#: Of neighbours in a chart: in manner or height, in place or backness, in voice or rounding.
_OF_CONSONANTS, _OF_VOWELS = (0.8, 1.25, 1.0), (1.0, 1.0, 1.5)
_OTHER_KIND = 9.0  #: of a vowel and a consonant
#: For a sound that only one of two phones has: its vowel, or else its first consonant; any other.
_MAIN_MISSING, _MISSING = 4.0, 0.9


def _charted() -> dict[str, tuple[bool, float, float, float]]:
    """Of each sound whether it is a vowel, its row, its column, and its voice or rounding, weighted."""
    found = {}
    for is_vowel, chart, weights in ((False, _CONSONANTS, _OF_CONSONANTS), (True, _VOWELS, _OF_VOWELS)):
        for row, line in enumerate(chart.split("\n")[1:-1]):
            for column, pair in enumerate(line.split()):
                for second, sound in enumerate(pair):
                    found[sound] = is_vowel, row * weights[0], column * weights[1], second * weights[2]
    del found["-"]
    return found


_SOUNDS = _charted()


@functools.lru_cache(maxsize=4096)
def plain(phone: str) -> str:
    """A phone without stress, length, tone and diacritics: its letters."""
    letters = "".join(
        c if c in _SOUNDS else unicodedata.normalize("NFD", c) for c in unicodedata.normalize("NFC", phone)
    )
    return "".join(c for c in letters if unicodedata.category(c) in ("Ll", "Lu", "Lo"))


def nearest(phone: str, phones: Mapping[str, str]) -> str | None:
    """What `phones`, of letters, gives for those that sound nearest to `phone`; None where none has a sound."""
    wanted = _sounds(phone)
    others = {letters: sounds for letters in phones if (sounds := _sounds(letters))}
    if not wanted or not others:
        return None
    return phones[min(others, key=lambda letters: _distance(wanted, others[letters]))]


def _sounds(phone: str) -> str:
    """The sounds of a phone that are in the charts; one written twice, as espeak-ng does for length, once."""
    letters = "".join(_SAME.get(c, c) for c in plain(phone).lower()).replace("əʊ", "oʊ")  # British goat
    sounds = [c for c in letters if c in _SOUNDS]
    return "".join(c for i, c in enumerate(sounds) if sounds[i - 1 : i] != [c])


def _distance(one: str, other: str) -> float:
    """An edit distance over sounds."""
    missing, too_many = _missing(one), _missing(other)
    row = [sum(too_many[:j]) for j in range(len(other) + 1)]
    for i, a in enumerate(one):
        before, row = row, [row[0] + missing[i]]
        for j, b in enumerate(other):
            row.append(min(before[j + 1] + missing[i], row[j] + too_many[j], before[j] + _between(a, b)))
    return row[-1]


def _missing(sounds: str) -> list[float]:
    main = next((i for i, sound in enumerate(sounds) if _SOUNDS[sound][0]), 0)
    return [_MAIN_MISSING if i == main else _MISSING for i in range(len(sounds))]


def _between(a: str, b: str) -> float:
    (is_vowel, *place), (other_kind, *other) = _SOUNDS[a], _SOUNDS[b]
    return sum(abs(x - y) for x, y in zip(place, other, strict=True)) if is_vowel == other_kind else _OTHER_KIND
