"""Reading and writing manifests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vocable.corpus.manifest import (
    Utterance,
    groups_by_duration,
    read_manifest,
    read_manifests,
    write_manifest,
)


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = [
        {"id": 1, "path": "a/b.wav", "duration": 2, "speaker": None, "extra": "ignored"},
        {"id": "x", "path": "/c.wav", "duration": 0.5, "speaker": "s", "text": "HI", "corpus": "c", "language": "is"},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    first, second = read_manifest(path)
    assert first == Utterance("1", tmp_path / "a/b.wav", 2.0)
    assert second == Utterance("x", Path("/c.wav"), 0.5, "s", "HI", "c", "is")


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


GOOD = {"id": "a", "path": "a.wav", "duration": 1}


def written(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_numbers_are_read_as_text(tmp_path: Path) -> None:
    rows = [GOOD | {"id": i, "speaker": i // 2, "text": 5, "corpus": 1.5, "language": ""} for i in range(4)]
    utterances = read_manifest(written(tmp_path / "m.jsonl", *rows))
    assert [u.speaker_key for u in utterances] == ["0", "0", "1", "1"]
    assert (utterances[0].text, utterances[0].corpus, utterances[0].language) == ("5", "1.5", None)


@pytest.mark.parametrize("field", ["id", "path", "duration", "speaker", "text", "corpus", "language"])
@pytest.mark.parametrize("value", [["x"], {"x": 1}, True], ids=["list", "object", "bool"])
def test_a_field_of_the_wrong_type_is_named(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f'line 2: "{field}" is '):
        read_manifest(written(tmp_path / "m.jsonl", GOOD, GOOD | {"id": "b"} | {field: value}))


def test_files_that_are_not_manifests_give_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    nemo = json.dumps({"audio_filepath": "a.wav", "duration": 1, "text": "hi"}).encode()
    deep = json.dumps(GOOD).encode()[:-1] + b', "unread": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for content, message in (
        (nemo, 'line 1: no "id"; each line is a JSON object with "id", "path" and "duration"'),
        (b"a.wav\nb.wav", "line 1: not JSON"),
        (deep, "line 1: JSON that is nested too deep"),
        ("café".encode("latin-1"), "not UTF-8"),
        (json.dumps(GOOD).encode("utf-16"), "not UTF-8"),
        (b'{"id": null, "path": "a", "duration": 1}', 'no "id"'),
        (b'{"id": "a", "path": "", "duration": 1}', "\"path\" is '', not text"),
        (b'{"id": "a", "path": "a", "duration": ' + b"9" * 400 + b"}", "not a number"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError) as raised:
            read_manifest(path)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")  # as PowerShell writes it
    assert [u.id for u in read_manifest(path)] == ["a"]


def test_audio_on_another_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def relpath(path: object, start: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", relpath)
    utterances = [Utterance("a", tmp_path / "a.wav", 1.0)]
    write_manifest(tmp_path / "m.jsonl", utterances)
    monkeypatch.undo()
    assert [u.path.resolve() for u in read_manifest(tmp_path / "m.jsonl")] == [u.path.resolve() for u in utterances]


def test_several_manifests_are_read_as_one(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(str(tmp_path / name / "m.jsonl"))
        write_manifest(paths[-1], [Utterance(f"{name}{i}", tmp_path / name / f"{i}.wav", 1.0) for i in range(2)])
    one, two = (read_manifest(path) for path in paths)
    assert read_manifests(paths) == read_manifests(tuple(paths)) == one + two
    assert read_manifests(paths[0]) == read_manifests([paths[0]]) == one
    with pytest.raises(ValueError, match=r"the id 'one0' occurs in two of .*one/m.jsonl, .*two/m.jsonl"):
        read_manifests([*paths, paths[0]])
    with pytest.raises(ValueError, match="no such manifest"):
        read_manifests([*paths, str(tmp_path / "absent.jsonl")])


def test_a_written_manifest_reads_back(tmp_path: Path) -> None:
    utterances = [
        Utterance("a", tmp_path / "deep" / "a.wav", 1 / 3, "s", "þetta\n语\u2028", "c", "is"),
        Utterance("b", Path("/elsewhere/b.wav"), 2.0),
        Utterance("not \udce9 UTF-8", tmp_path / "not \udce9 UTF-8.wav", 2.0),
    ]
    path = tmp_path / "new" / "m.jsonl"
    write_manifest(path, utterances)
    assert "þetta" in path.read_text(encoding="utf-8") and "speaker" not in path.read_text().splitlines()[-1]
    back = read_manifest(path)
    assert [replace(u, path=u.path.resolve()) for u in back] == utterances
    assert str(tmp_path) not in path.read_text()
    write_manifest(tmp_path / "m.jsonl", back)  # and from another folder
    assert [u.path.resolve() for u in read_manifest(tmp_path / "m.jsonl")] == [u.path for u in utterances]


def test_a_manifest_that_would_not_read_back_is_not_written(tmp_path: Path) -> None:
    utterance = Utterance("a", tmp_path / "a.wav", 1.0)
    with pytest.raises(ValueError, match="'a' occurs twice"):
        write_manifest(tmp_path / "m.jsonl", [utterance, utterance])
    with pytest.raises(ValueError, match="no utterances"):
        write_manifest(tmp_path / "m.jsonl", [])
    assert not list(tmp_path.iterdir())


def test_groups() -> None:
    utterances = [Utterance(str(i), Path("x"), 1.0 + i % 3) for i in range(20)]
    groups = groups_by_duration(utterances, 5.0)
    assert [u for group in groups for u in group] == utterances
    assert all(sum(u.duration for u in group) >= 5.0 for group in groups[:-1])
    assert groups_by_duration([], 5.0) == []
