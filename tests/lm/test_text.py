"""Symbols of texts in several languages, sentences of long texts, and ids of symbols."""

# ruff: noqa: RUF001

from __future__ import annotations

import ctypes
import importlib
import json
import time
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from vocable.lm.normalization import MARKS, normalize, split_sentences
from vocable.lm.text import FRONT_ENDS, SymbolTable, _espeak, read_text


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
        (
            "$5.50, £1, €3 million, 21€ and US$2",
            "5 dollars and 50 cents, 1 pound, 3 million euros, 21 euros and US 2 dollars",
        ),
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


@pytest.mark.usefixtures("espeak", "numbers")
def test_fractions_and_powers_keep_their_meaning_in_other_languages() -> None:
    assert phones("1½", "de").replace(" ", "") == "ˈaɪnsˈaɪnhˈalp" and phones("±5", "de") == phones(
        "plus minus fünf", "de"
    )
    assert phones("10²", "de") == phones("zehn zwei", "de") != phones("102", "de")
    assert letters("1½", "de") == "einskommafünf" and letters("10²", "de") == "zehnzwei"
    assert phones("1º", "es") == "p ɾ i m ˈɛ ɾ o" and letters("1º", "es") == "primero"


def test_the_day_comes_first_but_in_the_united_states() -> None:
    assert normalize("5/1/2024", "en-gb") == "January 5th 20 24" and normalize("5/1/2024", "en-us") == "May 1st 20 24"


def test_short_forms_end_sentences_before_words_that_begin_one() -> None:
    for sentences in (
        ["She lives at 123 Main St.", "He lives in Paris."],
        ["It is 9 a.m.", "The doctor has a Ph.D.", "She works at Apple Inc.", "They moved to the U.S.", "I did not."],
        ["The U.S. Army met Dr. Smith of Wall St. Journal at 5 p.m. sharp."],
        ["Plan B.", "The end of J. R. R. Tolkien."],
    ):
        assert split_sentences(" ".join(sentences), 100) == sentences


@pytest.mark.parametrize(
    "text",
    ["1", "1 ", "$1", "[a](", "<a ", "a.", "1/", "A ", "1²", "&amp;", "St. ", "A-", "\n", "1:00", "."],
)
def test_long_texts_of_one_thing_take_no_time(text: str) -> None:
    begin = time.process_time()
    normalize(10_000 * text + "Dr.", "en")
    split_sentences(10_000 * text + "Dr.", 200)
    assert time.process_time() - begin < 2


@pytest.mark.usefixtures("espeak")
@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "Cc", "Cf"], max_codepoint=0x24FF), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        symbols = read_text(text, "en", "phonemes")
    except ValueError as error:
        assert "nothing to say" in str(error) or "espeak-ng reads no" in str(error)
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
    for text, language, script in (  # it would say "Chinese letter"
        ("東京", "ja", "Chinese"),
        ("Привет", "en", "Cyrillic"),
        ("مرحبا", "de", "Arabic"),
        ("שלום", "en", "Hebrew"),
        ("こんにちは", "en", "Japanese"),
        ("สวัสดี", "en", "Thai"),
    ):
        with pytest.raises(ValueError, match=f"no {script} characters in '{language}'"):
            phones(text, language)
    assert phones("Привет", "ru") and phones("مرحبا", "ar")
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
    with pytest.raises(ValueError, match="holds strings"):
        SymbolTable([5])  # type: ignore[list-item]
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=f"id {wrong} is none of 6"):
            table.decode([0, wrong])
    with pytest.raises(ValueError, match="each symbol once"):
        SymbolTable(["a", "b", "a"])


ENGLISH = json.loads((ROOT / "models" / "uslm" / "config.json").read_text(encoding="utf-8"))["symbols"]


