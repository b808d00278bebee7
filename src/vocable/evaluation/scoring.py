"""Scores of one clip by the metrics, figures of many clips, and the texts that words are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS, Judges, NoAnswer, Pair, load_metric
from vocable.evaluation.metrics.words import Recogniser, has_normalizer
from vocable.evaluation.runner import Row
from vocable.evaluation.summary import language_of


def scores(pair: Pair, metrics: Sequence[str], judges: Judges) -> Row:
    """Score a clip by each metric: name -> [sum, count], or None if the metric cannot judge it.

    The row's "unjudged" then gives the reasons: name -> reason.
    """
    found: Row = {}
    unjudged: dict[str, str] = {}
    for name in metrics:
        try:
            total, count = load_metric(name, judges)(pair)
            if not math.isfinite(total):
                raise NoAnswer("not a finite number")
            found[name] = [round(total, 6), count]
        except NoAnswer as reason:
            found[name], unjudged[name] = None, str(reason)
    return found | ({"unjudged": unjudged} if unjudged else {})


def figures_of(rows: Sequence[Row], metrics: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return one system's figures from its rows: metric -> value, interval, counts; and the measured bitrate."""
    summary: dict[str, Any] = {}
    if rows and all("bits" in row for row in rows):
        seconds = sum(row["seconds"] for row in rows)
        summary["measured_bps"] = round(sum(row["bits"] for row in rows) / seconds, 1)
    for name in metrics:
        valid = [row for row in rows if row[name] is not None]
        summary[name] = {"clips": len(valid), "failed": len(rows) - len(valid)}
        if valid:
            figure = statistics.figure([row[name] for row in valid], [row["speaker_id"] for row in valid], seed=seed)
            summary[name] |= figure.scaled(METRICS[name].scale)
    return summary


def fit_length(decoded: np.ndarray, samples: int) -> np.ndarray:
    """Cut or pad decoded speech with zeros to the clip's length, and clip it to full scale: float32 [samples]."""
    decoded = np.pad(decoded, (0, max(0, samples - len(decoded))))[:samples]
    clipped: np.ndarray = np.clip(decoded, -1.0, 1.0).astype(np.float32)
    return clipped


def transcript(recogniser: Recogniser, waveform: np.ndarray, language: str) -> str | None:
    """Return the recogniser's transcript, to use in place of a text; None if it does not know the language."""
    try:
        return recogniser(waveform, language)
    except NoAnswer:
        return None


def languages_without_text(clips: Sequence[Utterance]) -> frozenset[str]:
    """Return the languages in which no clip has a text.

    In other languages, clips without a text are not judged by words: one figure must not mix texts and transcripts.
    """
    return frozenset(set(map(language_of, clips)) - {language_of(clip) for clip in clips if clip.text})


def notes_on_words(summary: Mapping[str, Any]) -> list[str]:
    """Return notes on how words are compared: languages without a normalizer, and languages without a text."""
    lines = []
    plain = [f"{code} ({count} clips)" for code, count in summary["clip_languages"].items() if not has_normalizer(code)]
    if plain:
        lines.append(
            f"{', '.join(plain)}: Whisper has no normalizer of numbers and spellings; words count as they are written."
        )
    if summary.get("heard"):
        languages = ", ".join(summary["heard"])
        lines.append(
            f"{languages}: no clip has a text; words are compared with the recogniser's transcript of the recording."
        )
    return lines
