"""Units: k-means clusters of a teacher's features, the targets of the paper's pseudo-label variant.

    UNITS/index.json        teacher, layer, number of units, and each utterance's place
    UNITS/centroids.npy     float32 [K, D], in the teacher's own features: their mean is not removed
    UNITS/00000.npy ...     int16 (int32 above 32,767 units) [frames], with the same shards as the feature cache

An interrupted run continues with the centroids, or with the first shard that is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocable.extras import need
from vocable.files import atomic_path, same_plan_or_refuse
from vocable.lock import one_at_a_time
from vocable.semantic.cache import FeatureCache
from vocable.semantic.distillation import NO_UNIT
from vocable.semantic.frame_folder import FrameFolder, shard_path, write_index, write_shard
from vocable.semantic.teacher import Layer, canonical_layer

CENTROIDS = "centroids.npy"
SAMPLE_PER_UNIT = 256  #: frames for each unit that k-means is fitted on, unless the caller gives a number
PASSES = 10  #: passes of k-means over the sample
BATCH_FRAMES = 10_000  #: frames in a batch of k-means


@dataclass(frozen=True)
class UnitSummary:
    """Statistics of the units of a feature cache."""

    frames: int  #: frames of the whole cache
    in_use: int  #: units that at least one frame has
    inertia: float  #: mean squared distance of a frame to its centroid
    perplexity: float  #: 2 to the power of the units' entropy in bits: K if all units are equally frequent


def make_units(
    features: FeatureCache,
    out: str | os.PathLike[str],
    num_units: int,
    *,
    sample_frames: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> UnitSummary:
    """Cluster the frames of a feature cache and write the units of all its utterances to the folder `out`.

    k-means is fitted on `sample_frames` frames drawn from the whole cache (default: 256 for each unit). `progress` is
    called with the fraction of the work done since the last call; the fractions add up to 1. Raises ValueError if there
    are fewer frames than units, if `out` was begun with other features or options, or if another process writes to it.
    """
    out = Path(out)
    total = sum(map(len, features.shards))
    sample_frames = min(sample_frames or SAMPLE_PER_UNIT * num_units, total)
    if not 2 <= num_units <= sample_frames:
        raise ValueError(
            f"{num_units} units from {sample_frames} frames: there must be 2 units or more, and a frame for each"
        )
    with one_at_a_time(out):
        return _make_units(features, out, num_units, sample_frames, seed, progress)


def _make_units(
    features: FeatureCache,
    out: Path,
    num_units: int,
    sample_frames: int,
    seed: int,
    progress: Callable[[float], None],
) -> UnitSummary:
    total = sum(map(len, features.shards))
    digest = hashlib.sha256(json.dumps([features.mean.tolist(), features.places]).encode()).hexdigest()
    plan = {"teacher": features.teacher, "layer": features.layer, "features": digest}
    plan |= {"num_units": num_units, "sample_frames": sample_frames, "seed": seed}
    same_plan_or_refuse(out, plan, "feature cache, number of units, sample or seed")

    fitting = PASSES * sample_frames / (PASSES * sample_frames + total)  # the fraction of the work that k-means is
    if (out / CENTROIDS).exists():
        progress(fitting)
    else:
        centroids = _fit(features, num_units, sample_frames, seed, lambda fraction: progress(fraction * fitting))
        with atomic_path(out / CENTROIDS) as temporary:
            np.save(temporary, centroids + features.mean, allow_pickle=False)
    centroids = np.load(out / CENTROIDS, allow_pickle=False) - features.mean

    metrics = need("sklearn.metrics", "train")
    counts, inertia = np.zeros(num_units), 0.0
    for shard, stored in enumerate(features.shards):
        frames = np.asarray(stored, np.float32) - features.mean
        path = shard_path(out, shard)
        if not path.exists():
            units = metrics.pairwise_distances_argmin(frames, centroids)
            write_shard(out, shard, units.astype(np.int16 if num_units < 2**15 else np.int32))
        units = np.load(path, allow_pickle=False)
        counts += np.bincount(units, minlength=num_units)
        inertia += float(np.square(frames - centroids[units]).sum(dtype=np.float64))
        progress((1 - fitting) * len(frames) / total)
    write_index(out, features.places, teacher=features.teacher, layer=features.layer, num_units=num_units)
    frequencies = counts[counts > 0] / total
    perplexity = float(np.exp2(-(frequencies * np.log2(frequencies)).sum()))
    return UnitSummary(total, len(frequencies), inertia / total, perplexity)


def _fit(
    features: FeatureCache, num_units: int, sample_frames: int, seed: int, progress: Callable[[float], None]
) -> np.ndarray:
    """Fit k-means; return centroids, float32 [K, D], of features less their mean, which would cost precision."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum([len(shard) for shard in features.shards])
    starts = ends - [len(shard) for shard in features.shards]
    chosen = np.sort(rng.choice(ends[-1], sample_frames, replace=False))
    by_shard = zip(features.shards, np.split(chosen, np.searchsorted(chosen, ends[:-1])), starts, strict=True)
    rows = [np.asarray(shard)[frames - start] for shard, frames, start in by_shard if len(frames)]
    sample = np.concatenate(rows).astype(np.float32) - features.mean
    # Without reassignment, because a unit that the last batch moves to a random frame would stay there.
    kmeans = need("sklearn.cluster", "train").MiniBatchKMeans(num_units, random_state=seed, reassignment_ratio=0.0)
    for _ in range(PASSES):
        batches = max(1, sample_frames // max(BATCH_FRAMES, 3 * num_units))
        for batch in np.array_split(rng.permutation(sample_frames), batches):
            kmeans.partial_fit(sample[batch])
            progress(len(batch) / (PASSES * sample_frames))
    centroids: np.ndarray = kmeans.cluster_centers_
    return centroids


class UnitCache(FrameFolder):
    """Read access to a folder of units: `cache(id, start, frames)` returns int64 [frames]."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises ValueError for a folder that is incomplete, damaged or has no units."""
        keys = ("teacher", "layer", "num_units", "utterances")
        super().__init__(folder, keys=keys, kind="folder of units", verb="units")
        self.teacher: str = self.index["teacher"]
        self.layer: Layer = canonical_layer(self.index["layer"])
        self.num_units: int = self.index["num_units"]
        if any(len(shard.shape) != 1 or shard.dtype.kind not in "iu" for shard in self.shards):
            raise ValueError(f"{folder}: its shards are not sequences of units; make them again")

    def __call__(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Return the units of frames start to start + frames of an utterance; past its end they are NO_UNIT, -100."""
        out = np.full(frames, NO_UNIT, np.int64)
        rows = self.rows(utterance_id, start, frames)
        out[: len(rows)] = rows
        return out


class UnitCodebook:
    """The centroids in a folder of units, which turn features of further speech into units."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises ValueError for a folder that is incomplete, damaged or has no centroids."""
        units = UnitCache(folder)
        self.teacher, self.layer, self.num_units = units.teacher, units.layer, units.num_units
        path = Path(folder) / CENTROIDS
        try:
            self.centroids: np.ndarray = np.load(path, allow_pickle=False)  #: float32 [K, D]
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: missing or damaged; run `vocable semantic units` again") from error
        self.hash = hashlib.sha256(self.centroids.tobytes()).hexdigest()[:10]

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Return the unit of each frame of a teacher's features: float [T, D] -> int64 [T]."""
        mean = self.centroids.mean(0)  # removed, because large offsets would cost precision
        features, centroids = features.astype(np.float32) - mean, self.centroids - mean
        units: np.ndarray = (np.square(centroids).sum(1) - 2 * features @ centroids.T).argmin(1)
        return units
