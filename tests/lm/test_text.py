"""Symbols of texts in several languages, sentences of long texts, and ids of symbols."""

# ruff: noqa: RUF001

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocable.lm.text import FRONT_ENDS, MARKS, SymbolTable, read_text, split_sentences


@pytest.fixture
def espeak() -> None:
    for package in ("phonemizer", "espeakng_loader"):
        pytest.importorskip(package, reason="the front end 'phonemes' needs phonemizer and espeakng_loader")


@pytest.fixture
def numbers() -> None:
    pytest.importorskip("num2words", reason="the front end 'characters' needs num2words")


def phones(text: str, language: str = "en") -> str:
    return " ".join(read_text(text, language, "phonemes"))


def letters(text: str, language: str = "en") -> str:
    return "".join(read_text(text, language, "characters"))


# ---- phonemes --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize(
    "language, text, said",
    [
        ("en", "Hello, world!", "h ə l ˈoʊ , w ˈɜː l d !"),
        ("en-GB", "bath", "b ˈa θ"),
        ("de", "Guten Tag.", "ɡ ˈuː t ə n t ˈɑː k ."),
        ("is", "Góðan daginn", "ɡ ˈoʊː ð a n d ˈaː j ɪ n"),
        ("zh", "你好，世界！", "n i2 χ ˈɑu2 , s. ˈi.5 tɕ ˈiɛ5 !"),  # periods within symbols: retroflex, to espeak
        ("es", "¿Cómo estás? ¡Bien!", "k ˈo m o e s t ˈa s ? b j ˈe n !"),
        ("fr", "Aujourd’hui ; l'été", "o ʒ u ʁ d y ˈi ; l e t ˈe"),
        ("pt", "Olá: bem", "o l ˈa : b ˈeɪ ŋ"),
        ("sv-SE", "Hej då", "h ˈɛ j d oː"),
        ("hi", "नमस्ते।", "n ə m ˈʌ s t eː ."),
    ],
)
def test_phones(language: str, text: str, said: str) -> None:
    assert phones(text, language) == said


@pytest.mark.usefixtures("espeak")
def test_words_of_another_language_leave_no_flags() -> None:
    assert phones("le football", "fr").endswith("f ˈʊ t b ɔː l")
    assert phones("USA", "zh") == "j ˌuː ˌɛ s ˈeɪ"


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize(
    "written, said",
    [
        ("Mr. and Mrs. Lee vs. Dr. No, etc.", "mister and missus Lee versus doctor No, et cetera."),
        ("St. Paul, Main St.", "saint Paul, Main street."),
        ("No. 5 it is. No. I won't.", "number 5 it is. No. I won't."),
        ("Apples etc. We left, e.g. here.", "Apples et cetera. We left, for example here."),
        ("$5.50, £1, €3 million, 21€ and US$2", "5.50 dollars, 1 pound, 3 million euros, 21 euros and US 2 dollars"),
        ("1,234,567 and 50% & 10\u00a0000", "1234567 and 50 percent and 10000"),
        ("Wait... what?! — yes -- (no) - “so”…", "Wait. what? yes, no, so."),
        ("'Tis the dogs' ‘bone’: don’t", "tis the dogs bone: don't"),
        ("From 3–4, ﬁve-fold co\u00adop 🙂 *x*", "From 3 4, five-fold coop x"),
        ("IT WAS ALL OF US I SAW", "it was all of us I saw"),  # as LibriSpeech is written
    ],
)
def test_what_is_spelled_out(written: str, said: str) -> None:
    assert phones(written) == phones(said)


@pytest.mark.usefixtures("espeak")
def test_periods_that_end_no_sentence() -> None:
    for language, text in [
        ("en", "J. R. R. Tolkien of the U.S. Army at 5 p.m. and 3.5 on example.com"),
        ("de", "Dr. Bach kommt z.B. um 9"),
        ("is", "17. júní"),
    ]:
        assert not set(phones(text, language).split()) & set(MARKS)
    assert phones("in the U.S.").endswith("ˈɛ s .")
    assert phones("1.234,5", "de") == phones("1234,5", "de") and phones("1,234.5") == phones("1234.5")


