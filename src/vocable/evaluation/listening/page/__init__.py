"""The page of a test: one HTML file with its style, scripts, trials and audio."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocable.evaluation.listening.kinds import KINDS
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.metrics.base import SAMPLE_RATE

HERE = Path(__file__).parent
BANDS = KINDS["mos"].options  #: labels of the fifths of a slider
#: Texts of the kinds: a paragraph of the first page.
INTRODUCTIONS = {
    "mushra": "On each page you hear a reference and several versions of it. Rate the quality of each version from 0 "
    "(bad) to 100 (excellent), compared with the reference. One of the versions is the reference itself: it should get "
    "100. You can switch between versions while they play.",
    "mos": "On each page you hear a clip of speech. Rate its quality from 1 (bad) to 5 (excellent).",
    "smos": "On each page you hear two clips of speech: a prompt and a sample. Rate how similar the voice of the "
    "sample is to the voice of the prompt. Do not mind the words or the quality.",
    "preference": "On each page you hear two versions of a clip, A and B. Choose the one that sounds better. You can "
    "switch between them while they play.",
    "abx": "On each page you hear three versions of a clip. X is the same as A or as B: choose which. You can switch "
    "between them while they play.",
}
CHECKS = "If a clip ends in beeps, do not rate it: count the beeps, and choose the answer with that number."


def page_text(
    plan: Plan, key: Mapping[str, Any], pcm: Mapping[str, np.ndarray], training: Sequence[Any], level: str
) -> str:
    """Return the page. pcm: blind name -> int16 [L]. training: trials. level: the stimulus to set the volume by."""
    checks = CHECKS if plan.kind != "mushra" and plan.checks else ""
    data = {
        "study": key["study"],
        "title": plan.title,
        "introduction": [INTRODUCTIONS[plan.kind], *[checks] * bool(checks)],
        "question": plan.scale.question,
        "checks": checks,
        "options": plan.scale.options,
        "bands": BANDS,
        "together": plan.kind in ("mushra", "preference", "abx"),
        "keyboard": _keyboard(plan),
        "sample_rate": SAMPLE_RATE,
        "level": level,
        "training": [_shown(plan, trial) for trial in training],
        "forms": [[_shown(plan, trial) for trial in form] for form in key["forms"]],
        "stimuli": {token: base64.b64encode(samples.tobytes()).decode() for token, samples in pcm.items()},
    }
    text = (HERE / "test.html").read_text(encoding="utf-8")
    parts = {
        "/*STYLE*/": (HERE / "test.css").read_text(encoding="utf-8"),
        "/*PLAYER*/": (HERE / "player.js").read_text(encoding="utf-8"),
        "/*SCRIPT*/": (HERE / "test.js").read_text(encoding="utf-8"),
        "<title>Listening test</title>": f"<title>{html.escape(plan.title)}</title>",
        "/*DATA*/": json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
    }
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _shown(plan: Plan, trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page knows of a trial: stimuli, their names on the screen, and which of them are rated."""
    count = len(trial["stimuli"])
    names = {
        "mushra": ["Reference", *(chr(ord("A") + i) for i in range(count - 1))],
        "mos": ["Play"],
        "smos": ["Prompt", "Sample"],
        "preference": ["A", "B"],
        "abx": ["A", "B", "X"],
    }[plan.kind]
    return {"stimuli": trial["stimuli"], "names": names, "rated": list(range(1, count))}


def _keyboard(plan: Plan) -> str:
    play = {
        "mushra": "R plays the reference, A, B, C … the versions; the arrow keys move the slider that has the focus.",
        "mos": "P plays and stops; 1 to 5 choose an answer.",
        "smos": "P plays the prompt, S the sample; 1 to 5 choose an answer.",
        "preference": "A and B play a version; 1, 2 and 3 choose an answer.",
        "abx": "A, B and X play a version; 1 and 2 choose an answer.",
    }[plan.kind]
    return f"{play} Tab moves to the next button."
