"""Two systems on the same clips: their differences, with intervals and p from resampled speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS
from vocable.evaluation.page import Cell, Table
from vocable.evaluation.runner import read_rows


def compare(
    a: tuple[Path, str], b: tuple[Path, str], clips: Sequence[Utterance], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """A less B for every metric that both have. a, b: a folder of a suite's results, and a system in it."""
    rows = [{r["clip"]: r for r in read_rows(folder) if r["system"] == system} for folder, system in (a, b)]
    for (folder, system), found in zip((a, b), rows, strict=True):
        if not found:
            raise ValueError(f"{folder}: no rows of {system!r}")
    speakers = {clip.id: clip.speaker_key for clip in clips}
    shared = [clip for clip in rows[0] if clip in rows[1] and clip in speakers]
    if not shared:
        raise ValueError("the two have no clip in common that the manifest knows")
    figures: dict[str, dict[str, Any]] = {}
    for name in METRICS:
        both = [c for c in shared if _known(rows[0][c], name) and _known(rows[1][c], name)]
        if not both:
            continue
        of = [speakers[c] for c in both]
        scores_a, scores_b = ([found[c][name] for c in both] for found in rows)
        scale = METRICS[name].scale
        difference = statistics.difference(scores_a, scores_b, of, seed)
        figures[name] = {
            "a": statistics.figure(scores_a, of, seed).value * scale,
            "b": statistics.figure(scores_b, of, seed).value * scale,
            **difference.scaled(scale),
            "p": difference.p,
        }
    return figures


def _known(row: Mapping[str, Any], metric: str) -> bool:
    return row.get(metric) is not None


def table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[list[Cell]] = []
    for name, f in figures.items():
        m = METRICS[name]
        d = m.digits
        interval = f"{f['low']:+.{d}f} to {f['high']:+.{d}f}"
        rows.append([m.label, f"{f['a']:.{d}f}", f"{f['b']:.{d}f}", f"{f['value']:+.{d}f}", interval, f"{f['p']:.4f}"])
    return ["metric", "A", "B", "A - B", "95 % interval", "p"], rows
