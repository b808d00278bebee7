"""Small local datasets, in the formats of the hub."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import SPEECH, run_command
from vocable import audio
from vocable.corpus import hub
from vocable.corpus.hub_audio import fetch, is_inside
from vocable.corpus.manifest import read_manifest
from vocable.lock import one_at_a_time

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'vocable[hub]'")

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
TABLE = pyarrow.schema(
    {
        "audio": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        **dict.fromkeys(("id", "sentence"), pyarrow.string()),
        "speaker_id": pyarrow.int64(),
    }
)

SAMPLES = audio.read(SPEECH)[0]


def encoded(number: int) -> bytes:
    """A clip of 100 + `number` ms as the bytes of a FLAC file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, SAMPLES[: 1600 + 16 * number], 16_000, format="FLAC")
    return buffer.getvalue()


def row(number: int, **changes: Any) -> dict[str, Any]:
    cell = {"bytes": encoded(number), "path": f"{number}.flac"}
    return {"audio": cell, "id": f"u{number}", "sentence": f"words {number}", "speaker_id": number % 2} | changes


def parquet(folder: Path, rows: list[dict[str, Any]], shards: int = 2) -> Path:
    folder.mkdir()
    dataset = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
    for shard in range(shards):
        name = f"train-{shard:05d}-of-{shards:05d}.parquet"
        dataset.shard(shards, shard, contiguous=True).to_parquet(folder / name)
    return folder


def huggingface(*arguments: object) -> int:
    return run_command("prepare", "huggingface", *arguments)


def test_parquet(tmp_path: Path) -> None:
    source, out = parquet(tmp_path / "set", [row(i) for i in range(5)]), tmp_path / "out"
    assert huggingface(source, "--split", "train", "-o", out, "--language", "en") == 0
    utterances = read_manifest(out / "manifest.jsonl")
    assert [(u.id, u.text, u.speaker) for u in utterances] == [(f"u{i}", f"words {i}", str(i % 2)) for i in range(5)]
    assert {(u.language, u.corpus, u.path.suffix) for u in utterances} == {("en", "set", ".flac")}
    for number, utterance in enumerate(utterances):
        samples, rate = audio.read(utterance.path)
        assert rate == 16_000 and utterance.duration == pytest.approx(len(samples) / rate, abs=1e-6)
        np.testing.assert_array_equal(samples, SAMPLES[: 1600 + 16 * number])


def test_columns_rate_and_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(i, id="same", who=None if i else "a") for i in range(4)]
    rows[1]["audio"] = {"bytes": b"no audio", "path": None}
    rows[2]["audio"] = None
    source, out = parquet(tmp_path / "set", rows), tmp_path / "out"
    options = (source, "--split", "train", "-o", out, "--sample-rate", 8000, "--speaker-column", "who")
    assert huggingface(*options, "--text-column", "id") == 2
    err = capsys.readouterr().err
    assert "row 1: audio: not readable" in err and "row 2: holds no audio" in err and "2 utterances" in err
    first, last = read_manifest(out / "manifest.jsonl")
    assert (first.speaker, first.text, last.speaker) == ("a", "same", None)
    assert first.id != last.id and soundfile.info(last.path).samplerate == 8000
    assert huggingface(*options, "--text-column", "sentence") == 2
    assert "choose another folder" in capsys.readouterr().err


def test_an_interrupted_import_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PART_ROWS", 3)
    source, out = parquet(tmp_path / "set", [row(i) for i in range(9)]), tmp_path / "out"
    seen, converted = [], []

    def stop() -> None:
        seen.append(None)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.import_dataset(str(source), out=out, split="train", progress=stop)
    assert [p.name for p in (out / "parts").iterdir()] == ["00000.json"]
    assert not (out / "manifest.jsonl").exists()
    convert = hub._convert
    monkeypatch.setattr(hub, "_convert", lambda numbered, **k: converted.append(numbered[0]) or convert(numbered, **k))
    for _ in range(2):  # a complete import does nothing when it is run again
        utterances, unreadable = hub.import_dataset(str(source), out=out, split="train")
        assert [u.id for u in utterances] == [f"u{i}" for i in range(9)] and not unreadable
        assert sorted(converted) == [3, 4, 5, 6, 7, 8]
    assert [u.id for u in read_manifest(out / "manifest.jsonl")] == [f"u{i}" for i in range(9)]


def test_audio_files_and_webdataset(tmp_path: Path) -> None:
    files, shards = tmp_path / "files", tmp_path / "shards"
    files.mkdir()
    shards.mkdir()
    lines = []
    with tarfile.open(shards / "a.tar", "w") as tar:
        for number in range(2):
            path = files / f"{number}.flac"
            path.write_bytes(encoded(number))
            lines.append(json.dumps({"file_name": path.name, "transcription": "hello"}))
            tar.add(path, path.name)
    (files / "metadata.jsonl").write_text("\n".join(lines))
    for source, text in ((files, "hello"), (shards, None)):
        out = tmp_path / f"out of {source.name}"
        assert huggingface(source, "--split", "train", "-o", out) == 0
        utterances = read_manifest(out / "manifest.jsonl")
        assert [(u.id, u.text) for u in utterances] == [("00000000", text), ("00000001", text)]


