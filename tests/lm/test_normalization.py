"""Normalization: English is written out in words, markup goes, and long texts take no time."""

# ruff: noqa: RUF001

from __future__ import annotations

import time

import pytest

from vocable.lm.normalization import normalize
from vocable.lm.punctuation import split_sentences

#: What fails without rules of English, and how it is said.
AS_PEOPLE_SAY_IT = {
    "fractions": ("1½ cups, ½ cup, 2⅔, 1 3/4", "1 and a half cups, one half cup, 2 and 2 thirds, 1 and 3 quarters"),
    "powers": ("10², 5 km², 10⁻³, the word²", "10 squared, 5 km squared, 10 to the power of minus 3, the word"),
    "signs": (
        "±5, 3×4, 6÷2, x ≥ 5, x < 5",
        "plus or minus 5, 3 times 4, 6 divided by 2, x greater than or equal to 5, x less than 5",
    ),
    "minus": ("−5 or 7 − 5", "minus 5 or 7 minus 5"),
    "streets": (
        "Wall St. Journal, Oxford St. Station, 5th St.",
        "Wall street Journal, Oxford street Station, 5th street.",
    ),
    "saints": (
        "St. Paul, In St. Louis, East St. Louis, Visit St. John",
        "saint Paul, In saint Louis, East saint Louis, Visit saint John",
    ),
    "a street's end": ("At 123 Main St. He lives", "At 123 Main street. He lives"),
    "doctors and drives": ("Dr. No of 12 Oak Dr. He left", "doctor No of 12 Oak drive. He left"),
    "firms": ("Apple Inc. The end. Apple Inc. chairman", "Apple incorporated. The end. Apple incorporated chairman"),
    "halves of a day": ("9 a.m. The 7:00 PM show at 7am", "9 a.m.. The 7 p.m. show at 7 a.m."),
    "degrees": ("Her Ph.D. The M.Sc. of", "Her P H D. The M S C of"),
    "times": ("10:30, 7:05, 7:00, 19:45", "10 30, 7 oh 5, 7 o'clock, 19 45"),
    "money": (
        "$5M, £3bn, ¥500, $0.99, $1.01",
        "5 million dollars, 3 billion pounds, 500 yen, 99 cents, 1 dollar and 1 cent",
    ),
    "dates": (
        "05/01/2024, 2024-05-01, 13/1/1999, Jan. 5, 2020",
        "May 1st 20 24, May 1st 20 24, January 13th 19 99, January 5th, 20 20",
    ),
    "years": ("in 1984, 1905, the 1990s", "in 19 84, 19 oh 5, the 19 90s"),
    "telephones": ("555-1234, +1 (800) 555-1234", "5 5 5, 1 2 3 4, plus 1, 8 0 0, 5 5 5, 1 2 3 4"),
    "Markdown": ("# Title\n[a link](https://x.org/a) **bold** `code` #tag", "Title. a link bold code tag"),
    "HTML": ("<p>Tom &amp;amp; <b>Anne</b></p> <!-- no -->", "Tom and Anne"),
    "marks within words": ("#1, C#, AT&T, R&D, and/or", "number 1, C sharp, A.T. and T, R and D, and or"),
    "addresses": ("https://www.x.org/ab", "x.org ab"),
}


@pytest.mark.parametrize("kind", AS_PEOPLE_SAY_IT)
def test_english_is_written_out_as_people_say_it(kind: str) -> None:
    def said(text: str) -> list[str]:
        return normalize(text, "en").replace(" ,", ",").replace("..", ".").rstrip(".").split()

    written, words = AS_PEOPLE_SAY_IT[kind]
    assert said(written) == said(words)


def test_the_day_comes_first_but_in_the_united_states() -> None:
    assert normalize("5/1/2024", "en-gb") == "January 5th 20 24" and normalize("5/1/2024", "en-us") == "May 1st 20 24"


@pytest.mark.parametrize(
    "text",
    ["1", "1 ", "$1", "[a](", "<a ", "a.", "1/", "A ", "1²", "&amp;", "St. ", "A-", "\n", "1:00", "."],
)
def test_long_texts_of_one_thing_take_no_time(text: str) -> None:
    begin = time.process_time()
    normalize(10_000 * text + "Dr.", "en")
    split_sentences(10_000 * text + "Dr.", 200)
    assert time.process_time() - begin < 2
