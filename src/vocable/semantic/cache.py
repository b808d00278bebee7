"""The teacher's features of a whole manifest on disk, made once before training.

    CACHE/index.json        teacher, layer, dimension, mean over all frames, and for each utterance its place
    CACHE/00000.npy ...     float16 [frames, D], the utterances of one shard one after another

A shard is the atomic unit: its members follow from the manifest alone, so an interrupted extraction goes on with the
first shard that is missing. On disk: 2 D bytes a frame, 185 MB an hour for 512 dimensions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance, groups_by_duration
from vocable.files import atomic_path
from vocable.semantic.teacher import SAMPLE_RATE, Teacher

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
    _same_plan_or_refuse(out / "plan.json", plan)
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
        folder = Path(folder)
        if not self.is_complete(folder):
            raise ValueError(f"{folder}: no complete feature cache; run `vocable semantic extract` first")
        index = json.loads((folder / "index.json").read_text())
        self.teacher: str = index["teacher"]
        self.layer: int | str = index["layer"]
        self.dimension: int = index["dimension"]
        self._mean = np.asarray(index["mean"], np.float32)
        self._places: dict[str, list[int]] = index["utterances"]
        self._shards = [np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("[0-9]*.npy"))]

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._places

    def __call__(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Frames start to start + frames of an utterance; past its end the features are zero."""
        shard, offset, length = self._places[utterance_id]
        out = np.zeros((frames, self.dimension), np.float32)
        stop = min(start + frames, length)
        if stop > start:
            out[: stop - start] = self._shards[shard][offset + start : offset + stop]
            out[: stop - start] -= self._mean
        return out


def _same_plan_or_refuse(path: Path, plan: dict[str, Any]) -> None:
    if path.exists() and json.loads(path.read_text()) != plan:
        raise ValueError(f"{path.parent} was begun with another teacher, layer or manifest; choose another folder")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plan))
