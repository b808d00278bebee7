"""Manifests: one JSON object a line, one utterance a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """One recording: its audio file, its length in seconds, and what else the manifest knows of it."""

    id: str
    path: Path
    duration: float
    speaker: str | None = None
    text: str | None = None
    corpus: str | None = None


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """Read a JSONL manifest; audio paths are relative to its folder. Raises ValueError naming the bad line."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest")
    utterances, seen = [], set()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            utterance = Utterance(
                id=str(row["id"]),
                path=path.parent / row["path"],
                duration=float(row["duration"]),
                speaker=row.get("speaker"),
                text=row.get("text"),
                corpus=row.get("corpus"),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}, line {number}: each line needs "id", "path" and "duration" ({error!r})'
            ) from error
        if utterance.id in seen:
            raise ValueError(f"{path}, line {number}: the id {utterance.id!r} occurs twice")
        seen.add(utterance.id)
        utterances.append(utterance)
    if not utterances:
        raise ValueError(f"{path}: the manifest is empty")
    return utterances


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
