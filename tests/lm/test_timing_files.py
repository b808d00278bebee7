"""Files of word times, read back by other programs' readers where there are any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vocable.lm.generated import Symbol, Word
from vocable.lm.timing_files import check_suffix, write_timings

WORDS = [
    Word("The", 0.1, 0.3),
    Word('"R&B"', 0.3, 0.8),
    Word("<one>.", 0.9, 1.2),
    Word("Then", 1.5, 1.8),
    Word("more", 3661.5, 3662.0),
]
SYMBOLS = [Symbol("ð", 0.1, 0.2), Symbol("ə", 0.2, 0.3)]


def written(suffix: str, tmp_path: Path) -> str:
    path = tmp_path / f"times.{suffix}"
    write_timings(path, WORDS, SYMBOLS, 3663.0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8")


def test_subtitles(tmp_path: Path) -> None:
    assert written("srt", tmp_path) == (
        '1\n00:00:00,100 --> 00:00:01,200\nThe "R&B" <one>.\n\n'
        "2\n00:00:01,500 --> 00:00:01,800\nThen\n\n"
        "3\n01:01:01,500 --> 01:01:02,000\nmore\n"
    )


def test_webvtt_has_the_time_of_each_word(tmp_path: Path) -> None:
    first = written("vtt", tmp_path).split("\n\n")[:2]
    assert first == [
        "WEBVTT",
        '00:00:00.100 --> 00:00:01.200\nThe <00:00:00.300>"R&amp;B" <00:00:00.900>&lt;one&gt;.',
    ]


def test_long_sentences_are_several_subtitles(tmp_path: Path) -> None:
    words = [Word(f"word{i}", i / 2, i / 2 + 0.4) for i in range(40)]
    write_timings(tmp_path / "a.srt", words, [], 20.0)
    lines = [cue.split("\n")[2] for cue in (tmp_path / "a.srt").read_text().strip().split("\n\n")]
    assert " ".join(lines).split() == [word.text for word in words]
    assert len(lines) > 1 and all(40 < len(line) <= 80 for line in lines[:-1])


def test_json(tmp_path: Path) -> None:
    content = json.loads(written("json", tmp_path))
    assert content["duration"] == 3663.0 and content["words"][0] == {"text": "The", "start": 0.1, "end": 0.3}
    assert [symbol["text"] for symbol in content["symbols"]] == ["ð", "ə"]


def test_praat_reads_the_text_grid(tmp_path: Path) -> None:
    textgrid = pytest.importorskip("textgrid", reason="reads TextGrid files")
    written("TextGrid", tmp_path)
    words, symbols = textgrid.TextGrid.fromFile(str(tmp_path / "times.TextGrid"))
    assert (words.name, symbols.name, words.maxTime) == ("words", "symbols", 3663.0)
    assert [(i.minTime, i.maxTime, i.mark) for i in words if i.mark] == [(w.start, w.end, w.text) for w in WORDS]
    assert [(i.minTime, i.maxTime, i.mark) for i in symbols][-1] == (0.3, 3663.0, "")


def test_other_suffixes(tmp_path: Path) -> None:
    for name in ("a.txt", "a", "a.json.gz"):
        with pytest.raises(ValueError, match=r"\.srt, \.vtt, \.json or \.TextGrid"):
            check_suffix(tmp_path / name)
        with pytest.raises(ValueError, match="name the file"):
            write_timings(tmp_path / name, WORDS, SYMBOLS, 1.0)
