"""Pauses and pronunciations in texts, and lexicon files."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import ROOT
from vocable.lm.front_ends import read_passage, read_text
from vocable.lm.passage import PLACEHOLDER, Passage, Pause, parse
from vocable.lm.pronunciation import read_ipa, read_lexicon
from vocable.lm.words import word_of_each

ENGLISH = json.loads((ROOT / "models" / "uslm" / "config.json").read_text(encoding="utf-8"))["symbols"]


@pytest.fixture
def espeak() -> None:
    for package in ("phonemizer", "espeakng_loader"):
        pytest.importorskip(package, reason="the front end 'phonemes' needs phonemizer and espeakng_loader")


def english(ipa: str) -> list[str]:
    return read_ipa(ipa, ENGLISH, "en")


def passage(text: str, lexicon: dict[str, str] | None = None) -> Passage:
    (found,) = parse(text, english, lexicon)
    assert isinstance(found, Passage)
    return found


def said(text: str, lexicon: dict[str, str] | None = None) -> str:
    return " ".join(read_passage(passage(text, lexicon), "en", "phonemes"))


def test_a_text_without_instructions_is_one_passage() -> None:
    for text in ("", "One. Two [three] (four) [five](http://six) [seven](/eight/nine).", f"a{PLACEHOLDER}b"):
        assert passage(text) == Passage(text.replace(PLACEHOLDER, " "))


def test_pauses_divide_a_text() -> None:
    parts = parse("[pause 1s]Wait [Pause 0.25 s] here.[pause 10s]", english)
    assert [part.seconds if isinstance(part, Pause) else part.text for part in parts] == [
        "",
        1.0,
        "Wait ",
        0.25,
        " here.",
        10.0,
        "",
    ]


@pytest.mark.parametrize(
    "pause", ["[pause]", "[pause 5]", "[pause:1s]", "[pause -1s]", "[pause 10.1s]", "[pause nans]"]
)
def test_pauses_that_are_none(pause: str) -> None:
    with pytest.raises(ValueError, match=r"write a pause of 0 to 10 seconds as \[pause 0.7s\]"):
        parse(f"Wait {pause} here.", english)
    assert passage("[pausing] and [a pause 5]").text == "[pausing] and [a pause 5]"


@pytest.mark.usefixtures("espeak")
def test_a_pronunciation_replaces_the_word_alone() -> None:
    assert said("A [GIF](/dʒɪf/), please.") == "ɐ dʒ ɪ f , p l ˈiː z ."
    assert said("[Nguyen](/ˈwɪn/)") == "w ˈɪ n"
    # The words around it are read as beside any name.
    assert said("Mr. [Nguyen](/wɪn/) of St. [Xi](/ʃiː/).") == "m ˈɪ s t ɚ w ɪ n ʌ v s ˈeɪ n t ʃ iː ."
    assert said("A [x](/ɛks/) of the **[y](/waɪ/)**") == "ɐ ɛ k s ʌ v ð ə w aɪ"
    with pytest.raises(ValueError, match="within markup"):
        said('<a title="[x](/ɛks/)">b</a>')
    assert said("In [x](/ɛks/), in [y](/waɪ/)!") == "ɪ n ɛ k s , ɪ n w aɪ !"


def test_sentences_and_words_keep_their_pronunciations() -> None:
    text = "Dr. [Who](/huː/) came. [New York](/nuː jɔːk/) is — far, [so](/səʊ/)!"
    whole = passage(text)
    assert whole.text == "Dr. Who came. New York is — far, so!"
    first, second = whole.sentences(100)
    assert first.text == "Dr. Who came." and [p.word for p in first.pronounced] == ["Who"]
    assert [word.text for word in second.words()] == ["New York", "is", "—", "far,", "so!"]
    assert [len(word.pronounced) for word in second.words()] == [1, 0, 0, 0, 1]
    pieces = whole.sentences(3)
    assert [p.word for piece in pieces for p in piece.pronounced] == ["Who", "New York", "so"]


@pytest.mark.parametrize(
    "ipa, phones",
    [
        ("fəˈnɛtɪk", "f ə n ˈɛ t ɪ k"),  # the stress moves to the vowel
        ("ˈtɹænz.leɪt", "t ɹ ˈæ n z l eɪ t"),
        ("t͡ʃiːz", "tʃ iː z"),
        ("ˌɪntəˈnæʃ(", None),
        ("red", "ɹ e d"),
        ("ə l ɑ:m", "ə l ɑː m"),
        ("'gəʊ", "g ˈəʊ"),
        ("ʁuʒ̩", "ʁ u ʒ̩"),
        ("ж", None),
        ("ˈ.", None),
        ("", None),
    ],
)
def test_ipa_as_phones(ipa: str, phones: str | None) -> None:
    if phones is None:
        with pytest.raises(ValueError, match="phone of IPA"):
            english(ipa)
    else:
        assert english(ipa) == phones.split()


def test_pronunciations_that_are_none() -> None:
    for text, why in (
        ("[](/a/)", "write the word before its pronunciation"),
        ("[x](//)", "the pronunciation of 'x': // holds no phone"),
        ("[x](/a1ж/)", "the pronunciation of 'x': 'ж' in /a1ж/ is not a phone of IPA"),
    ):
        with pytest.raises(ValueError, match=why):
            parse(text, english)


@pytest.mark.usefixtures("espeak")
def test_words_of_a_lexicon() -> None:
    lexicon = {"GIF": "dʒɪf", "don't": "doʊnt", "co-op": "kuːp"}
    assert said("A gif: GIFs, Don’t co-op.", lexicon) == said(
        "A [gif](/dʒɪf/): GIFs, [don't](/doʊnt/) [co-op](/kuːp/)."
    )
    assert said("[gif](/ɡɪf/)", lexicon) == "ɡ ɪ f", "the text has precedence"


def test_lexicon_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffGIF\t/dʒɪf/\n\n Nguyen \t wɪn\n", encoding="utf-8")
    assert read_lexicon(path) == {"GIF": "dʒɪf", "Nguyen": "wɪn"}
    for line, why in (
        ("word wɜːd", "line 2: write a word, a tab and its pronunciation in IPA, not 'word wɜːd'"),
        ("\twɜːd", "line 2: write a word"),
        ("two words\tə", "line 2: write a word"),
        ("a\tə", "line 2: 'a' is there twice"),
        ("b\tж", "line 2: 'ж' in /ж/ is not a phone of IPA"),
    ):
        path.write_text(f"a\tə\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=why):
            read_lexicon(path)
    path.write_bytes(b"caf\xe9\tk\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_lexicon(path)


# ---- which word a symbol belongs to ----------------------------------------------------------------------------------


def words_of(text: str) -> list[tuple[str, int]]:
    """The words that have symbols, and the number of these without marks."""
    whole = passage(text)
    words = whole.words()
    symbols = read_passage(whole, "en", "phonemes")
    found = word_of_each(symbols, [read_passage(word, "en", "phonemes") for word in words])
    assert found == sorted(found)
    spoken = [word for symbol, word in zip(symbols, found, strict=True) if symbol not in ".,;:!?"]
    return [(words[i].text, spoken.count(i)) for i in dict.fromkeys(spoken)]


def sizes(*said: str) -> Sequence[int]:
    return [len([s for s in read_text(text, "en", "phonemes") if s not in ".,;:!?"]) for text in said]


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize(
    "text, said",
    [
        ("Of the people, by 12 men.", ["of", "the", "people", "by", "twelve", "men"]),
        ("I paid $5.50 on 05/01/2024.", ["eye", "paid", "five dollars and fifty cents", "on", "May first 2024"]),
        ("2 + 2 = 4", ["two", "plus", "two", "equals", "four"]),
        ("Mr. Lee left at 5 p.m. with **me**", ["mister", "Lee", "left", "at", "five", "p m", "with", "me"]),
        ("See [Xi](/ʃiː/)!", ["see", "she"]),
    ],
)  # fmt: skip
def test_written_words_of_symbols(text: str, said: list[str]) -> None:
    found = words_of(text)
    assert [word for word, _ in found] == [word.text for word in passage(text).words()]
    assert [count for _, count in found] == list(sizes(*said))


@pytest.mark.usefixtures("espeak")
def test_signs_that_are_not_spoken_are_no_words() -> None:
    assert [word for word, _ in words_of('Yes — "no" ... * so <br/> on')] == ["Yes", '"no"', "so", "on"]
    assert [word for word, _ in words_of("It costs $3 million today")] == ["It", "costs", "$3", "million", "today"]


def test_symbols_without_a_partner_belong_to_the_word_before() -> None:
    assert word_of_each("xabycz", ["ab", "", "c"]) == [0, 0, 0, 0, 2, 2]
    assert word_of_each("ab", ["aqqqqb", "b"]) == [0, 1]
    with pytest.raises(ValueError, match="no word"):
        word_of_each("ab", [""])
