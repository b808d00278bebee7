"""Answers of listeners, joined with the key: arrays of scores by system, listener and clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable.corpus.manifest import parse_json, read_json_object
from vocable.evaluation.listening import screening
from vocable.evaluation.listening.kinds import KINDS, MID_ANCHOR, REFERENCE
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.listening.stimuli import X

FORMAT = "vocable-listening-1"
UNFINISHED = "did not finish"


@dataclass(frozen=True)
class Score:
    """One answer as a score."""

    listener: int
    clip: str
    judged: str  #: a system, or "A over B"
    score: float
    trial: int
    place: int  #: on the screen, from 0
    seconds: float  #: on the page


@dataclass(frozen=True)
class Answers:
    """All answers to a test. Axes: S judged, N listeners, M clips."""

    listeners: list[int]  #: numbers, N
    judged: list[str]  #: systems, or pairs as "A over B", S; in MUSHRA with hidden reference and anchors
    clips: list[str]  #: M
    scores: np.ndarray  #: float [S, N, M], NaN without an answer
    failed: np.ndarray  #: float [N, checks]: 1 failed, 0 passed
    rows: list[Score]
    left_out: dict[int, str]  #: listener -> reason
    seconds: dict[int, float]  #: listener -> median time on a page
    simulated: bool  #: whether a listener is a simulation

    def kept(self) -> np.ndarray:
        """Return the scores without listeners that are left out."""
        out = np.array([listener in self.left_out for listener in self.listeners], bool)
        return np.where(out[None, :, None], np.nan, self.scores)


def check_answers(content: Any, key: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the content of a file of answers. Raises ValueError, beginning with `name`, if it does not fit the key."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{name}: not answers to a listening test; name files that the test page stored")
    if content.get("study") != key["study"]:
        raise ValueError(f"{name}: answers to the test {content.get('study')!r}, not to {key['study']}; name its key")
    listener: Any = content.get("listener")
    answers = content.get("answers")
    if not _is_whole(listener, 1, len(key["forms"])):
        raise ValueError(f"{name}: no listener {listener!r}, there are 1 to {len(key['forms'])}; correct the number")
    if not isinstance(answers, list) or not isinstance(content.get("session"), str):
        raise ValueError(f"{name}: damaged: ask the listener for the file again")
    form, options = key["forms"][listener - 1], len(KINDS[key["plan"]["kind"]].options)
    low, high = (1, options) if options else (0, 100)
    for place, answer in enumerate(answers):
        values: Any = answer.get("values") if isinstance(answer, dict) else None
        good = isinstance(values, list) and place < len(form) and answer.get("trial") == place
        wanted = len(form[place]["stimuli"]) - 1 if good and not options else 1
        good = good and isinstance(answer.get("seconds"), (int, float)) and len(values) == wanted
        if not good or not all(_is_whole(value, low, high) for value in values):
            raise ValueError(f"{name}: damaged at page {place + 1}: ask the listener for the file again")
    return content


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def read_answers(paths: Sequence[Path], key: Mapping[str, Any], plan: Plan) -> Answers:
    """Read files of answers, and screen the listeners.

    A folder stands for its .json files. Of several files of one session the longest counts. Raises ValueError for a
    file that does not fit the key, or for two sessions of one listener.
    """
    sessions: dict[int, dict[str, Any]] = {}
    names: dict[int, Path] = {}
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    for path in files:
        content = check_answers(read_json_object(path, advice="ask the listener for the file again"), key, str(path))
        number = content["listener"]
        other = sessions.get(number)
        if other and other["session"] != content["session"]:
            raise ValueError(f"{path} and {names[number]}: two sessions of listener {number}; name only one of them")
        if not other or len(content["answers"]) >= len(other["answers"]):
            sessions[number], names[number] = content, path
    return _join(dict(sorted(sessions.items())), key, plan)


def parse_answers(text: bytes, key: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the answers that a page sends. Raises ValueError for anything else."""
    return check_answers(parse_json(text), key, "answers")


