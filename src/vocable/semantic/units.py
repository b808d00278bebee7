"""Units: k-means clusters of a teacher's features, the targets of the paper's pseudo-label variant.

    UNITS/index.json        teacher, layer, number of units, and for each utterance its place
    UNITS/centroids.npy     float32 [K, D], in the teacher's own features: their mean is not removed
    UNITS/00000.npy ...     int16 (int32 above 32,767 units) [frames], shard by shard as in the feature cache

The centroids, then each shard, are atomic units: an interrupted run goes on with the first that is missing.
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
from vocable.semantic.cache import FeatureCache, read_folder
from vocable.semantic.distillation import NO_UNIT
from vocable.semantic.teacher import Layer, canonical_layer

#: Frames that k-means is fitted on, for each unit, unless the caller says how many.
SAMPLE_PER_UNIT = 256
PASSES = 10  #: over the sample
BATCH_FRAMES = 10_000


@dataclass(frozen=True)
class UnitSummary:
    """What became of a feature cache as units."""

    frames: int
    in_use: int  #: units that some frame has
    inertia: float  #: squared distance of a frame to its centroid, on average
    perplexity: float  #: 2 to the entropy of the units in bits; K if all are equally frequent


def make_units(
    features: FeatureCache,
    out: str | os.PathLike[str],
    num_units: int,
    *,
    sample_frames: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> UnitSummary:
    """Cluster the frames of a feature cache and write the units of all its utterances to the folder `out`.

    k-means is fitted on `sample_frames` frames drawn from the whole cache (default: 256 for each unit). `progress` is
    called with each share of the work that is done; the shares add up to 1. Raises ValueError if there are fewer
    frames than units, if `out` was begun from something else, or if another run is at work in it.
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

    fitting = PASSES * sample_frames / (PASSES * sample_frames + total)
    if (out / "centroids.npy").exists():
        progress(fitting)
    else:
        centroids = _fit(features, num_units, sample_frames, seed, lambda share: progress(share * fitting))
        with atomic_path(out / "centroids.npy") as temporary:
            np.save(temporary, centroids + features.mean, allow_pickle=False)
    centroids = np.load(out / "centroids.npy", allow_pickle=False) - features.mean

    metrics = need("sklearn.metrics", "train")
    counts, inertia = np.zeros(num_units), 0.0
    for shard, stored in enumerate(features.shards):
        frames = np.asarray(stored, np.float32) - features.mean
        path = out / f"{shard:05d}.npy"
        if not path.exists():
            units = metrics.pairwise_distances_argmin(frames, centroids)
            with atomic_path(path) as temporary:
                np.save(temporary, units.astype(np.int16 if num_units < 2**15 else np.int32), allow_pickle=False)
        units = np.load(path, allow_pickle=False)
        counts += np.bincount(units, minlength=num_units)
        inertia += float(np.square(frames - centroids[units]).sum(dtype=np.float64))
        progress((1 - fitting) * len(frames) / total)
    index = {
        "teacher": features.teacher,
        "layer": features.layer,
        "num_units": num_units,
        "utterances": features.places,
    }
    with atomic_path(out / "index.json") as temporary:
        temporary.write_text(json.dumps(index))
    chances = counts[counts > 0] / total
    perplexity = float(np.exp2(-(chances * np.log2(chances)).sum()))
    return UnitSummary(total, len(chances), inertia / total, perplexity)


def _fit(
    features: FeatureCache, num_units: int, sample_frames: int, seed: int, progress: Callable[[float], None]
) -> np.ndarray:
    """The centroids, float32 [K, D], of features whose mean is removed: large offsets would cost precision."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum([len(shard) for shard in features.shards])
    chosen = np.sort(rng.choice(ends[-1], sample_frames, replace=False))
    shares = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [len(shard) for shard in features.shards]
    rows = zip(features.shards, shares, starts, strict=True)
    sample = np.concatenate([np.asarray(shard)[share - start] for shard, share, start in rows if len(share)]).astype(
        np.float32
    )
    sample -= features.mean
    # No reassignment: a unit that was moved to a random frame in the last batch would stay there.
    kmeans = need("sklearn.cluster", "train").MiniBatchKMeans(num_units, random_state=seed, reassignment_ratio=0.0)
    for _ in range(PASSES):
        batches = max(1, sample_frames // max(BATCH_FRAMES, 3 * num_units))
        for batch in np.array_split(rng.permutation(sample_frames), batches):
            kmeans.partial_fit(sample[batch])
            progress(len(batch) / (PASSES * sample_frames))
    centroids: np.ndarray = kmeans.cluster_centers_
    return centroids


class UnitCache:
    """Read access to a folder of units: `cache(id, start, frames)` -> int64 [frames], -100 past the utterance's end."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        keys = ("teacher", "layer", "num_units", "utterances")
        index, self.shards = read_folder(folder, keys, "folder of units", "units")
        self.teacher: str = index["teacher"]
        self.layer: Layer = canonical_layer(index["layer"])
        self.num_units: int = index["num_units"]
        if any(len(shard.shape) != 1 or shard.dtype.kind not in "iu" for shard in self.shards):
            raise ValueError(f"{folder}: its shards are not sequences of units; make them again")
        self.places: dict[str, list[int]] = index["utterances"]

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self.places

    def __call__(self, utterance_id: str, start: int, frames: int) -> np.ndarray:
        """Units of the frames start to start + frames of an utterance."""
        shard, offset, length = self.places[utterance_id]
        out = np.full(frames, NO_UNIT, np.int64)
        stop = min(start + frames, length)
        if stop > start:
            out[: stop - start] = self.shards[shard].rows(offset + start, offset + stop)
        return out


class UnitCodebook:
    """The centroids in a folder of units, for speech that is not in it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        units = UnitCache(folder)
        self.teacher, self.layer, self.num_units = units.teacher, units.layer, units.num_units
        path = Path(folder) / "centroids.npy"
        try:
            self.centroids: np.ndarray = np.load(path, allow_pickle=False)  #: float32 [K, D]
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: missing or damaged; run `vocable semantic units` again") from error
        self.hash = hashlib.sha256(self.centroids.tobytes()).hexdigest()[:10]

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Units of a teacher's features: float [T, D] -> int64 [T]."""
        # Relative to the centroids' mean: large offsets would cost precision.
        mean = self.centroids.mean(0)
        features, centroids = features.astype(np.float32) - mean, self.centroids - mean
        units: np.ndarray = (np.square(centroids).sum(1) - 2 * features @ centroids.T).argmin(1)
        return units
