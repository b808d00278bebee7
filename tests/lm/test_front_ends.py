"""Front ends: the symbols of texts in several languages."""

# ruff: noqa: RUF001

from __future__ import annotations

import importlib
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocable.lm.front_ends import FRONT_ENDS, _espeak, read_text
from vocable.lm.punctuation import MARKS


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


@pytest.mark.usefixtures("espeak", "numbers")
def test_fractions_and_powers_keep_their_meaning_in_other_languages() -> None:
    assert phones("1½", "de").replace(" ", "") == "ˈaɪnsˈaɪnhˈalp" and phones("±5", "de") == phones(
        "plus minus fünf", "de"
    )
    assert phones("10²", "de") == phones("zehn zwei", "de") != phones("102", "de")
    assert letters("1½", "de") == "einskommafünf" and letters("10²", "de") == "zehnzwei"
    assert phones("1º", "es") == "p ɾ i m ˈɛ ɾ o" and letters("1º", "es") == "primero"


@pytest.mark.usefixtures("espeak")
@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "Cc", "Cf"], max_codepoint=0x24FF), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        symbols = read_text(text, "en", "phonemes")
    except ValueError as error:
        assert "nothing to say" in str(error) or "espeak-ng cannot read the" in str(error)
        return
    assert symbols[0] not in MARKS
    for symbol, following in zip(symbols, [*symbols[1:], ""], strict=True):
        assert symbol and not set(symbol) & set(" _()\n") and not (symbol in MARKS and following and following in MARKS)


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


@pytest.mark.usefixtures("espeak", "numbers")
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_what_cannot_be_read(front_end: str) -> None:
    for text in ("", " \n", "...", "!?", "% — $", "🙂"):
        with pytest.raises(ValueError, match="nothing to say in"):
            read_text(text, "en", front_end)
    with pytest.raises(ValueError, match=r"'xx'; it knows en, de, es"):
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
        with pytest.raises(ValueError, match=f"cannot read the {script} characters of .* in '{language}'"):
            phones(text, language)
    assert phones("Привет", "ru") and phones("مرحبا", "ar")
    with pytest.raises(ValueError, match=r"cannot spell out 1000.* in 'es'"):
        letters("1" + 99 * "0", "es")


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
