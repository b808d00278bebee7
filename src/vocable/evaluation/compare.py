"""Compare two systems on the same clips: differences with intervals and p-values by resampling speakers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS
from vocable.evaluation.runner import Row, read_rows
from vocable.page import Cell, Table

#: Figures of rows that are not metrics: label, digits, scale.
OTHERS = {
    "to_reference": ("similarity to the reference", 3, 1.0),
    "to_source": ("similarity to the source", 3, 1.0),
    "probe_wer": ("probe WER %", 1, 100.0),
    "probe_cer": ("probe CER %", 1, 100.0),
}
#: Plan fields that may differ between the two results.
MAY_DIFFER = {"vocable", "systems", "metrics", "made_with", "system", "made_by", "models"}
#: All figures that can be compared: label, digits, scale.
COMPARABLE = {name: (metric.label, metric.digits, metric.scale) for name, metric in METRICS.items()} | OTHERS


def compare(a: tuple[Path, str], b: tuple[Path, str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return A - B for every figure that both have, over the clips that both have.

    a, b: a folder with the rows of a suite, and a system in it, or several systems as X+Y (runs with different seeds,
    for example), whose scores are added. Raises ValueError if the two were judged with different versions, models or
    settings, or have no clip or figure in common.
    """
    plans, rows = zip(*(read_rows(folder) for folder, _ in (a, b)), strict=True)
    settings = [plan | plan.get("made_with", {}) for plan in plans]
    differing = [
        key for key in set(settings[0]) & set(settings[1]) - MAY_DIFFER if settings[0][key] != settings[1][key]
    ]
    if differing:
        raise ValueError(f"the two were judged by different {', '.join(sorted(differing))}: measure both with the same")
    found = []
    for (folder, systems), all_rows in zip((a, b), rows, strict=True):
        known = {row.get("system") for row in all_rows}
        names = [systems] if systems in known else systems.split("+")
        for name in names:
            if name not in known:
                raise ValueError(f"{folder}: no rows of {name!r}")
        found.append(_sum_systems([_by_clip([row for row in all_rows if row.get("system") == name]) for name in names]))
    shared = [clip for clip in found[0] if clip in found[1]]
    if not shared:
        raise ValueError("the two have no clip in common")
    figures: dict[str, dict[str, Any]] = {}
    for name, (_, _, scale) in COMPARABLE.items():
        both = [clip for clip in shared if all(name in clips[clip][1] for clips in found)]
        if not both:
            continue
        speakers = [found[0][clip][0] for clip in both]
        scores_a, scores_b = ([clips[clip][1][name].tolist() for clip in both] for clips in found)
        difference = statistics.difference(scores_a, scores_b, speakers, seed=seed)
        figures[name] = {
            "a": statistics.figure(scores_a, speakers, seed=seed).value * scale,
            "b": statistics.figure(scores_b, speakers, seed=seed).value * scale,
            **difference.scaled(scale),
        }
        if not math.isnan(difference.p):
            figures[name]["p"] = difference.p
    if not figures:
        raise ValueError("the two have no figure in common that is compared")
    return figures


def _by_clip(rows: list[Row]) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """Return each clip's speaker and figures, summed over its rows (a long recording has a row for each window)."""
    found: dict[str, tuple[str, dict[str, np.ndarray]]] = {}
    for row in rows:
        _, figures = found.setdefault(row["clip"], (row["speaker_id"], {}))
        for name in COMPARABLE:
            if row.get(name) is not None:
                figures[name] = figures.get(name, np.zeros(2)) + row[name]
    return found


def _sum_systems(systems: list[dict[str, tuple[str, dict[str, np.ndarray]]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Sum the scores of several systems over the clips and figures that all of them have."""
    first, *others = systems
    return {
        clip: (
            speaker,
            {
                name: sum((other[clip][1][name] for other in others), figure)
                for name, figure in figures.items()
                if all(name in other[clip][1] for other in others)
            },
        )
        for clip, (speaker, figures) in first.items()
        if all(clip in other for other in others)
    }


def table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the table of what `compare` returned: a row for each figure."""
    rows: list[list[Cell]] = []
    for name, f in figures.items():
        label, d, _ = COMPARABLE[name]
        cells: list[Cell] = [label, f"{f['a']:.{d}f}", f"{f['b']:.{d}f}", f"{f['value']:+.{d}f}"]
        few = f"{f['speakers']} speakers"
        interval = f"{f['low']:+.{d}f} to {f['high']:+.{d}f}" if "low" in f else few
        rows.append([*cells, interval, f"{f['p']:.4f}" if "p" in f else few])
    return ["figure", "A", "B", "A - B", "95 % interval", "p"], rows
