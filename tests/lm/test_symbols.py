"""Symbol tables: ids of symbols, and substitutes of symbols that a table does not have."""

# ruff: noqa: RUF001

from __future__ import annotations

import ctypes
import importlib
import json
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from vocable.lm import symbols as symbols_module
from vocable.lm.front_ends import read_text
from vocable.lm.symbols import SymbolTable


@pytest.fixture
def espeak() -> None:
    for package in ("phonemizer", "espeakng_loader"):
        pytest.importorskip(package, reason="the front end 'phonemes' needs phonemizer and espeakng_loader")


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
    with pytest.raises(ValueError, match="hold strings"):
        SymbolTable([5])  # type: ignore[list-item]
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=f"id {wrong} is not in the table of 6"):
            table.decode([0, wrong])
    with pytest.raises(ValueError, match="each symbol once"):
        SymbolTable(["a", "b", "a"])


def test_a_table_keeps_a_bounded_number_of_substitutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols_module, "MOST_SUBSTITUTES", 4)
    table = SymbolTable(["a", "ɪ"])
    for tone in range(40):
        assert table.substitute(f"a{tone}") == "a" and len(table._substitutes) < 4


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
    silent = {phone for phone in phones if table.substitute(phone) is None}
    assert not any(unicodedata.category(c) in ("Ll", "Lo") for phone in silent for c in phone), silent
    substitutes = {
        "x": "k",
        "ɬ": "l",
        "o": "oʊ",
        "e": "eɪ",
        "ʁ": "r",
        "ɲ": "n",
        "yː": "i",
        "ææ": "æ",
        "ɯ": "uː",
        "əʊ": "oʊ",
    }
    assert {phone: table.substitute(phone) for phone in substitutes} == substitutes


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize("text", ["J. R. R. Tolkien", "Whaaat", "Aaah", "Llanelli", "Loch Ness", "नमस्ते", "한국"])
def test_no_text_is_refused_for_a_phone(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SymbolTable(ENGLISH).encode(read_text(text, "en", "phonemes"))


def test_what_has_no_sound_is_left_out_with_a_warning() -> None:
    table = SymbolTable(["a", "b", "."])
    with pytest.warns(UserWarning, match="no symbol similar to 'ж', '中': left out"):
        assert table.encode(["a", "ж", "中", "é", "ж", "."]) == [0, 0, 2]
    with pytest.raises(ValueError, match="no symbol similar to 'ж'"):
        table.encode(["ж", "."])
    assert SymbolTable(["c", "s"]).encode(["ç"]) == [0]
