"""The harness of short trainings: which clips, what is trained and what measured, and its tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ablations
import trial_figures
from conftest import ROOT, SPEECH
from trial_figures import BAD, TABLES, Known, Trials
from vocable import SpeechTokenizer, audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation.metrics import Judges


def clip(i: int, speaker: str, seconds: float = 4.0, text: str | None = None) -> Utterance:
    return Utterance(f"{speaker}-{i}", SPEECH, seconds, speaker, text, language="en")


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    train = [clip(i, s) for s in "abcd" for i in range(6)] + [clip(i, "e") for i in range(3)]
    dev = [clip(i, s, text="a word" if s == "u" else None) for s in "uvwxyz" for i in range(6)]
    return Trials(train, dev, Known.read(tmp_path / "known.json"), Judges(tmp_path))


def test_clips_of_trials_are_dealt_out_over_speakers(trials: Trials) -> None:
    speakers = [u.speaker for u in trials.fit]
    assert speakers == [s for s in "abcd" for _ in range(4)], "a speaker with three clips cannot be read in four folds"
    assert len(trials.sound) == 18 and len(trials.changed) == 6
    assert {u.speaker for u in trials.words} == {"u"}
    assert {u.speaker for u in trials.sources} == set("uvwxyz")


def test_references_are_other_voices(trials: Trials) -> None:
    angles = dict(zip("uvwxyz", range(6), strict=True))
    for u in [*trials.sound, *trials.sources]:
        angle = angles[u.speaker or ""] / 5
        trials.known.voices[u.id] = [float(np.cos(angle)), float(np.sin(angle))]
    for source, reference in zip(trials.sources, trials.references(), strict=True):
        assert source.speaker != reference.speaker
        if source.speaker == "u":
            assert reference.speaker in "xyz", "the half that are least alike"


def test_what_is_known_of_recordings_is_kept(trials: Trials) -> None:
    trials.known.phones["a"] = [[1, 4], [2, 3]]
    trials.known.words["a"] = (1, 7)
    trials.known.write()
    again = Known.read(trials.known.path)
    frames, phones = again.phones_of(Utterance("a", SPEECH, 1.0))
    assert frames.tolist() == [1, 4] and phones.tolist() == [2, 3] and again.words == {"a": [1, 7]}


def test_ids_that_stay_are_counted_by_frames(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    tok = SpeechTokenizer.from_pretrained()
    trials.changed = trials.changed[:1]
    speech = audio.read(SPEECH, 16_000)[0][:16_000]
    monkeypatch.setattr(trial_figures, "read", lambda clip: speech)
    scores = trials.change(tok)
    assert set(scores) == {f"{name} {layers}" for name in BAD for layers in ("1", "all")}
    for score in (found[0] for found in scores.values()):
        assert score is not None and 0 <= score[0] <= score[1] == 50


def test_a_codec_that_lies_there_without_a_state_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: Trials
) -> None:
    pytest.importorskip("yaml", reason="recipes need it")
    plans = ablations.read_plans(ROOT / "recipes" / "ablations" / "base.yaml")
    assert next(iter(plans)) == "base" and "hubert-9" not in plans, "it is for a GPU"
    recipe = plans["base"].recipe
    monkeypatch.setattr(Trials, "measure", lambda self, tok: {"codec": tok.id})
    monkeypatch.setattr(ablations, "train", lambda recipe, folder: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    model = tmp_path / "base" / "model"
    assert ablations.outcome(recipe, model, trials) is None, "there is nothing yet: it was to be trained"
    SpeechTokenizer.from_pretrained().save_pretrained(model)
    measured = ablations.outcome(recipe, model, trials)
    assert measured == {"codec": SpeechTokenizer.from_pretrained().id}
    (model.parent / "state.safetensors").touch()
    assert ablations.outcome(recipe, model, trials) is None, "a run that has a state goes on"


def test_tables_of_trials(trials: Trials) -> None:
    pytest.importorskip("scipy", reason="intervals need it")
    plan = ablations.Plan(Path("base.yaml"), "the base", None)  # type: ignore[arg-type]
    columns = [column for table in TABLES.values() for column in table]
    scores = {key: [(0.5, 1)] * len(trials.clips(of)) for key, of, *_ in columns}
    scores["pesq :8"][0] = None  # type: ignore[call-overload]
    report = {"setup": {"max_time": "7-steps"}, "steps": {"base": 7}, "runs": {"base": {"scores": scores}}}
    text = ablations.trial_tables(report, {"base": plan, "other": plan}, {"base": "base.yaml"}, trials, 0)
    assert "7 steps each" in text and "Not run yet: other." in text
    assert text.count("| base |") == len(TABLES)
    assert "| 0.50 (0.50 to 0.50) |" in text, "PESQ of the clips that have it"
    assert "| base | 50.0 (50.0 to 50.0) | 50.0 |" in text, "words of one speaker have no interval"


def test_steps_and_trained_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ablations.py", "--trained", "x"])
    with pytest.raises(SystemExit):
        ablations.arguments()
    monkeypatch.setattr(sys, "argv", ["ablations.py", "--base", "a/trials/base.yaml", "--steps", "3"])
    args = ablations.arguments()
    assert (args.runs, args.out) == (Path("runs/trials"), Path("benchmarks/results/trials.json"))
