"""The teacher's features of a whole manifest on disk, extracted once before training.

    CACHE/index.json        teacher, layer, dimension, mean over all frames, and each utterance's place
    CACHE/00000.npy ...     float16 [frames, D], the utterances of one shard one after another
    CACHE/00000.json ...    the number of frames of each of these utterances

Which utterances a shard has depends on the manifest only, so an interrupted extraction continues with the first shard
that is missing. Disk space: 2 D bytes a frame, 185 MB an hour for 512 dimensions.
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
from vocable.corpus.manifest import Utterance, groups_by_duration, parse_json
from vocable.files import atomic_path, same_plan_or_refuse
from vocable.lock import one_at_a_time
from vocable.semantic.frame_folder import INDEX, FrameFolder, shard_path, write_index, write_shard
from vocable.semantic.teacher import SAMPLE_RATE, Layer, Teacher, canonical_layer

#: Seconds of audio in a shard: an interruption loses at most this much work.
SHARD_SECONDS = 600.0


def extract(
    teacher: Teacher,
    utterances: Sequence[Utterance],
    out: str | os.PathLike[str],
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write the features of `utterances` to the folder `out`; shards that are complete already are kept.

    `progress` is called after each shard with the seconds of audio in it. Raises ValueError if `out` was begun with
    another teacher, layer or manifest, if another process writes to it, and for features that float16 cannot hold.
    """
    out = Path(out)
    with one_at_a_time(out):
        _extract(teacher, utterances, out, progress)


def _extract(teacher: Teacher, utterances: Sequence[Utterance], out: Path, progress: Callable[[float], None]) -> None:
    plan: dict[str, Any] = {"teacher": str(teacher.name), "layer": teacher.layer, "dtype": str(teacher.dtype)}
    plan["utterances"] = [[u.id, u.duration] for u in utterances]
    same_plan_or_refuse(out, plan, "teacher, layer or manifest")
    places: dict[str, tuple[int, int, int]] = {}
    num_frames, total = 0, np.zeros(teacher.dimension)
    for shard, group in enumerate(groups_by_duration(utterances, SHARD_SECONDS)):
        path = shard_path(out, shard)
        if not path.exists():
            _extract_shard(teacher, group, out, shard)
        start = 0
        for utterance, length in zip(group, parse_json(path.with_suffix(".json").read_bytes()), strict=True):
            places[utterance.id] = (shard, start, length)
            start += length
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        total += stored.sum(0, dtype=np.float64)
        num_frames += len(stored)
        progress(sum(u.duration for u in group))
    mean = (total / num_frames).tolist()
    write_index(out, places, teacher=str(teacher.name), layer=teacher.layer, dimension=teacher.dimension, mean=mean)


def _extract_shard(teacher: Teacher, utterances: Sequence[Utterance], out: Path, shard: int) -> None:
    """Write the features of a shard's utterances, and their numbers of frames."""
    waveforms = [audio.read(u.path, SAMPLE_RATE)[0] for u in utterances]
    features = [f.to(torch.float16).numpy() for f in teacher(waveforms)]
    for utterance, found in zip(utterances, features, strict=True):
        if not np.isfinite(found).all():
            raise ValueError(
                f"{utterance.path}: layer {teacher.layer} of {teacher.name} has NaN or features above 65,504, "
                "which float16 does not hold: take another layer, or --dtype float32"
            )
    with atomic_path(shard_path(out, shard).with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps([len(f) for f in features]))
    write_shard(out, shard, np.concatenate(features))  # last, because its presence means that the shard is complete


class FeatureCache(FrameFolder):
    """Read access to an extracted cache: `cache(id, start, frames)` returns float32 [frames, D], mean removed.

    The mean over the corpus is removed because the D-axis loss is a cosine over time: with a constant offset in a
    feature, a constant student would score well.
    """

    @staticmethod
    def is_complete(folder: str | os.PathLike[str]) -> bool:
        """Return whether the extraction into this folder has ended."""
        return (Path(folder) / INDEX).is_file()

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises ValueError for a folder that is incomplete, damaged or no feature cache."""
        keys = ("teacher", "layer", "dimension", "mean", "utterances")
        super().__init__(folder, keys=keys, kind="feature cache", verb="extract")
        self.teacher: str = self.index["teacher"]
        self.layer: Layer = canonical_layer(self.index["layer"])
        self.dimension: int = self.index["dimension"]
        self.mean = np.asarray(self.index["mean"], np.float32)
        if any(shard.shape[1:] != self.mean.shape or shard.dtype != np.float16 for shard in self.shards):
            raise ValueError(f"{folder}: its shards are not float16 of {self.dimension} dimensions; extract them again")

    def __call__(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Return the features of frames start to start + frames of an utterance; past its end they are 0."""
        out = np.zeros((frames, self.dimension), np.float32)
        rows = self.rows(utterance_id, start, frames)
        out[: len(rows)] = rows
        out[: len(rows)] -= self.mean
        return out