def _join(sessions: Mapping[int, Mapping[str, Any]], key: Mapping[str, Any], plan: Plan) -> Answers:
    judged = [" over ".join(names) for names in plan.judged] if plan.kind != "mushra" else plan.on_screen
    listeners, clips = list(sessions), list(key["clips"])
    checks = max((sum(trial["role"] == "check" for trial in form) for form in key["forms"]), default=0)
    failed = np.full((len(listeners), checks), np.nan)
    longest = max(map(len, key["forms"]))
    raw = np.full((len(listeners), longest), np.nan)
    rows: list[Score] = []
    for n, (number, session) in enumerate(sessions.items()):
        form, seen = key["forms"][number - 1], 0
        for answer in session["answers"]:
            trial = form[answer["trial"]]
            if trial["role"] == "check":
                failed[n, seen] = float(answer["values"][0] != trial["expected"])
                seen += 1
                continue
            raw[n, answer["trial"]] = answer["values"][0]
            rows += [Score(number, *found, answer["seconds"]) for found in _scores(trial, answer, key, plan)]
    totals, counts = np.zeros((2, len(judged), len(listeners), len(clips)))
    where = [{name: i for i, name in enumerate(names)} for names in (judged, listeners, clips)]
    for row in rows:
        cell = where[0][row.judged], where[1][row.listener], where[2][row.clip]
        totals[cell] += row.score
        counts[cell] += 1
    scores = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    finished = {number: len(s["answers"]) == len(key["forms"][number - 1]) for number, s in sessions.items()}
    reasons = _screen(plan, judged, scores, failed, raw)
    left_out = {number: UNFINISHED for number in listeners if not finished[number]}
    for number, reason in zip(listeners, reasons, strict=True):
        if reason:
            left_out.setdefault(number, reason)
    seconds = {n: float(np.median([a["seconds"] for a in s["answers"]] or [0])) for n, s in sessions.items()}
    simulated = any(session.get("simulated") for session in sessions.values())
    return Answers(listeners, judged, clips, scores, failed, rows, left_out, seconds, simulated)


def _scores(
    trial: Mapping[str, Any], answer: Mapping[str, Any], key: Mapping[str, Any], plan: Plan
) -> Iterator[tuple[str, str, float, int, int]]:
    """Yield clip, judged, score, trial and place of an answer."""
    systems = [key["stimuli"][token]["system"] for token in trial["stimuli"]]
    values, clip, index = answer["values"], trial["clip"], answer["trial"]
    if plan.kind == "mushra":
        for place, (system, value) in enumerate(zip(systems[1:], values, strict=True)):
            yield clip, system, float(value), index, place
    elif not plan.scale.compares:
        yield clip, systems[-1], float(values[0]), index, 0
    else:
        first, second = sorted(systems[:2], key=plan.systems.index)
        name = f"{first} over {second}"
        if plan.kind == "preference":
            score = {1: 1.0, 2: 0.0, 3: 0.5}[values[0]]
            yield clip, name, score if systems[0] == first else 1.0 - score, index, systems.index(first)
        else:
            yield clip, name, float(systems[2] == f"{X} {systems[values[0] - 1]}"), index, values[0] - 1


def _screen(plan: Plan, judged: list[str], scores: np.ndarray, failed: np.ndarray, raw: np.ndarray) -> list[str | None]:
    """Return for each listener why it is left out, None if it is kept."""
    if plan.kind == "mushra":
        rules = {
            "hidden reference below 90 in more than 15 % of trials": screening.misses_reference(
                scores[judged.index(REFERENCE)]
            ),
            "7 kHz anchor above 90 in more than 15 % of trials": screening.misses_anchor(
                scores[judged.index(MID_ANCHOR)]
            ),
        }
    else:
        rules = {
            "failed more than a quarter of the attention checks": screening.fails_checks(failed),
            "the same answer in every trial": screening.is_constant(raw),
        }
    return [next((rule for rule, out in rules.items() if out[n]), None) for n in range(scores.shape[1])]
