"""The teacher's features of a whole manifest on disk, made once before training.

    CACHE/index.json        teacher, layer, dimension, mean over all frames, and for each utterance its place
    CACHE/00000.npy ...     float16 [frames, D], the utterances of one shard one after another

A shard is the atomic unit: its members follow from the manifest alone, so an interrupted extraction goes on with the
first shard that is missing. On disk: 2 D bytes a frame, 185 MB an hour for 512 dimensions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance, groups_by_duration
from vocable.files import atomic_path, same_plan_or_refuse
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

    `progress` is called after each shard with the seconds of audio in it.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
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
            with atomic_path(lengths_path) as temporary:
                temporary.write_text(json.dumps([len(f) for f in features]))
            with atomic_path(path) as temporary:
                np.save(temporary, np.concatenate(features), allow_pickle=False)
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        start = 0
        for utterance, length in zip(group, json.loads(lengths_path.read_text()), strict=True):
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
        self.places: dict[str, list[int]] = index["utterances"]

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self.places

    def __call__(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Frames start to start + frames of an utterance; past its end the features are zero."""
        shard, offset, length = self.places[utterance_id]
        out = np.zeros((frames, self.dimension), np.float32)
        stop = min(start + frames, length)
        if stop > start:
            out[: stop - start] = self.shards[shard][offset + start : offset + stop]
            out[: stop - start] -= self.mean
        return out


def read_folder(
    folder: str | os.PathLike[str], keys: Collection[str], kind: str, verb: str
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The index of a folder that `vocable semantic VERB` wrote, and its shards, memory-mapped.

    Raises ValueError, naming the file, for a folder that is unfinished, damaged or of another kind.
    """
    folder = Path(folder)
    path = folder / "index.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no complete {kind}; run `vocable semantic {verb}` first")
    try:
        index: dict[str, Any] = json.loads(path.read_text())
        missing = [key for key in keys if key not in index]
        stops: dict[int, int] = {}
        for shard, start, length in index["utterances"].values():
            stops[shard] = max(stops.get(shard, 0), start + length)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the index of a {kind} ({error!r})") from error
    if missing:
        raise ValueError(f"{path}: not the index of a {kind}, it has no {missing[0]}")
    shards = []
    for shard in range(len(stops)):
        path = folder / f"{shard:05d}.npy"
        try:
            shards.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            hint = f"delete it and run `vocable semantic {verb}` again"
            raise ValueError(f"{path}: missing or damaged; {hint}") from error
        if len(shards[-1]) != stops.get(shard):
            raise ValueError(f"{path}: {len(shards[-1])} frames, not the {stops.get(shard)} of {folder / 'index.json'}")
    return index, shards
