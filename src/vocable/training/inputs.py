"""Files that a codec recipe names: the teacher's targets, dev clips, and hashes of files that affect the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest, read_manifests, spread
from vocable.files import file_digest
from vocable.semantic.cache import FeatureCache, extract
from vocable.semantic.teacher import HOP_LENGTH, SAMPLE_RATE, Teacher, canonical_layer
from vocable.semantic.units import UnitCache
from vocable.training.recipe import Recipe
from vocable.training.torch_globals import num_threads

DEV_SECONDS = 5  #: longest dev clip


def load_targets(recipe: Recipe, device: torch.device, on_load: Callable[[float], None]) -> FeatureCache | UnitCache:
    """Return the targets of the distillation loss: the teacher's features of `data.train`, or units of them.

    Features that are not in the cache yet are extracted first, on `device`; `on_load` is called with the seconds of
    audio of each shard. Raises ValueError if the targets are not those of the recipe or do not fit its codec.
    """
    d, codec = recipe.distillation, recipe.codec
    if codec.sample_rate != SAMPLE_RATE or codec.hop_length != HOP_LENGTH:
        raise ValueError(f"teachers have a frame every {HOP_LENGTH} samples at {SAMPLE_RATE} Hz, and so must the codec")
    if d.loss == "units":
        units = UnitCache(d.units)
        if units.num_units != codec.semantic_dimension:
            raise ValueError(f"codec.semantic_dimension must be the number of units, {units.num_units}")
        return units
    if not FeatureCache.is_complete(d.cache):
        with num_threads(recipe.threads):
            extract(Teacher(d.teacher, d.layer, str(device)), read_manifests(recipe.data.train), d.cache, on_load)
    features = FeatureCache(d.cache)
    if (features.teacher, features.layer) != (d.teacher, canonical_layer(d.layer)):
        held = f"layer {features.layer} of {features.teacher}"
        raise ValueError(f"{d.cache} holds {held}, not layer {d.layer} of {d.teacher}: name another cache")
    if features.dimension != codec.semantic_dimension:
        if recipe.init:
            expected = f"{recipe.init} is made for a teacher of {codec.semantic_dimension} dimensions"
            raise ValueError(f"{expected}, not {features.dimension}: name its own teacher, or leave out --init")
        raise ValueError(f"codec.semantic_dimension must be the teacher's, {features.dimension}")
    return features


def load_dev_clips(recipe: Recipe) -> list[np.ndarray]:
    """Read `dev_clips` recordings, evenly spaced in the dev manifest: float32 [L], at most DEV_SECONDS of each."""
    rate, utterances = recipe.codec.sample_rate, read_manifest(recipe.data.dev)
    return [audio.read(u.path, rate)[0][: DEV_SECONDS * rate] for u in spread(utterances, recipe.dev_clips)]


def input_digests(recipe: Recipe, utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return hashes of the files that a recipe names, by the dotted name of the field; see `Trainer.inputs`.

    utterances: of `data.train`. Features need no hash: their cache names its teacher and layer, which are compared.
    """
    digests = {"data.train": _manifest_digest(utterances)}
    if recipe.distillation.weight and recipe.distillation.loss == "units":
        digests["distillation.units"] = _units_digest(Path(recipe.distillation.units))
    if recipe.content.phones:
        digests["content.labels"] = _units_digest(Path(recipe.content.labels))
    if recipe.content.noise:
        digests["content.noise"] = _manifest_digest(read_manifest(recipe.content.noise))
    return digests


def _manifest_digest(utterances: Sequence[Utterance]) -> str:
    """Hash the fields of a manifest that affect batches; paths do not."""
    rows = [[u.id, u.duration, u.speaker, u.language] for u in utterances]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _units_digest(folder: Path) -> str:
    """Hash the files of a folder of units."""
    files = [folder / "index.json", *sorted(folder.glob("*.npy"))]
    return hashlib.sha256(json.dumps([file_digest(path) for path in files]).encode()).hexdigest()
