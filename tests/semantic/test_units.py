"""Units: from sounds of three kinds to three clusters and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import run_command
from vocable.semantic import units as module
from vocable.semantic.cache import FeatureCache
from vocable.semantic.units import UnitCache, make_units

pytest.importorskip("sklearn")

LENGTHS = (40, 300, 1, 159, 100)
KINDS = np.array([[9.0, 0, 0], [0, -9, 0], [0, 0, 99]], np.float32)


@pytest.fixture
def spoken() -> list[np.ndarray]:
    """The kind of every frame of every utterance."""
    return [np.random.default_rng(n).integers(0, 3, n) for n in LENGTHS]


@pytest.fixture
def features(spoken: list[np.ndarray], tmp_path: Path) -> Path:
    """A feature cache of two shards."""
    folder = tmp_path / "features"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = [KINDS[kinds] + 0.1 * rng.normal(size=(len(kinds), 3)) for kinds in spoken]
    np.save(folder / "00000.npy", np.concatenate(frames[:2]).astype(np.float16))
    np.save(folder / "00001.npy", np.concatenate(frames[2:]).astype(np.float16))
    places = {"a": (0, 0, 40), "b": (0, 40, 300), "c": (1, 0, 1), "d": (1, 1, 159), "e": (1, 160, 100)}
    index = {"teacher": "some/teacher", "layer": [2, 4], "dimension": 3, "utterances": places}
    index["mean"] = np.concatenate(frames).mean(0).tolist()
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def test_units_are_the_kinds_of_frames(features: Path, spoken: list[np.ndarray], tmp_path: Path) -> None:
    fractions: list[float] = []
    summary = make_units(FeatureCache(features), tmp_path / "units", 3, progress=fractions.append)
    assert sum(fractions) == pytest.approx(1)
    cache = UnitCache(tmp_path / "units")
    assert (cache.teacher, cache.layer, cache.num_units) == ("some/teacher", (2, 4), 3)
    assert "d" in cache and "z" not in cache
    centroids = np.load(tmp_path / "units" / "centroids.npy")
    assert centroids.shape == (3, 3) and centroids.dtype == np.float32
    kind_of = np.square(centroids[:, None] - KINDS).sum(-1).argmin(1)  # in the teacher's features: mean not removed
    np.testing.assert_allclose(centroids, KINDS[kind_of], atol=0.1)
    for name, kinds in zip("abcde", spoken, strict=True):
        found = cache(name, 0, len(kinds) + 2)
        assert found.dtype == np.int64 and (found[-2:] == -100).all()
        assert (kind_of[found[:-2]] == kinds).all()
    assert (kind_of[cache("d", 7, 20)] == spoken[3][7:27]).all()
    assert (cache("c", 1, 4) == -100).all() and (cache("c", 9, 4) == -100).all()
    assert np.load(tmp_path / "units" / "00001.npy").dtype == np.int16

    frequencies = np.bincount(np.concatenate(spoken)) / sum(LENGTHS)
    assert summary.frames == sum(LENGTHS) and summary.in_use == 3
    assert summary.perplexity == pytest.approx(np.exp(-(frequencies * np.log(frequencies)).sum()))
    assert 0.01 < summary.inertia < 0.06  # three dimensions of noise of variance 0.01


def test_an_interrupted_run_resumes(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "units"
    summary = make_units(FeatureCache(features), out, 5, seed=1)
    whole = {p.name: p.read_bytes() for p in out.iterdir()}
    for lost in ("00001.npy", "index.json"):
        (out / lost).unlink()
    with pytest.raises(ValueError, match="no complete folder of units; run `vocable semantic units` first"):
        UnitCache(out)
    monkeypatch.setattr(module, "_fit", lambda *_: pytest.fail("the centroids are there already"))
    assert make_units(FeatureCache(features), out, 5, seed=1) == summary
    assert {p.name: p.read_bytes() for p in out.iterdir()} == whole
    for other in ({"num_units": 6}, {"num_units": 5, "seed": 2}, {"num_units": 5, "sample_frames": 50}):
        with pytest.raises(ValueError, match="was begun with another feature cache, number of units, sample or seed"):
            make_units(FeatureCache(features), out, **other)
    monkeypatch.undo()
    make_units(FeatureCache(features), tmp_path / "again", 5, seed=1)
    assert (tmp_path / "again" / "00000.npy").read_bytes() == whole["00000.npy"], (
        "the seed and the cache determine the units"
    )


def test_what_is_no_folder_of_units(features: Path, tmp_path: Path) -> None:
    for wrong in (1, 601):
        with pytest.raises(ValueError, match=f"{wrong} units from .* a frame for each"):
            make_units(FeatureCache(features), tmp_path / "units", wrong)
    assert not (tmp_path / "units").exists()
    with pytest.raises(ValueError, match="it has no num_units"):
        UnitCache(features)
    make_units(FeatureCache(features), tmp_path / "units", 3)
    with pytest.raises(ValueError, match="it has no dimension"):
        FeatureCache(tmp_path / "units")
    (tmp_path / "units" / "00001.npy").unlink()
    with pytest.raises(ValueError, match=r"00001.npy: missing or damaged; delete it and run `vocable semantic units`"):
        UnitCache(tmp_path / "units")


def test_command(features: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "units"
    assert run_command("semantic", "units", features, "-k", 3, "--sample", 200, "-o", out) == 0
    assert f"units of 600 frames in {out}: 3 of 3 in use, perplexity 3, inertia 0.0" in capfd.readouterr().err
    assert UnitCache(out).num_units == 3
    calls = {
        (features, "-k", 4, "-o", out): "was begun with another",
        (features, "-o", features): "holds other results",
        (features, "-k", 4, "-o", features / "index.json"): "File exists",
        (tmp_path / "absent", "-o", out): "no complete feature cache",
    }
    for call, message in calls.items():
        assert run_command("semantic", "units", *call) == 2
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith("vocable: ") and message in line


def test_layers_on_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("transformers")
    from semantic.test_teacher import noise, save_teacher

    soundfile.write(tmp_path / "a.wav", noise(8000), 16_000)
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "path": "a.wav", "duration": 0.5}))
    call = ("semantic", "extract", tmp_path / "a.jsonl", "--teacher", save_teacher("hubert", tmp_path / "teacher"))
    for text, layer in (("2", 2), ("avg", "avg"), ("2,0,1", (0, 1, 2))):
        assert run_command(*call, "--layer", text, "-o", tmp_path / text) == 0
        assert FeatureCache(tmp_path / text).layer == layer
    capfd.readouterr()
    for wrong in ("nine", "1:3", "2,", "-1"):
        assert run_command(*call, "--layer", wrong, "-o", tmp_path / "x") == 2
        assert "--layer is a number, several numbers such as 2,4,6, or avg" in capfd.readouterr().err
