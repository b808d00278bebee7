"""The teacher's features of a whole manifest on disk, made once before training.

    CACHE/index.json        teacher, layer, dimension, mean over all frames, and for each utterance its place
    CACHE/00000.npy ...     float16 [frames, D], the utterances of one shard one after another

A shard is the atomic unit: its members follow from the manifest alone, so an interrupted extraction goes on with the
first shard that is missing. On disk: 2 D bytes a frame, 185 MB an hour for 512 dimensions.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance, groups_by_duration, parse_json
from vocable.files import atomic_path, same_plan_or_refuse
from vocable.lock import one_at_a_time
from vocable.semantic.teacher import SAMPLE_RATE, Layer, Teacher, canonical_layer

#: Seconds of audio in a shard: a kill loses at most this much work.
SHARD_SECONDS = 600.0


def extract(
    teacher: Teacher,
    utterances: Sequence[Utterance],
    out: str | os.PathLike[str],
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write the features of `utterances` to the folder `out`; shards that stand already are kept.

    `progress` is called after each shard with the seconds of audio in it. Raises ValueError if `out` was begun from
    something else, or if another run is at work in it, and for features that float16 does not hold.
    """
    out = Path(out)
    with one_at_a_time(out):
        _extract(teacher, utterances, out, progress)


def _extract(teacher: Teacher, utterances: Sequence[Utterance], out: Path, progress: Callable[[float], None]) -> None:
    plan: dict[str, Any] = {"teacher": str(teacher.name), "layer": teacher.layer, "dtype": str(teacher.dtype)}
    plan["utterances"] = [[u.id, u.duration] for u in utterances]
    same_plan_or_refuse(out, plan, "teacher, layer or manifest")
    groups = groups_by_duration(utterances, SHARD_SECONDS)
    places: dict[str, tuple[int, int, int]] = {}
    total, mean = 0, np.zeros(teacher.dimension)
    for shard, group in enumerate(groups):
        path = out / f"{shard:05d}.npy"
        waveforms = None if path.exists() else [audio.read(u.path, SAMPLE_RATE)[0] for u in group]
        lengths_path = out / f"{shard:05d}.json"
        if waveforms is not None:
            features = [f.to(torch.float16).numpy() for f in teacher(waveforms)]
            for utterance, found in zip(group, features, strict=True):
                if not np.isfinite(found).all():
                    raise ValueError(
                        f"{utterance.path}: layer {teacher.layer} of {teacher.name} has NaN or features above 65,504, "
                        "which float16 does not hold: take another layer, or --dtype float32"
                    )
            with atomic_path(lengths_path) as temporary:
                temporary.write_text(json.dumps([len(f) for f in features]))
            with atomic_path(path) as temporary:
                np.save(temporary, np.concatenate(features), allow_pickle=False)
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        start = 0
        for utterance, length in zip(group, parse_json(lengths_path.read_bytes()), strict=True):
            places[utterance.id] = (shard, start, length)
            start += length
        mean += stored.sum(0, dtype=np.float64)
        total += len(stored)
        progress(sum(u.duration for u in group))
    index = {
        "teacher": str(teacher.name),
        "layer": teacher.layer,
        "dimension": teacher.dimension,
        "mean": (mean / total).tolist(),
        "utterances": places,
    }
    with atomic_path(out / "index.json") as temporary:
        temporary.write_text(json.dumps(index))


class Shard:
    """The rows of one .npy file, [N] or [N, D], read anew each time they are asked for.

    It keeps no file open and no memory mapped: a corpus has thousands of shards, and a process is allowed some hundred
    or thousand open files. `np.asarray(shard)` is all rows.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that is damaged or no .npy, and OSError for one that cannot be opened."""
        rows = np.lib.format.open_memmap(path, mode="r")  # checks the file's length too
        if rows.ndim == 0 or not rows.flags.c_contiguous:
            raise ValueError(f"{path}: not rows one after another")
        self.path, self.dtype, self._offset = path, rows.dtype, int(rows.offset)
        self.shape: tuple[int, ...] = rows.shape

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; those behind the last are left out."""
        shape = (max(0, min(stop, len(self)) - start), *self.shape[1:])
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        found = np.fromfile(self.path, self.dtype, math.prod(shape), offset=self._offset + start * row)
        return found.reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.rows(0, len(self)).astype(dtype or self.dtype, copy=False)


class FeatureCache:
    """Read access to an extracted cache: `cache(id, start, frames)` -> float32 [frames, D], mean removed.

    The mean over the corpus is removed because the D-axis loss is a cosine over time: a constant offset in a feature
    would let a constant student score well on it.
    """

    @staticmethod
    def is_complete(folder: str | os.PathLike[str]) -> bool:
        return (Path(folder) / "index.json").is_file()

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        keys = ("teacher", "layer", "dimension", "mean", "utterances")
        index, self.shards = read_folder(folder, keys, "feature cache", "extract")
        self.teacher: str = index["teacher"]
        self.layer: Layer = canonical_layer(index["layer"])
        self.dimension: int = index["dimension"]
        self.mean = np.asarray(index["mean"], np.float32)
        if any(shard.shape[1:] != self.mean.shape or shard.dtype != np.float16 for shard in self.shards):
            raise ValueError(f"{folder}: its shards are not float16 of {self.dimension} dimensions; extract them again")
        self.places: dict[str, list[int]] = index["utterances"]

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self.places

    def __call__(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Frames start to start + frames of an utterance; past its end the features are zero."""
        shard, offset, length = self.places[utterance_id]
        out = np.zeros((frames, self.dimension), np.float32)
        stop = min(start + frames, length)
        if stop > start:
            out[: stop - start] = self.shards[shard].rows(offset + start, offset + stop)
            out[: stop - start] -= self.mean
        return out


def read_folder(
    folder: str | os.PathLike[str], keys: Collection[str], kind: str, verb: str
) -> tuple[dict[str, Any], list[Shard]]:
    """The index of a folder that `vocable semantic VERB` wrote, and its shards.

    Raises ValueError, naming the file, for a folder that is unfinished, damaged or of another kind, and OSError where
    files cannot be opened for another reason, such as too many open ones.
    """
    folder = Path(folder)
    path = folder / "index.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no complete {kind}; run `vocable semantic {verb}` first")
    try:
        index: dict[str, Any] = parse_json(path.read_bytes())
        missing = [key for key in keys if key not in index]
        stops: dict[int, int] = {}
        for shard, start, length in index["utterances"].values():
            if type(shard) is not int or type(start) is not int or type(length) is not int or min(start, length) < 0:
                raise ValueError("places that are none")
            stops[shard] = max(stops.get(shard, 0), start + length)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the index of a {kind} ({error!r})") from error
    if missing:
        raise ValueError(f"{path}: not the index of a {kind}, it has no {missing[0]}")
    shards = []
    for number in range(len(stops)):
        path = folder / f"{number:05d}.npy"
        try:
            shards.append(Shard(path))
        except (FileNotFoundError, ValueError, EOFError, OverflowError, MemoryError, RecursionError) as error:
            hint = f"delete it and run `vocable semantic {verb}` again"
            raise ValueError(f"{path}: missing or damaged; {hint}") from error
        if len(shards[-1]) != stops.get(number):
            raise ValueError(
                f"{path}: {len(shards[-1])} frames, not the {stops.get(number)} of {folder / 'index.json'}"
            )
    return index, shards
