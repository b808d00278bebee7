"""Manifests: one JSON object a line, one utterance a line."""

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
    """One recording: its audio file, its length in seconds, and what else the manifest knows of it."""

    id: str
    path: Path
    duration: float
    speaker: str | None = None
    text: str | None = None
    corpus: str | None = None
    language: str | None = None

    @property
    def speaker_key(self) -> str:
        """The speaker; a clip whose speaker is unknown stands for itself."""
        return self.speaker or self.id


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError also where it is nested deeper than Python can follow."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from error
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def read_manifest(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[Utterance]:
    """Read a JSONL manifest; audio paths are relative to `root`, or to its folder, and may lie anywhere.

    Id, speaker, text, corpus and language are text, and numbers are taken for text; null and "" are unknown. Raises
    ValueError that names the bad line.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; convert it") from error
    utterances, seen = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            utterance = _utterance(parse_json(line), folder)
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number}: {error}; each line is a JSON object with "id", "path" and "duration"'
            ) from error
        if utterance.id in seen:
            raise ValueError(f"{path}, line {number}: the id {utterance.id!r} occurs twice")
        seen.add(utterance.id)
        utterances.append(utterance)
    if not utterances:
        raise ValueError(f"{path}: the manifest is empty")
    return utterances


def _utterance(row: Any, folder: Path) -> Utterance:
    """Raises ValueError that says which field is missing or of another type."""
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
    """Read one manifest, or several one after another. ValueError for an id that occurs in two of them."""
    paths = [paths] if isinstance(paths, str) else paths
    utterances = [utterance for path in paths for utterance in read_manifest(path)]
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            raise ValueError(f"the id {utterance.id!r} occurs in two of {', '.join(paths)}")
        seen.add(utterance.id)
    return utterances


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """`count` items at even distances, because manifests are sorted by speaker; None or more than there are: all."""
    count = len(items) if count is None else min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def write_manifest(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a JSONL manifest, audio paths relative to its folder; what an utterance does not have is left out.

    Raises ValueError for what `read_manifest` would refuse: no utterances at all, or an id that occurs twice.
    """
    path = Path(path)
    # Up from a folder means up from where it truly is, so links in the way are followed before the paths are compared.
    real = lru_cache(maxsize=1024)(os.path.realpath)
    folder = real(path.parent)
    lines, seen = [], set()
    for utterance in utterances:
        if utterance.id in seen:
            raise ValueError(f"{path}: not written, the id {utterance.id!r} occurs twice")
        seen.add(utterance.id)
        audio = Path(real(utterance.path.parent), utterance.path.name)
        with contextlib.suppress(ValueError):  # on another drive of Windows
            audio = Path(os.path.relpath(audio, folder))
        row = vars(utterance) | {"path": audio.as_posix()}
        lines.append(json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False) + "\n")
    if not lines:
        raise ValueError(f"{path}: not written, there are no utterances")
    with atomic_path(path) as temporary:
        # A file name that is not UTF-8 holds lone surrogates: so replaced, they are JSON's own escapes.
        temporary.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def groups_by_duration(utterances: Iterable[Utterance], seconds: float) -> list[list[Utterance]]:
    """Split utterances, in order, into groups that hold at least `seconds` of audio (the last may hold less)."""
    groups: list[list[Utterance]] = [[]]
    filled = 0.0
    for utterance in utterances:
        if filled >= seconds:
            groups.append([])
            filled = 0.0
        groups[-1].append(utterance)
        filled += utterance.duration
    return [group for group in groups if group]
