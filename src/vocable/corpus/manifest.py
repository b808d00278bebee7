"""Manifests: JSONL files with one utterance per line. And JSON files, read with errors that say what to do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from vocable.files import atomic_path

T = TypeVar("T")


@dataclass(frozen=True)
class Utterance:
    """One recording of a corpus."""

    id: str  #: unique within the manifest
    path: Path  #: audio file
    duration: float  #: seconds
    speaker: str | None = None  #: name of the speaker
    text: str | None = None  #: the words spoken
    corpus: str | None = None  #: name of the corpus
    language: str | None = None  #: code such as en or sv-SE

    @property
    def speaker_key(self) -> str:
        """The speaker or, if unknown, the id: each such utterance counts as a speaker of its own."""
        return self.speaker or self.id


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for text that is not JSON, or is nested deeper than Python can parse."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from error
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def read_json_object(path: Path, *, advice: str) -> dict[str, Any]:
    """Read a file that holds one JSON object. Raises ValueError, which ends with `advice`, for a damaged file."""
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}): {advice}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged: {advice}")
    return content


def read_manifest(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> list[Utterance]:
    """Read a JSONL manifest. Audio paths are relative to `root`, by default the manifest's folder, or absolute.

    Id, speaker, text, corpus and language are strings; numbers are converted to strings, null and "" are unknown.
    Raises ValueError that names the bad line.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; convert it") from error
    utterances, numbers = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            utterances.append(_utterance(parse_json(line), folder))
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number}: {error}; each line is a JSON object with "id", "path" and "duration"'
            ) from error
        numbers.append(number)
    if not utterances:
        raise ValueError(f"{path}: the manifest is empty")
    if (repeated := index_of_repeated_id(utterances)) is not None:
        raise ValueError(f"{path}, line {numbers[repeated]}: the id {utterances[repeated].id!r} occurs twice")
    return utterances


def index_of_repeated_id(utterances: Iterable[Utterance]) -> int | None:
    """Return the index of the first utterance whose id an earlier one has, None if all ids differ."""
    seen: set[str] = set()
    for i, utterance in enumerate(utterances):
        if utterance.id in seen:
            return i
        seen.add(utterance.id)
    return None


def _utterance(row: Any, folder: Path) -> Utterance:
    """Make an utterance of a line. Raises ValueError that names a field that is missing or of the wrong type."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    texts = {field: _text(row, field) for field in ("id", "speaker", "text", "corpus", "language")}
    path, duration = row.get("path"), row.get("duration")
    if texts["id"] is None:
        raise ValueError('no "id"')
    if not isinstance(path, str) or not path:
        raise ValueError(f'"path" is {path!r:.40}, not text' if "path" in row else 'no "path"')
    if not isinstance(duration, (int, float, str)) or isinstance(duration, bool):
        raise ValueError(f'"duration" is {duration!r:.40}, not a number' if "duration" in row else 'no "duration"')
    try:
        seconds = float(duration)
    except (ValueError, OverflowError):
        raise ValueError(f'"duration" is {duration!r:.40}, not a number of seconds') from None
    return Utterance(path=folder / path, duration=seconds, **texts)  # type: ignore[arg-type]


def _text(row: dict[str, Any], field: str) -> str | None:
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        raise ValueError(f'"{field}" is {value!r:.40}, not text')
    return None if value is None or value == "" else str(value)


def read_manifests(paths: str | Sequence[str]) -> list[Utterance]:
    """Read one manifest, or several one after another. Raises ValueError for an id that occurs in two of them."""
    paths = [paths] if isinstance(paths, str) else paths
    utterances = [utterance for path in paths for utterance in read_manifest(path)]
    if (repeated := index_of_repeated_id(utterances)) is not None:
        raise ValueError(f"the id {utterances[repeated].id!r} occurs in two of {', '.join(paths)}")
    return utterances


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """Return `count` items at even distances, because manifests are sorted by speaker.

    None, and a count above the number of items, return all.
    """
    count = len(items) if count is None else min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a JSONL manifest, with audio paths relative to its folder, and without the fields that are None.

    Raises ValueError for what `read_manifest` would refuse: no utterances, or an id that occurs twice.
    """
    path, utterances = Path(path), list(utterances)
    if not utterances:
        raise ValueError(f"{path}: not written, there are no utterances")
    if (repeated := index_of_repeated_id(utterances)) is not None:
        raise ValueError(f"{path}: not written, the id {utterances[repeated].id!r} occurs twice")
    # Links are resolved before paths are made relative: ".." leads up from the folder that a link points to.
    real = lru_cache(maxsize=1024)(os.path.realpath)
    folder = real(path.parent)
    lines = []
    for utterance in utterances:
        audio = Path(real(utterance.path.parent), utterance.path.name)
        with contextlib.suppress(ValueError):  # on another drive of Windows: no relative path leads there
            audio = Path(os.path.relpath(audio, folder))
        row = vars(utterance) | {"path": audio.as_posix()}
        lines.append(json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False) + "\n")
    with atomic_path(path) as temporary:
        # A file name that is not UTF-8 holds lone surrogates: "backslashreplace" makes them JSON's own escapes.
        temporary.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def groups_by_duration(utterances: Iterable[Utterance], seconds: float) -> list[list[Utterance]]:
    """Split utterances, in their order, into groups of at least `seconds` of audio; the last may have less."""
    groups: list[list[Utterance]] = [[]]
    filled = 0.0
    for utterance in utterances:
        if filled >= seconds:
            groups.append([])
            filled = 0.0
        groups[-1].append(utterance)
        filled += utterance.duration
    return [group for group in groups if group]
