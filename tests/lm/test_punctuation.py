"""Sentences of texts: where they end, and how long ones are split."""

# ruff: noqa: RUF001

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocable.lm.punctuation import split_sentences


def test_short_forms_end_sentences_before_words_that_begin_one() -> None:
    for sentences in (
        ["She lives at 123 Main St.", "He lives in Paris."],
        ["It is 9 a.m.", "The doctor has a Ph.D.", "She works at Apple Inc.", "They moved to the U.S.", "I did not."],
        ["The U.S. Army met Dr. Smith of Wall St. Journal at 5 p.m. sharp."],
        ["Plan B.", "The end of J. R. R. Tolkien."],
    ):
        assert split_sentences(" ".join(sentences), 100) == sentences


def test_sentences() -> None:
    for sentences in (
        ["He left.", '"Why?"', "she said…", "Then: no!"],
        ["It is 3.5 or so. * * *", "End"],
        ["Mr. J. Lee met Dr. No etc. at 5 p.m. in St. Ives.", "No. 5 of the U.S. Army"],
        ["Am 17. júní, z.B. um 9.", "Oder?"],
    ):
        assert split_sentences(" ".join(sentences), 100) == sentences
    assert split_sentences("今天很好。我们走吧！", 100) == ["今天很好。", "我们走吧！"]
    assert split_sentences("A title\n\nIts text\n", 100) == ["A title", "Its text"]
    assert split_sentences(" ", 9) == []


def test_long_sentences() -> None:
    text = "Well, it came to this; at last, we went on without any more ado."
    assert split_sentences(text, 30) == ["Well, it came to this;", "at last,", "we went on without any more", "ado."]
    assert split_sentences("so unbelievable it is", 5) == ["so", "unbel", "ievab", "le it", "is"]
    with pytest.raises(ValueError, match="room for at least 1 character"):
        split_sentences(text, 0)


@given(
    st.text(st.sampled_from("aB. ,;:!?。、\n\"'1…—*") | st.characters(exclude_categories=["Cs"])), st.integers(1, 40)
)
def test_nothing_is_lost_between_pieces(text: str, longest: int) -> None:
    pieces = split_sentences(text, longest)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece == piece.strip() and piece for piece in pieces)
    assert all(len(piece) <= longest for piece in pieces)


def test_a_row_of_dots_takes_no_time() -> None:
    begin = time.process_time()
    assert len(split_sentences("." * 50_000 + "a" * 50_000 + ". b", 200_000)) == 2
    assert time.process_time() - begin < 1