def test_one_bad_row_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bad row is reported, in the first run and in every resumed one."""
    folder = tmp_path / "set"
    high = io.BytesIO()
    soundfile.write(high, SAMPLES[:1600], 1_000_000, format="WAV")
    cells = [
        {"bytes": None, "path": str(folder / "absent.flac")},
        {"bytes": None, "path": str(folder)},
        {"bytes": None, "path": f"zip://absent.flac::{folder / 'a.zip'}"},
        {"bytes": None, "path": f"zip://0.flac::{folder / '0.flac'}"},
        {"bytes": high.getvalue(), "path": "high.wav"},
        {"bytes": b"no audio", "path": "a." + 300 * "x"},
        {"bytes": None, "path": str(folder / "0.flac")},
        {"bytes": None, "path": f"zip://in/1.flac::{folder / 'a.zip'}"},
    ]
    folder.mkdir()
    for i, cell in enumerate(cells):  # written without the library, which would look for the files
        table = pyarrow.Table.from_pylist([row(i, audio=cell)], TABLE)
        pyarrow.parquet.write_table(table, folder / f"train-{i:05d}.parquet")
    out = tmp_path / "out"
    (folder / "0.flac").write_bytes(encoded(0))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("in/1.flac", encoded(1))
    # The folder is named as a user in it would, and read again by way of a link, as the hub's cache is.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    for _ in range(2):
        utterances, unreadable = hub.import_dataset("set", out=out, split="train")
        assert [u.id for u in utterances] == ["u6", "u7"]
        assert [line.split(":")[0] for line in unreadable] == [f"row {i}" for i in range(6)]
        assert "absent.flac: not readable" in unreadable[0] and "--sample-rate" in unreadable[4]
    assert not is_inside(str(folder / "0.flac"), source="link") and is_inside("link/0.flac", source="link")


@pytest.mark.parametrize(
    "path",
    [
        "{outside}",
        "{folder}/../outside.flac",
        "file://{outside}",
        "file:{outside}",
        "~/outside.flac",
        "http://127.0.0.1:9/a.flac",
        "zip://a.flac::http://127.0.0.1:9/a.zip",
        "reference://a::{folder}/a.json",
        "simplecache::{folder}/a.flac",
        "hf://datasets/a/b/c.flac",
    ],
)
def test_rows_can_name_only_files_of_their_dataset(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "outside.flac").write_bytes(encoded(0))
    monkeypatch.chdir(folder)
    path = path.format(outside=tmp_path / "outside.flac", folder=folder)
    with pytest.raises(ValueError, match="outside of the dataset"):
        fetch(path, source=str(folder))
    assert is_inside(path, source="some/dataset") == path.startswith("hf://")


def test_a_missing_file_costs_a_row_and_a_lost_connection_ends_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def fails(path: str, mode: str) -> None:
        error = OSError("HTTP error")
        error.response = SimpleNamespace(status_code=int(path[-3:]))  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(fsspec, "open", fails)
    with pytest.raises(ValueError, match="no longer on the hub"):
        fetch("hf://datasets/a/b/404", source="a/b")
    for number in (401, 429, 503):
        with pytest.raises(OSError, match="HTTP error"):
            fetch(f"hf://datasets/a/b/{number}", source="a/b")


def test_a_second_run_and_a_damaged_part(tmp_path: Path) -> None:
    source, out = parquet(tmp_path / "set", [row(i) for i in range(3)]), tmp_path / "out"
    with one_at_a_time(out), pytest.raises(ValueError, match="another run uses this folder"):
        hub.import_dataset(str(source), out=out, split="train")
    hub.import_dataset(str(source), out=out, split="train")
    part = out / "parts" / "00000.json"
    for content in ("{", "[]", "{}", '{"rows": 5, "state": {}}', '{"rows": [{"x": 1}], "state": {}}', "[" * 100_000):
        part.write_text(content)
        with pytest.raises(ValueError, match=r"00000\.json: damaged.*: delete it"):
            hub.import_dataset(str(source), out=out, split="train")
    part.unlink()
    assert len(hub.import_dataset(str(source), out=out, split="train")[0]) == 3


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = parquet(tmp_path / "set", [row(0), row(1)])
    nothing = parquet(tmp_path / "nothing", [row(0, audio={"bytes": b"x", "path": "x"})], shards=1)
    calls = {
        (source, "--split", "dev"): "dev",
        (source, "--split", "train", "--text-column", "txt"): "no column 'txt': name one for text among audio, id",
        (source, "--split", "train", "--audio-column", "sentence"): "column 'sentence' holds no audio files",
        (tmp_path / "absent", "--split", "train"): "absent",
        (nothing, "--split", "train"): "none of its rows can be read; row 0: x: not readable",
    }
    out = tmp_path / "out"
    for call, message in calls.items():
        assert huggingface(*call, "-o", out) == 2
        err = capsys.readouterr().err
        assert message in err and "Traceback" not in err
        assert out.exists() == (nothing in call)  # a wrong option leaves nothing behind that a right one would meet
    assert not (out / "manifest.jsonl").exists()
