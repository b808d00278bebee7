"""A Hugging Face dataset as FLAC files and a manifest. It is read as a stream, so the original is not kept as well.

    FOLDER/manifest.jsonl                  written at the end
    FOLDER/audio/00000/00000000.flac ...   row 0 and so on, 1,000 to a folder
    FOLDER/parts/00000.json                what became of those rows, and where the stream stood behind them

A part is the atomic unit: an interrupted run goes on behind the last one. The datasets library hands over files, not
samples: its own decoder needs FFmpeg and a package tied to the version of torch.
"""

from __future__ import annotations

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

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance, write_manifest
from vocable.corpus.parallel import in_threads
from vocable.corpus.prepare import with_unique_ids
from vocable.extras import need
from vocable.files import atomic_path

#: Rows in a part: a kill loses at most the work on these.
PART_ROWS = 1000

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
    plan_path = out / "plan.json"
    if plan_path.exists() and json.loads(plan_path.read_text(encoding="utf-8")) != plan:
        raise ValueError(f"{out} was begun from another dataset or with other options; choose another folder")
    try:
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
    except (RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{name}: {error}") from error
    stream = (stream.decode(False) if stream.features else stream).with_format("arrow")
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "parts").glob("*.json"))]
    if parts:
        stream.load_state_dict(parts[-1]["state"])
    for _ in chain.from_iterable(part["rows"] for part in parts):
        progress()
    known = {"corpus": Path(name).name if Path(name).exists() else name, "language": language}
    with closing(iter(stream)) as tables, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each recording of several channels
        first = next(tables, None)
        names = {} if first is None else _choose_columns(first.to_pylist()[0], columns or {})
        with atomic_path(plan_path) as temporary:
            temporary.write_text(json.dumps(plan), encoding="utf-8")
        rows = enumerate(chain([] if first is None else [first], tables), PART_ROWS * len(parts))
        convert = partial(_convert, names=names, known=known, out=out, sample_rate=sample_rate)
        while not parts or len(parts[-1]["rows"]) == PART_ROWS:
            done: list[dict[str, Any] | str] = []
            for row in in_threads(convert, islice(rows, PART_ROWS)):
                done.append(row)
                progress()
            parts.append({"rows": done, "state": stream.state_dict()})
            with atomic_path(out / "parts" / f"{len(parts) - 1:05d}.json") as temporary:
                temporary.write_text(json.dumps(parts[-1]), encoding="utf-8")
    results = list(chain.from_iterable(part["rows"] for part in parts))
    unreadable = [row for row in results if isinstance(row, str)]
    if unreadable and len(unreadable) == len(results):
        raise ValueError(f"{name}: not one row could be read; {unreadable[0]}")
    utterances = [Utterance(**row | {"path": out / row["path"]}) for row in results if isinstance(row, dict)]
    utterances = with_unique_ids(utterances, out)
    write_manifest(out / "manifest.jsonl", utterances)
    return utterances, unreadable


def _convert(
    numbered: tuple[int, Any], names: dict[str, str], known: dict[str, Any], out: Path, sample_rate: int | None
) -> dict[str, Any] | str:
    """Write the FLAC of a row, an Arrow table of one; returns its line of the manifest, or why there is none."""
    number, table = numbered
    [row] = table.to_pylist()
    relative = Path("audio", f"{number // PART_ROWS:05d}", f"{number:08d}.flac")
    try:
        waveform, rate = _read(row[names["audio"]], sample_rate)
        audio.write(out / relative, waveform, rate)
    except ValueError as error:  # and not OSError: a full disk or a lost connection concerns all rows
        return f"row {number}: {error}"
    fields = {f: str(row[c]) for f, c in names.items() if f != "audio" and row[c] not in (None, "")}
    written = {"path": relative.as_posix(), "duration": round(len(waveform) / rate, 6)}
    return {"id": relative.stem} | fields | known | written


def _read(value: dict[str, Any] | None, sample_rate: int | None) -> tuple[np.ndarray, int]:
    """The recording in a cell, {"bytes", "path"}, where bytes are missing if the file lies elsewhere."""
    import fsspec

    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content is None and path is None:
        raise ValueError("holds no audio")
    if content is None:
        with fsspec.open(path, "rb") as file:
            content = file.read()
    with tempfile.TemporaryDirectory() as folder:
        # libsndfile goes by a file's content, and where that does not say by its suffix.
        copy = Path(folder, "audio").with_suffix(Path(path or "").suffix)
        copy.write_bytes(content)
        try:
            return audio.read(copy, sample_rate)
        except audio.AudioError as error:
            raise ValueError(str(error).replace(str(copy), path or "audio")) from error


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
