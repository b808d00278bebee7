"""Find the phone that sounds nearest to another one.

So models can read phones of espeak-ng that are not in their training texts.
"""

# ruff: noqa: RUF001 (characters that look alike are intended)

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
#: Sounds that are read as others, which are in the charts.
_READ_AS = {
    **{
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
    },
    **{
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
    },
    **{"ɾ": "r", "ɽ": "r", "ʀ": "r", "ʁ": "r"},  # all of them are the r of some language
    **{"ʋ": "v", "ʍ": "w", "ε": "ɛ", "φ": "ɸ", "ß": "s"},  # letters that are written in place of phones
}
#: Distance between neighbours in a chart: in manner or height, in place or backness, in voice or rounding.
_CONSONANT_WEIGHTS, _VOWEL_WEIGHTS = (0.8, 1.25, 1.0), (1.0, 1.0, 1.5)
_VOWEL_TO_CONSONANT = 9.0  #: distance between a vowel and a consonant
#: Cost of a sound that only one of two phones has: of its main sound (the vowel, else the first consonant), and of any
#: other.
_MAIN_MISSING, _MISSING = 4.0, 0.9


def _charted() -> dict[str, tuple[bool, float, float, float]]:
    """Return for each sound: whether it is a vowel, and its weighted row, column, and voice or rounding."""
    found = {}
    for is_vowel, chart, weights in ((False, _CONSONANTS, _CONSONANT_WEIGHTS), (True, _VOWELS, _VOWEL_WEIGHTS)):
        for row, line in enumerate(chart.split("\n")[1:-1]):
            for column, pair in enumerate(line.split()):
                for second, sound in enumerate(pair):
                    found[sound] = is_vowel, row * weights[0], column * weights[1], second * weights[2]
    del found["-"]
    return found


_SOUNDS = _charted()


@functools.lru_cache(maxsize=4096)
def base_letters(phone: str) -> str:
    """Return the letters of a phone: without stress, length, tone and diacritics."""
    letters = "".join(
        c if c in _SOUNDS else unicodedata.normalize("NFD", c) for c in unicodedata.normalize("NFC", phone)
    )
    return "".join(c for c in letters if unicodedata.category(c) in ("Ll", "Lu", "Lo"))


def nearest_phone(phone: str, by_letters: Mapping[str, str]) -> str | None:
    """Return the value of `by_letters` whose key sounds nearest to `phone`.

    by_letters: phones by their base letters. None if `phone`, or every key, has no sound.
    """
    wanted = _sounds(phone)
    others = {letters: sounds for letters in by_letters if (sounds := _sounds(letters))}
    if not wanted or not others:
        return None
    return by_letters[min(others, key=lambda letters: _distance(wanted, others[letters]))]


def has_sound(phone: str) -> bool:
    """Return whether any letter of a phone is in the charts."""
    return bool(_sounds(phone))


def is_vowel(phone: str) -> bool:
    """Return whether a phone holds a vowel."""
    return any(_SOUNDS[sound][0] for sound in _sounds(phone))


def _sounds(phone: str) -> str:
    """Return the sounds of a phone that are in the charts. A doubled sound (a long one of espeak-ng) counts once."""
    letters = "".join(_READ_AS.get(c, c) for c in base_letters(phone).lower()).replace("əʊ", "oʊ")  # British goat
    sounds = [c for c in letters if c in _SOUNDS]
    return "".join(c for i, c in enumerate(sounds) if sounds[i - 1 : i] != [c])


def _distance(one: str, other: str) -> float:
    """Return the edit distance between two sequences of sounds."""
    missing, too_many = _missing(one), _missing(other)
    row = [sum(too_many[:j]) for j in range(len(other) + 1)]
    for i, a in enumerate(one):
        before, row = row, [row[0] + missing[i]]
        for j, b in enumerate(other):
            row.append(min(before[j + 1] + missing[i], row[j] + too_many[j], before[j] + _between(a, b)))
    return row[-1]


def _missing(sounds: str) -> list[float]:
    """Return the cost of leaving out each sound."""
    main = next((i for i, sound in enumerate(sounds) if _SOUNDS[sound][0]), 0)
    return [_MAIN_MISSING if i == main else _MISSING for i in range(len(sounds))]


def _between(a: str, b: str) -> float:
    """Return the distance between two sounds."""
    (is_vowel, *place), (other_is_vowel, *other) = _SOUNDS[a], _SOUNDS[b]
    return (
        sum(abs(x - y) for x, y in zip(place, other, strict=True))
        if is_vowel == other_is_vowel
        else _VOWEL_TO_CONSONANT
    )
