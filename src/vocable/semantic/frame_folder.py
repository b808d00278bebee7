"""Folders with a row for each frame of many utterances: a teacher's features, units or phones.

    FOLDER/index.json       "utterances": {id: [shard, start, length]}, and what the kind of folder adds
    FOLDER/00000.npy ...    the rows of each shard, [N] or [N, D], one utterance after another

A shard is the unit of work that is written at once: an interrupted job continues with the first that is missing. The
index is written last, so a folder without one is incomplete.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocable.corpus.manifest import parse_json
from vocable.files import atomic_path

INDEX = "index.json"


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{number:05d}.npy"


def write_shard(folder: Path, number: int, rows: np.ndarray) -> None:
    """Write the rows of one shard, atomically."""
    with atomic_path(shard_path(folder, number)) as temporary:
        np.save(temporary, rows, allow_pickle=False)


def write_index(folder: Path, places: Mapping[str, Sequence[int]], **description: Any) -> None:
    """Write the index, atomically, when all shards are there.

    places: shard, first row and number of rows of each utterance, by its id. description: the further keys.
    """
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(json.dumps({**description, "utterances": places}))


class Shard:
    """The rows of one .npy file, [N] or [N, D], read from disk each time they are asked for.

    It keeps no file open and no memory mapped: a corpus has thousands of shards, and a process may open only a few
    hundred files. `np.asarray(shard)` reads all rows.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that is damaged or no .npy, and OSError for one that cannot be opened."""
        rows = np.lib.format.open_memmap(path, mode="r")  # also checks the file's length
        if rows.ndim == 0 or not rows.flags.c_contiguous:
            raise ValueError(f"{path}: not an array of rows in C order")
        self.path, self.dtype, self._offset = path, rows.dtype, int(rows.offset)
        self.shape: tuple[int, ...] = rows.shape

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Read rows start to stop, or to the last row if stop is past it."""
        shape = (max(0, min(stop, len(self)) - start), *self.shape[1:])
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        flat = np.fromfile(self.path, self.dtype, math.prod(shape), offset=self._offset + start * row_bytes)
        return flat.reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.rows(0, len(self)).astype(dtype or self.dtype, copy=False)


class FrameFolder:
    """Read access to the rows of a folder by utterance and frame. Base class of FeatureCache and UnitCache."""

    def __init__(self, folder: str | os.PathLike[str], *, keys: Collection[str], kind: str, verb: str) -> None:
        """keys: those that the index must have. kind: the folder's name in error messages. verb: of `vocable semantic`,
        which writes such folders.

        Raises ValueError, naming the file, for a folder that is incomplete, damaged or of another kind, and OSError if
        its files cannot be opened for another reason, such as too many open ones.
        """
        folder = Path(folder)
        self.index, num_rows = _read_index(folder, keys, kind, verb)
        #: Shard, first row and number of rows of each utterance, by its id.
        self.places: dict[str, list[int]] = self.index["utterances"]
        self.shards: list[Shard] = []
        for number in range(len(num_rows)):
            path = shard_path(folder, number)
            try:
                shard = Shard(path)
            except (FileNotFoundError, ValueError, EOFError, OverflowError, MemoryError, RecursionError) as error:
                hint = f"delete it and run `vocable semantic {verb}` again"
                raise ValueError(f"{path}: missing or damaged; {hint}") from error
            if len(shard) != num_rows.get(number):
                raise ValueError(f"{path}: {len(shard)} frames, not the {num_rows.get(number)} of {folder / INDEX}")
            self.shards.append(shard)

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self.places

    def rows(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Read the rows of frames start to start + frames of an utterance: fewer than `frames` past its end."""
        shard, offset, length = self.places[utterance_id]
        stop = min(start + frames, length)
        return self.shards[shard].rows(offset + start, offset + max(start, stop))


def _read_index(folder: Path, keys: Collection[str], kind: str, verb: str) -> tuple[dict[str, Any], dict[int, int]]:
    """Read and check a folder's index; return it, and the number of rows that each shard must have."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder}: no complete {kind}; run `vocable semantic {verb}` first")
    try:
        index: dict[str, Any] = parse_json(path.read_bytes())
        missing = [key for key in keys if key not in index]
        num_rows: dict[int, int] = {}
        for shard, start, length in index["utterances"].values():
            if type(shard) is not int or type(start) is not int or type(length) is not int or min(start, length) < 0:
                raise ValueError("an utterance's place must be three whole numbers, at least 0")
            num_rows[shard] = max(num_rows.get(shard, 0), start + length)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the index of a {kind} ({error!r})") from error
    if missing:
        raise ValueError(f"{path}: not the index of a {kind}, it has no {missing[0]}")
    return index, num_rows
