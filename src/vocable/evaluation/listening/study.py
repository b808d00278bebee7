"""Make a listening test: stimuli, blinded trials, page and key.

DIR/public/test.html    the test, one file with all audio; this folder can be given to listeners
DIR/public/audio/       the stimuli as WAV files, for other platforms
DIR/public/webmushra/   a configuration of webMUSHRA for each listener; forms.yaml: the same trials for other platforms
DIR/key.json            which stimulus is of which system; keep it from listeners
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import vocable
from vocable.corpus.manifest import read_json_object
from vocable.evaluation.listening import design, sound
from vocable.evaluation.listening.kinds import LOW_ANCHOR, MID_ANCHOR, REFERENCE
from vocable.evaluation.listening.page import page_text
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.listening.platforms import write_platforms
from vocable.evaluation.listening.speech import Item, items, select
from vocable.evaluation.listening.stimuli import OPEN, PROMPT, Stimuli, X
from vocable.evaluation.metrics import Judges, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.runner import Progress, no_progress
from vocable.evaluation.scoring import scores
from vocable.evaluation.summary import language_of
from vocable.files import atomic_path
from vocable.training.recipe_file import build

FORMAT = "vocable-listening-key-1"
CHECK_SECONDS = 1.5  #: of speech before the beeps
SHOWN_IN_TRAINING = 4  #: conditions of each training clip
WRITTEN = 1_700_000_000  #: the time stamp of all files, so that the order of writing stays unknown


def make(plan: Plan, out: Path, *, progress: Progress = no_progress) -> dict[str, Any]:
    """Make a test in the folder `out`, and return its key.

    Raises ValueError if the folder holds a test, clips or systems are missing, or no number of listeners suffices.
    """
    if (out / "key.json").exists():
        raise ValueError(f"{out} holds a listening test; name another folder")
    plan = replace(plan.sized(), seed=secrets.randbits(32) if plan.seed is None else plan.seed)
    judges = Judges(Path(plan.judges))
    versions = made_with(plan.predictors or (), judges)
    selection = select(plan)
    stimuli, texts = Stimuli(), {}
    clips = [*selection.training, *selection.test]
    for count, item in enumerate(items(plan, clips), 1):
        _add(plan, stimuli, item)
        texts[item.clip.id] = (item.clip.text, language_of(item.clip))
        progress("clips", count / len(clips))
    training = [clip.id for clip in selection.training]
    checks = _add_checks(plan, stimuli, training[0]) if plan.kind != "mushra" and plan.checks else {}
    loudness = stimuli.level(plan.loudness)
    tests = [clip.id for clip in selection.test]
    forms = _forms(plan, tests, stimuli, checks)
    pcm = stimuli.pcm()
    key: dict[str, Any] = {
        "format": FORMAT,
        "vocable": vocable.__version__,
        "study": hashlib.sha256("".join(pcm).encode()).hexdigest()[:10],
        "plan": dataclasses.asdict(plan),
        "clips": tests,
        "unused": selection.unused,
        "loudness": round(loudness, 2),
        "expected_power": round(plan.expected_power(round(plan.listeners * (1 - plan.dropout))), 4),
        "stimuli": {token: {"clip": c, "system": s} for (c, s), token in sorted(stimuli.tokens.items())},
        "forms": forms,
        "made_with": versions,
        "predictions": _predict(plan, stimuli, tests, texts, judges, progress),
    }
    shown = [trial for clip in training for trial in _training(plan, clip, stimuli)] + list(checks.values())[1:2]
    _write(out, plan, key, pcm, shown, stimuli.tokens[training[0], _calibrator(plan)])
    return key


def read_key(path: Path) -> tuple[dict[str, Any], Plan]:
    """Read key.json of a test. Raises ValueError for another file."""
    key = read_json_object(path, advice="name key.json of `vocable listen make`")
    if key.get("format") != FORMAT:
        raise ValueError(f"{path}: not the key of a listening test; name key.json of `vocable listen make`")
    plan: Plan = build(Plan, {name: value for name, value in key["plan"].items() if value is not None}, path.name)
    return key, plan


# ---- stimuli -----------------------------------------------------------------------------------------------------


def _add(plan: Plan, stimuli: Stimuli, item: Item) -> None:
    clip = item.clip.id
    for name in plan.systems:
        stimuli.add(clip, name, item.versions[name])
        if plan.kind == "abx":
            stimuli.add(clip, f"{X} {name}", item.versions[name])
    if plan.kind == "mushra":
        for name in (OPEN, REFERENCE):
            stimuli.add(clip, name, item.recording)
        for name, cutoff in ((LOW_ANCHOR, 3500.0), (MID_ANCHOR, 7000.0)):
            stimuli.add(clip, name, sound.low_pass(item.recording, cutoff))
    if plan.kind == "smos":
        stimuli.add(clip, PROMPT, item.recording if item.voice is None else item.voice)
    if plan.predictors and plan.kind != "mushra":
        stimuli.add(clip, OPEN, item.recording)  # predictors compare with it; listeners do not hear it


def _calibrator(plan: Plan) -> str:
    """Return the stimulus of a training clip that listeners set their volume by."""
    return OPEN if plan.kind == "mushra" else plan.systems[0]


def _add_checks(plan: Plan, stimuli: Stimuli, clip: str) -> dict[int, dict[str, Any]]:
    """Add the attention checks, and return their trials by the expected answer."""
    speech = stimuli.waveforms[clip, plan.systems[0]][: round(CHECK_SECONDS * SAMPLE_RATE)]
    found = {}
    for answer in range(1, len(plan.scale.options) + 1):
        name = f"check {answer}"
        stimuli.add(name, "beeps", sound.beeps(speech, answer))
        count = {"smos": 2, "preference": 2, "abx": 3}.get(plan.kind, 1)
        tokens = [stimuli.tokens[name, "beeps"]] * count
        found[answer] = {"role": "check", "expected": answer, "stimuli": tokens}
    return found


# ---- trials ------------------------------------------------------------------------------------------------------


def _forms(plan: Plan, clips: list[str], stimuli: Stimuli, checks: Mapping[int, Any]) -> list[list[dict[str, Any]]]:
    """Return the trials of each listener, attention checks among them."""
    if plan.kind == "mushra":
        sessions = design.full_trials(plan.block, len(clips), plan.listeners, seed=plan.known_seed)
        return [
            [_mushra_trial(clips[clip], [plan.on_screen[i] for i in order], stimuli) for clip, order in session]
            for session in sessions
        ]
    rng = np.random.default_rng(plan.known_seed + 1)
    forms = []
    for session in plan.trials():
        trials = [_trial(plan, clips[trial.clip], plan.conditions[trial.condition], stimuli) for trial in session]
        for _ in range(plan.checks if checks else 0):
            answer = int(rng.integers(1, len(checks) + 1))
            trials.insert(int(rng.integers(1, len(trials) + 1)), checks[answer])
        forms.append(trials)
    return forms


def _mushra_trial(clip: str, order: list[str], stimuli: Stimuli) -> dict[str, Any]:
    tokens = [stimuli.tokens[clip, name] for name in (OPEN, *order)]
    return {"role": "test", "clip": clip, "stimuli": tokens}


def _trial(plan: Plan, clip: str, condition: tuple[str, ...], stimuli: Stimuli) -> dict[str, Any]:
    names = list(condition)
    if plan.kind == "smos":
        names = [PROMPT, *names]
    if plan.kind == "abx":
        names[2] = f"{X} {names[2]}"
    return {"role": "test", "clip": clip, "stimuli": [stimuli.tokens[clip, name] for name in names]}


def _training(plan: Plan, clip: str, stimuli: Stimuli) -> list[dict[str, Any]]:
    if plan.kind == "mushra":
        order = np.random.default_rng(plan.known_seed).permutation(plan.on_screen).tolist()
        return [_mushra_trial(clip, order, stimuli)]
    every = max(1, len(plan.conditions) // SHOWN_IN_TRAINING)
    return [_trial(plan, clip, condition, stimuli) for condition in plan.conditions[::every]]


# ---- predictions -------------------------------------------------------------------------------------------------


def _predict(
    plan: Plan, stimuli: Stimuli, clips: list[str], texts: Mapping[str, Any], judges: Judges, progress: Progress
) -> dict[str, dict[str, float]]:
    """Return the predictors' scores of the stimuli of the test: blind name -> metric -> score."""
    found: dict[str, dict[str, float]] = {}
    names = plan.on_screen if plan.kind == "mushra" else plan.systems
    for count, clip in enumerate(clips if plan.predictors else (), 1):
        reference, voice = stimuli.waveforms[clip, OPEN], stimuli.waveforms.get((clip, PROMPT))
        for name in names:
            decoded = stimuli.waveforms[clip, name]
            text, language = texts[clip]
            row = scores(Pair(reference, decoded, text, language, voice=voice), plan.predictors or (), judges)
            judged = {metric: row[metric] for metric in plan.predictors or () if row[metric]}
            found[stimuli.tokens[clip, name]] = {metric: total / n for metric, (total, n) in judged.items()}
        progress("predictors", count / len(clips))
    return found


# ---- files -------------------------------------------------------------------------------------------------------


def _write(
    out: Path, plan: Plan, key: Mapping[str, Any], pcm: Mapping[str, np.ndarray], training: list[Any], level: str
) -> None:
    public = out / "public"
    heard = {level} | {token for form in [training, *key["forms"]] for trial in form for token in trial["stimuli"]}
    audible = {token: samples for token, samples in pcm.items() if token in heard}
    (public / "audio").mkdir(parents=True, exist_ok=True)
    for token, samples in audible.items():
        with atomic_path(public / "audio" / f"{token}.wav") as temporary:
            soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")
    write_platforms(out, plan, key)
    with atomic_path(public / "test.html") as temporary:
        temporary.write_text(page_text(plan, key, audible, training, level), encoding="utf-8")
    for path in sorted(public.rglob("*")):
        os.utime(path, (WRITTEN, WRITTEN))
    with atomic_path(out / "key.json") as temporary:
        temporary.write_text(json.dumps(key, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
