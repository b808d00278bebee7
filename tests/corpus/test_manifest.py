from __future__ import annotations

import json
from pathlib import Path

import pytest

from vocable.corpus.manifest import Utterance, groups_by_duration, read_manifest


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = [
        {"id": 1, "path": "a/b.wav", "duration": 2, "speaker": None, "extra": "ignored"},
        {"id": "x", "path": "/c.wav", "duration": 0.5, "speaker": "s", "text": "HELLO", "corpus": "c"},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    first, second = read_manifest(path)
    assert first == Utterance("1", tmp_path / "a/b.wav", 2.0)
    assert second == Utterance("x", Path("/c.wav"), 0.5, "s", "HELLO", "c")


def test_bad_lines_are_named(tmp_path: Path) -> None:
    good = '{"id": "a", "path": "a.wav", "duration": 1}'
    for bad in ("{", "[]", "3", '{"id": "b"}', '{"id": "b", "path": "b", "duration": "long"}', good):
        path = tmp_path / "m.jsonl"
        path.write_text(f"{good}\n{bad}\n")
        with pytest.raises(ValueError, match="line 2"):
            read_manifest(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        read_manifest(path)
    with pytest.raises(ValueError, match="no such manifest"):
        read_manifest(tmp_path / "absent.jsonl")


def test_groups() -> None:
    utterances = [Utterance(str(i), Path("x"), 1.0 + i % 3) for i in range(20)]
    groups = groups_by_duration(utterances, 5.0)
    assert [u for group in groups for u in group] == utterances
    assert all(sum(u.duration for u in group) >= 5.0 for group in groups[:-1])
    assert groups_by_duration([], 5.0) == []
