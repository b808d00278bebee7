"""What all summaries have in common: clips, exclusions, versions, and cells and notes of their tables."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vocable
from vocable.corpus.manifest import Utterance
from vocable.evaluation.metrics import METRICS
from vocable.evaluation.metrics.base import language_code
from vocable.evaluation.runner import Outcome, Row
from vocable.files import atomic_path
from vocable.page import Cell

ENGLISH = "en"  #: the language of clips that have none in the manifest; summaries count them
#: Keys of a summary that list or count what is missing.
MISSING = ("left_out", "unjudged", "not_available", "failed", "unspoken", "untold", "too_few_clips")


def language_of(clip: Utterance) -> str:
    """Return a clip's language without region, "sv" of "sv-SE"; English if the manifest does not name it."""
    return language_code(clip.language or ENGLISH)


def describe(clips: Sequence[Utterance], outcome: Outcome) -> dict[str, Any]:
    """Return the part of every summary about clips, missing figures and versions.

    Raises ValueError if every clip was left out.
    """
    kept = [clip for clip in clips if clip.id not in outcome.left_out]
    if not kept:
        raise ValueError(f"not one of {len(clips)} clips could be used: {next(iter(outcome.left_out.values()))}")
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    return {
        "clips": len(kept),
        "speakers": len({clip.speaker_key for clip in kept}),
        "without_text": sum(clip.text is None for clip in kept),
        "without_language": sum(clip.language is None for clip in kept),
        "clip_languages": dict(sorted(Counter(map(language_of, kept)).items())),
        "left_out": outcome.left_out,
        "unjudged": _count_unjudged(outcome.rows),
        "versions": {"vocable": vocable.__version__, "python": platform.python_version(), **packages},
    }


def _count_unjudged(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, int]]]:
    """Count the rows that lack a figure: system -> metric -> reason -> count."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in rows:
        for metric, reason in row.get("unjudged", {}).items():
            reasons = found.setdefault(row["system"], {}).setdefault(metric, {})
            reasons[reason] = reasons.get(reason, 0) + 1
    return found


def is_complete(summary: Mapping[str, Any]) -> bool:
    """Return whether every clip of the manifest has every figure of every system that the suite was asked for."""
    return not any(summary.get(key) for key in MISSING)


def exclusions(summary: Mapping[str, Any]) -> list[str]:
    """Return the notes that end every page: systems, figures and clips that are missing."""
    left_out: Mapping[str, str] = summary["left_out"]
    lines = [f"{name}: {why}." for name, why in summary.get("not_available", {}).items()]
    for system, metrics in summary["unjudged"].items():
        for metric, reasons in metrics.items():
            label = METRICS[metric].label if metric in METRICS else metric.replace("_", " ")
            lines += [f"{system}: no {label} in {count} cases: {reason}." for reason, count in reasons.items()]
    if summary["without_language"]:
        lines.append(f"{summary['without_language']} clips have no language in the manifest and were taken as English.")
    if left_out:
        named = "; ".join(f"{clip} ({why})" for clip, why in left_out.items())
        lines.append(f"Left out, {len(left_out)} of {len(left_out) + summary['clips']} clips: {named}.")
    return lines


def figure_cell(figure: Mapping[str, float], digits: int) -> Cell:
    """Return the cell of a figure: its value, and in small print its interval or its number of speakers."""
    if "value" not in figure:
        return "-"
    value = f"{figure['value']:.{digits}f}"
    if "low" not in figure:
        return value, f"{figure['speakers']} speakers" if figure["speakers"] > 1 else "1 speaker"
    return value, f"{figure['low']:.{digits}f} to {figure['high']:.{digits}f}"


def read_summary(out: Path) -> dict[str, Any]:
    """Read the summary of a suite's folder. Raises ValueError if there is none or it is damaged."""
    path = out / "summary.json"
    if not path.is_file():
        raise ValueError(f"{out}: no finished evaluation here")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: run the same evaluation again") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{path}: not the summary of an evaluation")
    return summary


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Write OUT/summary.json, completely or not at all."""
    with atomic_path(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
