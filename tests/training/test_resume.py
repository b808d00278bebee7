"""Resuming: a run that an earlier version began, and what may change between its parts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from conftest import run_command, tiny_config
from vocable.training import loop
from vocable.training.codec import CodecTrainer
from vocable.training.recipe import Recipe, from_dict
from vocable.training.recipe_file import changed_fields
from vocable.training.state import load_state
from vocable.training.stop import Interrupted

pytest.importorskip("accelerate")

BEGUN = Path(__file__).parent / "begun"  #: recipe.json and state.safetensors of `plan()`, by vocable at b524909


def write_corpus(folder: Path) -> None:
    """corpus/: six clips of gliding tones and noise with speakers, and phones of five of them."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for i in range(6):
        t = np.arange(12_000 + 500 * i) / 16_000
        samples = 0.2 * np.sin(2 * np.pi * (150 + 40 * i) * t * (1 + 0.3 * t)) + 0.01 * rng.normal(size=len(t))
        soundfile.write(folder / f"{i}.flac", samples, 16_000)
        rows.append({"id": str(i), "path": f"{i}.flac", "duration": len(t) / 16_000, "speaker": f"s{i % 3}"})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "phones").mkdir()
    np.save(folder / "phones" / "00000.npy", rng.integers(0, 6, 250).astype(np.int16))
    places = {row["id"]: [0, 50 * i, 50] for i, row in enumerate(rows[1:])}
    index = {"teacher": "aligner", "layer": 0, "num_units": 6, "utterances": places}
    (folder / "phones" / "index.json").write_text(json.dumps(index))


