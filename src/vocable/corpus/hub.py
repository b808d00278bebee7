"""Import a Hugging Face dataset as FLAC files and a manifest.

    FOLDER/manifest.jsonl                  written at the end
    FOLDER/audio/00000/00000000.flac ...   row 0 and so on, 1,000 per folder
    FOLDER/parts/00000.json                the results of these rows, and the stream's position after them
    FOLDER/plan.json                       the dataset and the options

The dataset is read as a stream, so the original is not stored. A part is the atomic unit: an interrupted import is
resumed after the last complete part. The datasets library returns encoded files, not samples: its own decoder needs
FFmpeg and a package that is tied to the version of torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from vocable import audio
from vocable.corpus.hub_audio import read_cell
from vocable.corpus.manifest import Utterance, read_json_object, write_manifest
from vocable.corpus.parallel import in_threads
from vocable.corpus.prepare import with_unique_ids
from vocable.extras import need
from vocable.files import atomic_path, same_plan_or_refuse
from vocable.lock import one_at_a_time

#: Rows in a part: a killed import loses at most the work on these.
PART_ROWS = 1000

#: The highest sample rate of FLAC in Hz.
MAX_SAMPLE_RATE = 655_350

#: Names of columns, for each field of a manifest; the first that the dataset has is used if none is given.
USUAL_COLUMNS = {
    "audio": ("audio", "flac", "wav", "mp3"),
    "text": ("text", "sentence", "transcript", "transcription", "text_normalized", "normalized_text"),
    "speaker": ("speaker_id", "speaker", "client_id"),
    "id": ("id", "audio_id", "segment_id"),
}

Row = dict[str, Any] | str  #: result of one row: its fields of the manifest, or why it cannot be read


def import_dataset(
    name: str,
    *,
    out: str | os.PathLike[str],
    split: str,
    config: str | None = None,
    columns: dict[str, str] | None = None,
    language: str | None = None,
    sample_rate: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Utterance], list[str]]:
    """Import a split of a dataset, by hub id or local folder, to the folder `out`.

    columns: names of the columns of "audio", "text", "speaker" and "id" that are not among USUAL_COLUMNS. sample_rate:
    Hz of the FLAC files; None: that of each recording. progress: called after each row. Returns the utterances of the
    manifest, and one line for each row that could not be read. Raises ValueError for a dataset that cannot be read, for
    wrong options, and if `out` was begun with others.
    """
    out = Path(out)
    plan: dict[str, Any] = {"name": name, "config": config, "split": split, "columns": columns or {}}
    plan |= {"language": language, "sample_rate": sample_rate}
    stream = _open_stream(name, config, split)
    convert = partial(
        _convert,
        names=_column_names(stream, columns or {}),  # checks the options before anything is written
        known={"corpus": Path(name).name if Path(name).exists() else name, "language": language},
        source=name,
        out=out,
        sample_rate=sample_rate,
    )
    with one_at_a_time(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each recording of several channels
        same_plan_or_refuse(out, plan, what="dataset or other options", results="parts/*.json")
        rows = _import_rows(stream, out, convert, progress)
        unreadable = [row for row in rows if isinstance(row, str)]
        if unreadable and len(unreadable) == len(rows):
            raise ValueError(f"{name}: none of its rows can be read; {unreadable[0]}")
        utterances = [Utterance(**row | {"path": out / row["path"]}) for row in rows if isinstance(row, dict)]
        utterances = with_unique_ids(utterances, out)
        write_manifest(out / "manifest.jsonl", utterances)
    return utterances, unreadable


def _open_stream(name: str, config: str | None, split: str) -> Any:
    """Return a dataset as a stream of Arrow tables of one row."""
    datasets = need("datasets", "hub")
    try:
        stream = datasets.load_dataset(name, config, split=split, streaming=True)
    except (RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{name}: {error}") from error
    return (stream.decode(False) if stream.features else stream).with_format("arrow")


def _column_names(stream: Any, named: dict[str, str]) -> dict[str, str]:
    """Return the column of each field, as the first row has it. Raises ValueError for a column that is not there."""
    with closing(iter(stream)) as tables:
        first = next(tables, None)
    if first is None:
        return {}
    row: dict[str, Any] = first.to_pylist()[0]
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


def _import_rows(
    stream: Any, out: Path, convert: Callable[[tuple[int, Any]], Row], progress: Callable[[], None]
) -> list[Row]:
    """Convert the rows that no part in `out` holds, write parts of them, and return the results of all rows."""
    parts = list(_read_parts(out))
    if parts:
        stream.load_state_dict(parts[-1]["state"])
    for _ in chain.from_iterable(part["rows"] for part in parts):
        progress()
    with closing(iter(stream)) as tables:
        numbered = enumerate(tables, PART_ROWS * len(parts))
        while not parts or len(parts[-1]["rows"]) == PART_ROWS:
            rows: list[Row] = []
            for row in in_threads(convert, islice(numbered, PART_ROWS)):
                rows.append(row)
                progress()
            with atomic_path(_part_path(out, len(parts))) as temporary:
                temporary.write_text(json.dumps({"rows": rows, "state": stream.state_dict()}), encoding="utf-8")
            parts.append({"rows": rows})
    return list(chain.from_iterable(part["rows"] for part in parts))


def _part_path(out: Path, number: int) -> Path:
    return out / "parts" / f"{number:05d}.json"


def _read_parts(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete parts. Raises ValueError for a damaged one."""
    number = 0
    while (path := _part_path(out, number)).is_file():
        advice = "delete it and run the same command again"
        part = read_json_object(path, advice=advice)
        rows = part.get("rows")
        fields = {field.name for field in dataclasses.fields(Utterance)}
        if (
            "state" not in part
            or not isinstance(rows, list)
            or not all(isinstance(row, str) or (isinstance(row, dict) and row.keys() <= fields) for row in rows)
        ):
            raise ValueError(f"{path}: damaged: {advice}")
        yield part
        number += 1


def _convert(
    numbered: tuple[int, Any],
    names: dict[str, str],
    known: dict[str, Any],
    source: str,
    out: Path,
    sample_rate: int | None,
) -> Row:
    """Write the FLAC file of a row, given as its number and an Arrow table of one row.

    names: the column of each field. known: fields that all rows have.
    """
    number, table = numbered
    [row] = table.to_pylist()
    relative = Path("audio", f"{number // PART_ROWS:05d}", f"{number:08d}.flac")
    try:
        waveform, rate = read_cell(row[names["audio"]], source=source, sample_rate=sample_rate)
        if rate > MAX_SAMPLE_RATE:
            raise ValueError(f"{rate} Hz are more than FLAC supports: give a --sample-rate")
        audio.write(out / relative, waveform, rate)
    except ValueError as error:  # an OSError, such as of a full disk or a lost connection, concerns all rows
        return f"row {number}: {error}"
    except MemoryError:
        return f"row {number}: too long for the memory of this machine"
    fields = {f: str(row[c]) for f, c in names.items() if f != "audio" and row[c] not in (None, "")}
    written = {"path": relative.as_posix(), "duration": round(len(waveform) / rate, 6)}
    return {"id": relative.stem} | fields | known | written