def all_phones() -> set[str]:
    """All that espeak-ng writes for the phonemes of all its tables, in all its voices."""
    loader, api = (importlib.import_module(m) for m in ("espeakng_loader", "phonemizer.backend.espeak.wrapper"))
    espeak = type("Apart", (api.EspeakWrapper,), {})
    espeak.set_library(loader.get_library_path())
    espeak.set_data_path(loader.get_data_path())
    library = espeak()
    table = Path(loader.get_data_path(), "phontab").read_bytes()
    phonemes, place = set(), 4
    for _ in range(table[0]):  # a header of 36 bytes, entries of 16 that begin with a name of up to four characters
        count, place = table[place], place + 36
        for _ in range(count):
            phonemes.add(table[place : place + 4].rstrip(b"\0").decode("latin-1"))
            place += 16
    library.set_voice("en-us")
    synthesize = library._espeak._library.espeak_Synth
    synthesize(b"a", ctypes.c_size_t(2), 0, 1, 0, 1 | 0x100, None, None)  # from now on [[...]] are phonemes
    found = set()
    for voice in {v.language for v in library.available_voices() if not v.identifier.startswith("mb")}:
        library.set_voice(voice)
        for phoneme in phonemes:
            found |= set(library.text_to_phonemes(f"[[{phoneme}]]").replace("_", " ").split())
    return found


@pytest.mark.usefixtures("espeak")
def test_every_phone_of_espeak_has_a_symbol_in_an_english_model() -> None:
    table, phones = SymbolTable(ENGLISH), all_phones()
    assert len(phones) > 400
    silent = {phone for phone in phones if table.known(phone) is None}
    assert not any(unicodedata.category(c) in ("Ll", "Lo") for phone in silent for c in phone), silent
    heard = {"x": "k", "ɬ": "l", "o": "oʊ", "e": "eɪ", "ʁ": "r", "ɲ": "n", "yː": "i", "ææ": "æ", "ɯ": "uː", "əʊ": "oʊ"}
    assert {phone: table.known(phone) for phone in heard} == heard


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize("text", ["J. R. R. Tolkien", "Whaaat", "Aaah", "Llanelli", "Loch Ness", "नमस्ते", "한국"])
def test_no_text_is_refused_for_a_phone(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SymbolTable(ENGLISH).encode(read_text(text, "en", "phonemes"))


def test_what_has_no_sound_is_left_out_with_a_warning() -> None:
    table = SymbolTable(["a", "b", "."])
    with pytest.warns(UserWarning, match="nothing like 'ж', '中': left out"):
        assert table.encode(["a", "ж", "中", "é", "ж", "."]) == [0, 0, 2]
    with pytest.raises(ValueError, match="nothing like 'ж'"):
        table.encode(["ж", "."])
    assert SymbolTable(["c", "s"]).encode(["ç"]) == [0]


# ---- threads and languages -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("espeak", "numbers")
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_eight_threads_read_what_one_does(front_end: str) -> None:
    texts = [("Somebody left the gate open, 3.25 times, all night.", "en"), ("Guten Tag, 2,5 Mäuse!", "de")]
    texts += [("The committee meets on the 1st Monday.", "en"), ("L’été dure 1,125 jours.", "fr")]
    wanted = [read_text(*text, front_end) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: read_text(*texts[i % 4], front_end), range(400)))
    assert found == [wanted[i % 4] for i in range(400)]


@pytest.mark.usefixtures("espeak")
def test_all_languages_share_one_copy_of_espeak_and_others_keep_theirs() -> None:
    wrapper = importlib.import_module("phonemizer.backend.espeak.wrapper").EspeakWrapper
    before = wrapper._ESPEAK_LIBRARY, wrapper._ESPEAK_DATA_PATH
    _espeak.cache_clear()
    for language in ("en", "en-a1", "en-a2", "de", "en"):
        assert phones("Hallo", language)
    assert _espeak.cache_info().currsize == 1
    assert before == (wrapper._ESPEAK_LIBRARY, wrapper._ESPEAK_DATA_PATH)
