"""Long recordings in one piece: does quality drift with the position?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation.metrics import METRICS as ALL_METRICS
from vocable.evaluation.metrics import Models, Pair
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import recogniser
from vocable.evaluation.page import Page
from vocable.evaluation.reconstruction import Judge, available, fit, summarize
from vocable.evaluation.runner import Row, describe, run, write_json

WINDOW_SECONDS = 15.0
METRICS = ("pesq", "stoi", "wer", "speaker", "mos")


@dataclass(frozen=True)
class Longform:
    """A task of the runner: a recording -> a row for each system and window. The whole is encoded and decoded once;
    words are held against what the recogniser hears in the same window of the recording."""

    systems: tuple[str, ...]
    made_by: tuple[str, ...]
    models: Models

    def plan(self) -> dict[str, Any]:
        systems = dict(zip(self.systems, self.made_by, strict=True))
        models = {key: str(value) for key, value in asdict(self.models).items()}
        return {"systems": systems, "metrics": list(METRICS), "models": models, "window": WINDOW_SECONDS}

    def start(self) -> Callable[[Utterance], list[Row]]:
        judge, hear = Judge(self.systems, METRICS, self.models), recogniser(self.models)

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            size, language = round(WINDOW_SECONDS * SAMPLE_RATE), clip.language or "en"
            starts = range(0, max(len(waveform) - size // 2, 1), size)
            heard = {at: hear(waveform[at : at + size], language) for at in starts}
            rows = []
            for name, system in judge.systems.items():
                decoded = fit(system.decode(system.encode(waveform)), len(waveform))
                for at in starts:
                    window = slice(at, at + size)
                    pair = Pair(waveform[window], decoded[window], heard[at], language)
                    rows.append({"clip": clip.id, "system": name, "start": at / SAMPLE_RATE} | judge.scores(pair))
            return rows

        return work


def evaluate(
    clips: Sequence[Utterance],
    out: Path,
    *,
    systems: Sequence[str],
    models: Models,
    jobs: int = 1,
    seed: int = 0,
    progress: Callable[[str | None], None] = lambda error: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json and index.html; returns the summary."""
    found, missing = available(systems)
    made_with: dict[str, str] = {}
    for name in METRICS:
        made_with |= ALL_METRICS[name](models).made_with()
    task = Longform(tuple(found), tuple(str(row["made_by"]) for row in found.values()), models)
    outcome = run(task, clips, out, jobs, progress)
    for name, row in found.items():
        starts = sorted({r["start"] for r in outcome.rows if r["system"] == name})
        row["positions"] = {}
        for start in starts:
            rows = [r for r in outcome.rows if r["system"] == name and r["start"] == start]
            row["positions"][f"{start:g}"] = summarize(rows, METRICS, {r["clip"]: r["clip"] for r in rows}, seed)
        row["drift"] = {metric: drift([r for r in outcome.rows if r["system"] == name], metric) for metric in METRICS}
    summary = {
        "suite": "longform",
        **describe(clips, outcome),
        "window": WINDOW_SECONDS,
        "seed": seed,
        "made_with": made_with,
        "not_available": missing,
        "systems": found,
    }
    write_json(out / "summary.json", summary)
    page = Page("Long recordings", f"{summary['clips']} recordings, in windows of {WINDOW_SECONDS:g} s")
    page.table(*table(summary))
    for line in notes(summary):
        page.paragraph(line)
    page.write(out / "index.html")
    return summary


def drift(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """The slope of a metric over position, per minute, and its standard error: least squares, each clip its level."""
    known = [(r["clip"], r["start"] / 60, r[metric][0] / r[metric][1]) for r in rows if r[metric] and r[metric][1]]
    if len(known) < 4:
        return {}
    names = sorted({clip for clip, _, _ in known})
    x, y = (np.array([row[i] for row in known]) for i in (1, 2))
    for name in names:
        mine = np.array([row[0] == name for row in known])
        x[mine] -= x[mine].mean()
        y[mine] -= y[mine].mean()
    if not x.any():
        return {}
    slope = float(x @ y / (x @ x))
    freedom = max(len(known) - len(names) - 1, 1)
    error = float(np.sqrt(np.square(y - slope * x).sum() / freedom / (x @ x)))
    scale = ALL_METRICS[metric].scale
    return {"slope": round(slope * scale, 5), "error": round(error * scale, 5)}


def table(summary: dict[str, Any]) -> tuple[list[str], list[list[str | tuple[str, str]]]]:
    """A row for each position and system, and each system's drift at the end."""
    rows: list[list[str | tuple[str, str]]] = []
    for name, found in summary["systems"].items():
        for start, figures in found["positions"].items():
            cells: list[str | tuple[str, str]] = [(f"{start} s", name)]
            for metric in METRICS:
                value = figures[metric].get("value")
                cells.append("-" if value is None else f"{value:.{ALL_METRICS[metric].digits}f}")
            rows.append(cells)
    for name, found in summary["systems"].items():
        cells = [("drift a minute", name)]
        for metric in METRICS:
            d = found["drift"][metric]
            cells.append((f"{d['slope']:+.3f}", f"± {1.96 * d['error']:.3f}") if d else "-")
        rows.append(cells)
    heads = [f"{ALL_METRICS[m].label} {'↑' if ALL_METRICS[m].better == 'higher' else '↓'}" for m in METRICS]
    return ["position", *heads], rows


def notes(summary: dict[str, Any]) -> list[str]:
    return [
        "The whole recording is encoded and decoded once; words are held against what the same recogniser hears in the "
        "same window of the recording. Drift: least squares over positions, with its 95 % interval.",
        *(f"Left out: {clip} ({why})." for clip, why in summary["left_out"].items()),
        *(f"{name}: {why}" for name, why in summary["not_available"].items()),
    ]
