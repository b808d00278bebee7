"""Folders with a row for each frame: of many shards, more than a process may have open files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from vocable.semantic.cache import FeatureCache
from vocable.semantic.units import UnitCache

SHARDS = 200


@pytest.fixture(params=["features", "units"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of SHARDS shards; shard i has three rows with the value i, of one utterance."""
    for i in range(SHARDS):
        shape = (3, 4) if request.param == "features" else (3,)
        np.save(tmp_path / f"{i:05d}.npy", np.full(shape, i, np.float16 if request.param == "features" else np.int16))
    index = {"teacher": "t", "layer": 1, "utterances": {f"u{i}": [i, 0, 3] for i in range(SHARDS)}}
    index |= {"dimension": 4, "mean": [0.0] * 4} if request.param == "features" else {"num_units": SHARDS}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def cache_of(folder: Path) -> FeatureCache | UnitCache:
    return FeatureCache(folder) if "dimension" in (folder / "index.json").read_text() else UnitCache(folder)


def test_more_shards_than_open_files(folder: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(lowest_free, 64) + 20, hard))
    try:
        cache = cache_of(folder)
        for i in range(SHARDS):
            assert (cache(f"u{i}", 1, 2) == i).all()
        everything = np.concatenate(cache.shards)  # as for data.on_device
        assert len(everything) == 3 * SHARDS and (everything[-3:] == SHARDS - 1).all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_not_reported_as_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, mode: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(np.lib.format, "open_memmap", fails)
    with pytest.raises(OSError, match=r"Too many open files.*00000\.npy"):
        cache_of(folder)
