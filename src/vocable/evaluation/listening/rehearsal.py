"""Answers of simulated listeners to a real test, marked as such: they rehearse the report before anyone listens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vocable.evaluation.listening.answers import FORMAT
from vocable.evaluation.listening.kinds import LOW_ANCHOR, MID_ANCHOR, REFERENCE
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.listening.simulation import REFERENCE_SPREAD, SLIP
from vocable.files import atomic_path


def write_answers(key: Mapping[str, Any], plan: Plan, out: Path, *, careless: float, seed: int) -> dict[str, float]:
    """Write a file of answers for each listener to the folder `out`; return the systems' true scores.

    The scores are at equal distances in the order of the plan, and mean nothing. A fraction `careless` of the listeners
    answers at random.
    """
    rng = np.random.default_rng(seed)
    scale, spread = plan.scale, plan.spread or plan.scale.spread
    low, high = (1.0, 5.0) if scale.compares else (scale.low, scale.high)
    names = [*plan.systems, MID_ANCHOR, LOW_ANCHOR]
    centres = dict(
        zip(names, np.linspace(low + 0.75 * (high - low), low + 0.2 * (high - low), len(names)), strict=True)
    )
    clips = {clip: rng.normal(0, spread.clip) for clip in key["clips"]}
    versions = {(name, clip): rng.normal(0, spread.clip_system) for name in names for clip in key["clips"]}
    for number, form in enumerate(key["forms"], 1):
        random = rng.random() < careless
        taste = {name: rng.normal(0, spread.listener_system) for name in names}
        lenient = rng.normal(0, spread.listener)

        def score(token: str, taste: Mapping[str, float] = taste, lenient: float = lenient) -> float:
            clip, name = (key["stimuli"][token][field] for field in ("clip", "system"))
            if name == REFERENCE:
                return 100 - abs(rng.normal(0, REFERENCE_SPREAD))
            name = name.removeprefix("X ")
            effects = clips[clip] + versions[name, clip] + taste[name] + lenient
            return float(centres[name] + effects + rng.normal(0, spread.residual))

        answers = []
        for index, trial in enumerate(form):
            rated = trial["stimuli"][1:] if plan.kind == "mushra" else [""]
            highest = len(scale.options) or 100
            values = rng.integers(1 if scale.options else 0, highest + 1, len(rated)).tolist()
            if not random and trial["role"] == "check" and rng.random() > SLIP:
                values = [trial["expected"]]
            elif not random and trial["role"] == "test":
                values = _values(plan, key, trial["stimuli"], score, rng)
            answers.append({"trial": index, "values": values, "plays": [], "seconds": round(rng.uniform(8, 30), 1)})
        content = {
            "format": FORMAT,
            "simulated": True,
            "study": key["study"],
            "listener": number,
            "session": "simulated",
        }
        with atomic_path(out / f"listener-{number}-simulated.json") as temporary:
            temporary.write_text(json.dumps(content | {"answers": answers}) + "\n", encoding="utf-8")
    return {name: float(value) for name, value in centres.items()}


def _values(plan: Plan, key: Mapping[str, Any], tokens: list[str], score: Any, rng: np.random.Generator) -> list[int]:
    """Return the answer of an attentive listener to a trial."""
    scale = plan.scale
    if plan.kind == "preference":
        difference = score(tokens[0]) - score(tokens[1])
        return [3 if abs(difference) < _tie(plan) else 1 if difference > 0 else 2]
    if plan.kind == "abx":
        systems = [key["stimuli"][token]["system"] for token in tokens]
        right = 1 if systems[2] == f"X {systems[0]}" else 2
        return [right if rng.random() < 0.75 else 3 - right]
    rated = tokens[1:] if plan.kind == "mushra" else tokens[-1:]
    return [int(np.clip(round(score(token)), scale.low, scale.high)) for token in rated]


def _tie(plan: Plan) -> float:
    """Return the difference below which a simulated listener has no preference."""
    return 0.3 * (plan.spread or plan.scale.spread).residual
