"""Compare the shards of a tokenized corpus with its index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocable.corpus.index import DELETE_SHARD, entry_path, read_entry, read_index
from vocable.corpus.shards import read_shard
from vocable.files import file_digest


def verify(out: Path, *, progress: Callable[[], None] = lambda: None) -> list[str]:
    """Return one line for each shard that differs from the index; an empty list for a sound corpus.

    progress: called after each shard. Raises ValueError if the index cannot be read.
    """
    faults = []
    for row in read_index(out)["shards"]:
        try:
            fault = _fault(out, row)
        except (ValueError, OSError) as error:
            fault = f"{out / 'shards' / row['shard']}: {error}"
        if fault:
            faults.append(fault)
        progress()
    return faults


def _fault(out: Path, row: dict[str, Any]) -> str | None:
    """Return what is wrong with the shard of a row of the index. Raises ValueError or OSError for unreadable files."""
    path = out / "shards" / row["shard"]
    entry = read_entry(out, path.stem)
    if file_digest(path) != row["sha256"]:
        return f"{path}: its checksum differs from the index: {DELETE_SHARD}"
    if file_digest(entry_path(out, path.stem)) != row["entry_sha256"]:
        return f"{entry_path(out, path.stem)}: its checksum differs from the index: {DELETE_SHARD}"
    if len(entry["clips"]) != row["clips"]:
        return f"{path}: holds {len(entry['clips'])} clips, not the index's {row['clips']}: {DELETE_SHARD}"
    frames = {clip: int(encoded.num_frames) for clip, encoded in read_shard(path)}
    if frames != {clip: place[2] for clip, place in entry["clips"].items()}:
        return f"{path}: holds other clips than {path.stem}.json lists: {DELETE_SHARD}"
    return None
