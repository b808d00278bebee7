"""The trainer of vocoders: it resumes, and leaves the vocoder in the folder of its units."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch

from conftest import tiny_config
from training.test_resume import corpus  # noqa: F401 (a fixture)
from vocable.semantic.vocoder import Vocoder
from vocable.training.recipe import Recipe
from vocable.training.stop import Interrupted
from vocable.training.vocoder import VocoderTrainer, vocoder_recipe

pytest.importorskip("accelerate")


def plan() -> Recipe:
    """The recipe of a tiny vocoder of the corpus's phones, for six steps."""
    whole = vocoder_recipe("corpus/phones", manifest="corpus/train.jsonl", seed=2)
    data = dataclasses.replace(whole.data, crop_seconds=0.32, batch_size=4)
    losses = dataclasses.replace(whole.losses, resolutions=((256, 20),))
    return dataclasses.replace(whole, codec=tiny_config(), data=data, losses=losses, max_steps=6, precision="float32")


def test_a_resumed_vocoder_is_that_of_an_uninterrupted_run(corpus: Path) -> None:  # noqa: F811
    whole = VocoderTrainer(plan(), "whole")
    assert len(whole.data.utterances) == 5, "the first recording has no units"
    summary = whole.run()
    assert summary["steps"] == 6
    about = json.loads((corpus / "corpus/phones/vocoder.json").read_text())
    assert about == {"num_units": 6, "steps": 6, "seconds": summary["seconds"], "seed": 2}
    assert Vocoder.is_trained("corpus/phones")

    half = VocoderTrainer(plan(), "half")
    step = half.train_step

    def stop(micro_batches: list) -> dict[str, float]:
        if half.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(micro_batches)

    half.train_step = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        half.run()
    again = VocoderTrainer(plan(), "half")
    again.resume()
    assert again.step == 3
    again.run()
    resumed = again.vocoder.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.vocoder.state_dict().items())


def test_recordings_without_units_are_refused(corpus: Path) -> None:  # noqa: F811
    (corpus / "corpus/other.jsonl").write_text('{"id": "z", "path": "0.flac", "duration": 0.75}')
    with pytest.raises(ValueError, match="none of its recordings has units in corpus/phones"):
        VocoderTrainer(vocoder_recipe("corpus/phones", manifest="corpus/other.jsonl"), "run")


def test_a_vocoder_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    vocoder = Vocoder(3)
    vocoder.save(tmp_path, steps=1)
    loaded = Vocoder.load(tmp_path)
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in vocoder.state_dict().items())
    (tmp_path / "vocoder.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="missing or damaged; run `vocable train vocoder` again"):
        Vocoder.load(tmp_path)