@pytest.mark.usefixtures("espeak")
@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "Cc", "Cf"], max_codepoint=0x24FF), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        symbols = read_text(text, "en", "phonemes")
    except ValueError as error:
        assert "nothing to say" in str(error)
        return
    assert symbols[0] not in MARKS
    for symbol, following in zip(symbols, [*symbols[1:], ""], strict=True):
        assert symbol and not set(symbol) & set(" _()\n") and not (symbol in MARKS and following and following in MARKS)


# ---- characters ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize(
    "language, text, said",
    [
        ("en", "Hello, World! Don't (ever) 'stop'...", "hello,world!don'teverstop."),
        ("en", "The 1st of 21, at -5.5", "thefirstoftwentyone,atminusfivepointfive"),
        ("en", "Mr. Lee paid $1,000.", "misterleepaidonethousanddollars."),
        ("de", "Über 1.984 Mäuse; 5,5 Äpfel", "übereintausendneunhundertvierundachtzigmäuse;fünfkommafünfäpfel"),
        ("is", "Þá 17. júní", "þásautjánjúní"),
        ("fr", "L’été: 21?", "l'été:vingtetun?"),
        ("vi", "Xin chào 3,14", "xinchàobaphẩymườibốn"),  # where num2words takes no strings
    ],
)
def test_letters(language: str, text: str, said: str) -> None:
    assert letters(text, language) == unicodedata.normalize("NFC", said)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("espeak", "numbers")
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_what_cannot_be_read(front_end: str) -> None:
    for text in ("", " \n", "...", "!?", "% — $", "🙂"):
        with pytest.raises(ValueError, match="nothing to say in"):
            read_text(text, "en", front_end)
    with pytest.raises(ValueError, match=r"'xx', but en, de, es"):
        read_text("hello", "xx", front_end)
    with pytest.raises(ValueError, match="one of phonemes, characters, not 'letters'"):
        read_text("hello", "en", "letters")


@pytest.mark.usefixtures("espeak", "numbers")
def test_what_the_packages_do_not_know() -> None:
    with pytest.raises(ValueError, match="no Chinese characters in 'ja'"):  # it would say "Chinese letter"
        phones("東京", "ja")
    with pytest.raises(ValueError, match=r"no words for 1000.* in 'es'"):
        letters("1" + 99 * "0", "es")


# ---- long texts ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="at least 1 character, not 0"):
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


# ---- ids -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.text(max_size=3), max_size=8), max_size=5))
def test_symbols_there_and_back(texts: list[list[str]]) -> None:
    table = SymbolTable.of(texts)
    assert list(table.symbols) == sorted({s for text in texts for s in text}) and len(table) == len(table.symbols)
    for text in texts:
        assert table.decode(table.encode(text)) == text


def test_symbols_that_are_not_in_the_table() -> None:
    table = SymbolTable(["a", "oʊ", "ɑ", "ɪ", "ɪː", "ˈe"])
    assert table.decode(table.encode(["ˈoʊ", "ˌɪː", "ˈɑː", "ˈe", "ˌe"])) == ["oʊ", "ɪː", "ɑ", "ˈe", "ˈe"]
    english = SymbolTable(["k", "l", "ɑː", "ˈɑː"])
    assert english.decode(english.encode(["x", "ɬ", "ˌɑ̃"])) == ["k", "l", "ɑː"], "loch, Llanelli, croissant"
    assert table.decode(table.encode(["a", "?", "a"])) == ["a", "a"], "a mark is not spoken"
    with pytest.raises(ValueError, match=r"not trained on 'o', 'ˈu':"):  # each is named once
        table.encode(["a", "o", "ˈu", "o"])
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=f"id {wrong} is none of 6"):
            table.decode([0, wrong])
    with pytest.raises(ValueError, match="each symbol once"):
        SymbolTable(["a", "b", "a"])
