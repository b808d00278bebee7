"""A Hugging Face dataset as FLAC files and a manifest. It is read as a stream, so the original is not kept as well.

    FOLDER/manifest.jsonl                  written at the end
    FOLDER/audio/00000/00000000.flac ...   row 0 and so on, 1,000 to a folder
    FOLDER/parts/00000.json                what became of those rows, and where the stream stood behind them

A part is the atomic unit: an interrupted run goes on behind the last one. The datasets library hands over files, not
samples: its own decoder needs FFmpeg and a package tied to the version of torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance, parse_json, write_manifest
from vocable.corpus.parallel import in_threads
from vocable.corpus.prepare import with_unique_ids
from vocable.extras import need
from vocable.files import atomic_path
from vocable.lock import one_at_a_time

#: Rows in a part: a kill loses at most the work on these.
PART_ROWS = 1000

DAMAGED = "damaged; delete it and run the same command again"

#: The highest sample rate of FLAC.
MOST_HZ = 655_350

#: What fsspec may unpack on the way to a recording.
ARCHIVES = ("zip", "tar", "gzip", "bz2", "xz", "zstd", "lz4")

#: Columns looked for where none is named, the first of them that the dataset has.
USUAL_COLUMNS = {
    "audio": ("audio", "flac", "wav", "mp3"),
    "text": ("text", "sentence", "transcript", "transcription", "text_normalized", "normalized_text"),
    "speaker": ("speaker_id", "speaker", "client_id"),
    "id": ("id", "audio_id", "segment_id"),
}


def huggingface(
    name: str,
    out: str | os.PathLike[str],
    *,
    split: str,
    config: str | None = None,
    columns: dict[str, str] | None = None,
    language: str | None = None,
    sample_rate: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Utterance], list[str]]:
    """Write a split of a dataset, by hub id or local folder, to the folder `out`; rows that stand already are kept.

    `columns` names the columns for "audio", "text", "speaker" and "id" where they are not the usual ones. FLAC is
    written at `sample_rate` in Hz, or each recording's own. Returns the manifest's utterances and, for each row that
    could not be read, why. `progress` is called after each row.
    """
    datasets = need("datasets", "hub")
    out = Path(out)
    plan: dict[str, Any] = {"name": name, "config": config, "split": split, "columns": columns or {}}
    plan |= {"language": language, "sample_rate": sample_rate}
    try:
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
    except (RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{name}: {error}") from error
    stream = (stream.decode(False) if stream.features else stream).with_format("arrow")
    with closing(iter(stream)) as tables:  # a wrong option is said before anything is written
        first = next(tables, None)
        names = {} if first is None else _choose_columns(first.to_pylist()[0], columns or {})
    convert = partial(
        _convert,
        names=names,
        known={"corpus": Path(name).name if Path(name).exists() else name, "language": language},
        source=name,
        out=out,
        sample_rate=sample_rate,
    )
    with one_at_a_time(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each recording of several channels
        if (out / "plan.json").exists() and _read_json(out / "plan.json") != plan:
            raise ValueError(f"{out} was begun from another dataset or with other options; choose another folder")
        with atomic_path(out / "plan.json") as temporary:
            temporary.write_text(json.dumps(plan), encoding="utf-8")
        parts: list[dict[str, Any]] = []
        while (path := _part(out, len(parts))).is_file():
            parts.append(_read_part(path))
            for _ in parts[-1]["rows"]:
                progress()
        if parts:
            stream.load_state_dict(parts[-1]["state"])
        with closing(iter(stream)) as tables:
            rows = enumerate(tables, PART_ROWS * len(parts))
            while not parts or len(parts[-1]["rows"]) == PART_ROWS:
                done: list[dict[str, Any] | str] = []
                for row in in_threads(convert, islice(rows, PART_ROWS)):
                    done.append(row)
                    progress()
                parts.append({"rows": done, "state": stream.state_dict()})
                with atomic_path(_part(out, len(parts) - 1)) as temporary:
                    temporary.write_text(json.dumps(parts[-1]), encoding="utf-8")
        results = list(chain.from_iterable(part["rows"] for part in parts))
        unreadable = [row for row in results if isinstance(row, str)]
        if unreadable and len(unreadable) == len(results):
            raise ValueError(f"{name}: not one row could be read; {unreadable[0]}")
        utterances = [Utterance(**row | {"path": out / row["path"]}) for row in results if isinstance(row, dict)]
        utterances = with_unique_ids(utterances, out)
        write_manifest(out / "manifest.jsonl", utterances)
    return utterances, unreadable


def _part(out: Path, number: int) -> Path:
    return out / "parts" / f"{number:05d}.json"


def _read_part(path: Path) -> dict[str, Any]:
    part = _read_json(path)
    lines = part.get("rows")
    lines = [row for row in lines if not isinstance(row, str)] if isinstance(lines, list) else [None]
    fields = {field.name for field in dataclasses.fields(Utterance)}
    if "state" not in part or not all(isinstance(row, dict) and row.keys() <= fields for row in lines):
        raise ValueError(f"{path}: {DAMAGED}")
    return part


def _read_json(path: Path) -> dict[str, Any]:
    """One of this module's own files. Raises ValueError for one that is damaged."""
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {DAMAGED}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {DAMAGED}")
    return content