def plan(corpus: str = "corpus", **changes: Any) -> Recipe:
    """Content losses, Muon and an average of a tiny codec; eight steps."""
    spectral = dict(tiny_config().to_dict()["spectral"])
    spectral |= {"n_fft": 160, "fine_dim": 8, "frame_dim": 8, "content_blocks": 1}
    sizes = {"dimension": 8, "num_quantizers": 2, "codebook_size": 16, "semantic_dimension": 4}
    values: dict[str, Any] = {
        "name": "begun",
        "codec": tiny_config().to_dict() | sizes | {"spectral": spectral},
        "data": {
            "train": f"{corpus}/train.jsonl",
            "dev": f"{corpus}/train.jsonl",
            "crop_seconds": 0.32,
            "batch_size": 4,
            "workers": 1,
        },
        "losses": {"resolutions": [[256, 20]]},
        "content": {"phones": 1.0, "labels": f"{corpus}/phones", "consistency": 1.0},
        "quantizer": {"start_step": 2, "kmeans_iterations": 3},
        "optimizer": {"muon": 0.01, "ema_decay": 0.9},
        "max_steps": 8,
        "save_every": 5,
        "evaluate_every": 8,
        "dev_clips": 2,
        "precision": "float32",
    }
    return from_dict(values | changes)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the corpus in it."""
    write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(folder: str, **changes: Any) -> None:
    """Begin a run of `plan()` and stop it after three steps."""
    trainer = CodecTrainer(plan(**changes), folder)
    step = trainer.train_step

    def stop(parts: list[Any]) -> dict[str, float]:
        if trainer.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(parts)

    trainer.train_step = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.run()


def test_a_run_that_an_earlier_version_began_goes_on(corpus: Path) -> None:
    shutil.copytree(BEGUN, corpus / "begun")
    resumed, whole = CodecTrainer(plan(), "begun"), CodecTrainer(plan(), "whole")
    resumed.resume()
    assert resumed.step == 5
    resumed.run()
    whole.run()
    for name, component in whole.components().items():
        for key, tensor in resumed.components()[name].state_dict().items():
            # Another CPU rounds otherwise.
            torch.testing.assert_close(tensor, component.state_dict()[key], atol=1e-3, rtol=1e-2, msg=f"{name}/{key}")


def test_what_does_not_matter_may_change(corpus: Path) -> None:
    begin("run")
    (corpus / "corpus").rename(corpus / "elsewhere")
    (corpus / "run").rename(corpus / "moved")
    moved = plan("elsewhere", name="other", device="cpu", threads=1)
    data = dataclasses.replace(moved.data, workers=3, preload=False)
    trainer = CodecTrainer(dataclasses.replace(moved, data=data), "moved")
    trainer.resume()
    assert trainer.step == 3
    trainer.run()


def test_other_contents_under_the_same_name_are_another_run(corpus: Path) -> None:
    begin("run")
    rows = (corpus / "corpus/train.jsonl").read_text().splitlines()
    (corpus / "corpus/train.jsonl").write_text("\n".join(rows[::-1]))
    phones = np.load(corpus / "corpus/phones/00000.npy")
    np.save(corpus / "corpus/phones/00000.npy", phones[::-1])
    with pytest.raises(ValueError, match=r"begun with another content\.labels, data\.train: give the same"):
        CodecTrainer(plan(), "run").resume()


def test_fields_of_later_versions_have_their_defaults(corpus: Path) -> None:
    begin("run")
    path = corpus / "run/recipe.json"
    values = json.loads(path.read_text())
    del values["data"]["language_temperature"], values["codec"]["spectral"]["causal"], values["adversary"]
    path.write_text(json.dumps(values | {"removed": 1}))
    CodecTrainer(plan(), "run").resume()
    data = dataclasses.replace(plan().data, language_temperature=0.5)
    changed = dataclasses.replace(plan(adversary={"weight": 1.0}), data=data)
    assert set(changed_fields(changed, values)) == {"data.language_temperature", "adversary"}
    del values["data"]["train"]
    assert "data.train" in set(changed_fields(plan(), values)), "it has no default"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "{", "[1]", "5"])
def test_a_damaged_recipe_is_one_line(text: str, corpus: Path) -> None:
    begin("run")
    (corpus / "run/recipe.json").write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.json: damaged"):
        CodecTrainer(plan(), "run").resume()


@pytest.mark.parametrize("header", ["[" * 100_000, "[1]", "{"])
def test_a_damaged_state_is_one_line(header: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"vocable": header})
    with pytest.raises(ValueError, match="not a checkpoint of this trainer"):
        load_state(path)


def test_one_run_at_a_time_in_a_folder(corpus: Path) -> None:
    first, second = CodecTrainer(plan(), "run"), CodecTrainer(plan(seed=5), "run")
    step, refused = first.train_step, []

    def meanwhile(parts: list[Any]) -> dict[str, float]:
        if first.step == 1:
            with pytest.raises(ValueError, match="another run uses this folder"):
                second.run()
            refused.append(True)
        return step(parts)

    first.train_step = meanwhile  # type: ignore[method-assign]
    first.run()
    assert refused and json.loads((corpus / "run/recipe.json").read_text())["seed"] == 0
    with pytest.raises(ValueError, match=r"holds a run at step 8: resume it with --resume"):
        second.run()
    assert json.loads((corpus / "run/recipe.json").read_text())["seed"] == 0


@pytest.mark.parametrize("options", [[], ["--resume"]])
def test_a_second_run_is_refused_before_it_reads_its_data(
    options: list[str], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus / "recipe.yaml").write_text(json.dumps(dataclasses.asdict(plan("absent"))))
    shutil.copytree(BEGUN, corpus / "run")
    with loop.one_at_a_time(corpus / "run"):
        assert run_command("train", "codec", "recipe.yaml", "-o", "run", *options) == 2
    assert "another run uses this folder" in capsys.readouterr().err


def test_no_time_is_no_run(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "recipe.yaml").write_text(json.dumps(dataclasses.asdict(plan())))
    assert run_command("train", "codec", "recipe.yaml", "--max-time", "0s") == 2
    assert run_command("train", "vocoder", "corpus/phones", "--manifest", "corpus/train.jsonl", "--max-time", "0m") == 2
    assert capsys.readouterr().err.count("must be longer than 0 s") == 2
    assert not (corpus / "runs").exists()
    for never in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="longer than 0 s"):
            CodecTrainer(plan(), "run", max_time=never)