def _convert(
    numbered: tuple[int, Any],
    names: dict[str, str],
    known: dict[str, Any],
    source: str,
    out: Path,
    sample_rate: int | None,
) -> dict[str, Any] | str:
    """Write the FLAC of a row, an Arrow table of one; returns its line of the manifest, or why there is none."""
    number, table = numbered
    [row] = table.to_pylist()
    relative = Path("audio", f"{number // PART_ROWS:05d}", f"{number:08d}.flac")
    try:
        waveform, rate = _read(row[names["audio"]], source, sample_rate)
        if rate > MOST_HZ:
            raise ValueError(f"{rate} Hz are more than FLAC can have: give a --sample-rate")
        audio.write(out / relative, waveform, rate)
    except ValueError as error:  # and not OSError: a full disk or a lost connection concerns all rows
        return f"row {number}: {error}"
    except MemoryError:
        return f"row {number}: too long for the memory of this machine"
    fields = {f: str(row[c]) for f, c in names.items() if f != "audio" and row[c] not in (None, "")}
    written = {"path": relative.as_posix(), "duration": round(len(waveform) / rate, 6)}
    return {"id": relative.stem} | fields | known | written


def _read(value: dict[str, Any] | None, source: str, sample_rate: int | None) -> tuple[np.ndarray, int]:
    """The recording in a cell, {"bytes", "path"}, where bytes are missing if the file lies elsewhere."""
    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content is None and path is None:
        raise ValueError("holds no audio")
    if content is None:
        content = _fetch(str(path), source)
    with tempfile.TemporaryDirectory() as folder:
        # libsndfile goes by a file's content, and where that does not say by its suffix.
        copy = Path(folder, "audio").with_suffix(Path(path or "").suffix[:9])
        copy.write_bytes(content)
        try:
            return audio.read(copy, sample_rate)
        except audio.AudioError as error:
            raise ValueError(str(error).replace(str(copy), path or "audio")) from error


def _fetch(path: str, source: str) -> bytes:
    """The file that a row names. Raises ValueError for one that is not there, or outside of the dataset, and OSError
    for what concerns all rows."""
    import fsspec

    if not _inside(path, source):
        raise ValueError(f"{path}: lies outside of the dataset")
    try:
        with fsspec.open(path, "rb") as file:
            content: bytes = file.read()
            return content
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: not readable ({error or type(error).__name__})") from error
    except OSError as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (404, 410):
            raise ValueError(f"{path}: not on the hub any more") from error
        raise


def _inside(path: str, source: str) -> bool:
    """Whether what a row names lies below a local dataset's folder or, for a dataset of the hub, on the hub: a row must
    not have any file of this machine copied, or a host of its network asked."""
    from fsspec.core import url_to_fs
    from fsspec.utils import get_protocol

    *archives, base = path.split("::")  # "zip://a.flac::/folder/b.zip" lies where its last part does
    if not all(get_protocol(archive) in ARCHIVES for archive in archives):
        return False
    if not Path(source).exists():
        return bool(get_protocol(base) == "hf")
    # Links are not followed: the hub's cache is made of them.
    return get_protocol(base) in ("file", "local") and Path(os.path.normpath(url_to_fs(base)[1])).is_relative_to(
        os.path.abspath(source)  # noqa: PTH100  (without "..", which Path.absolute keeps)
    )


def _choose_columns(row: dict[str, Any], named: dict[str, str]) -> dict[str, str]:
    """Which column holds which field: the one named, or the first usual one that is there."""
    names = {}
    for field, usual in USUAL_COLUMNS.items():
        column = named.get(field) or next((c for c in usual if c in row), None)
        if column in row:
            names[field] = column
        elif column is not None or field == "audio":
            raise ValueError(f"no column {column or 'audio'!r}: name one for {field} among {', '.join(row)}")
    if not isinstance(row[names["audio"]], dict | None):
        raise ValueError(f"column {names['audio']!r} holds no audio files; name one that does among {', '.join(row)}")
    return names
