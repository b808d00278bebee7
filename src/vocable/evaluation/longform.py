"""Long recordings in one piece: does quality drift with the position?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation.metrics import METRICS, Models, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import recogniser
from vocable.evaluation.page import Cell, Page, Table
from vocable.evaluation.reconstruction import DEFAULT_METRICS, available, fit, heard_text, makers, scores, summarize
from vocable.evaluation.runner import Progress, Row, describe, exclusions, language_of, run, write_json
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer

WINDOW_SECONDS = 15.0


@dataclass(frozen=True)
class Longform:
    """A task of the runner: a recording -> a row for each system and window. The whole is encoded and decoded once;
    words are held against what the recogniser hears in the same window of the recording."""

    systems: Mapping[str, str]  #: and what made each
    models: Models
    made_with: Mapping[str, str]  #: versions and weights of the metrics

    def plan(self) -> dict[str, Any]:
        return {"systems": dict(self.systems), "made_with": dict(self.made_with), "window": WINDOW_SECONDS}

    def start(self) -> Callable[[Utterance], list[Row]]:
        systems = {name: load_tokenizer(name) for name in self.systems}
        hear = recogniser(self.models)

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            size, language = round(WINDOW_SECONDS * SAMPLE_RATE), language_of(clip)
            starts = range(0, max(len(waveform) - size // 2, 1), size)
            heard = {at: heard_text(hear, waveform[at : at + size], language) for at in starts}
            rows = []
            for name, system in systems.items():
                decoded = fit(system.decode(system.encode(waveform)), len(waveform))
                for at in starts:
                    window = slice(at, at + size)
                    pair = Pair(waveform[window], decoded[window], heard[at], language)
                    judged = scores(pair, DEFAULT_METRICS, self.models)
                    # Each recording stands for itself: what is asked is how quality moves within it.
                    row: Row = {"clip": clip.id, "speaker_id": clip.id, "system": name, "start": at / SAMPLE_RATE}
                    rows.append(row | judged)
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
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json, index.html and tables.md; returns the summary."""
    versions = made_with(DEFAULT_METRICS, models)
    found, missing = available(systems)
    outcome = run(Longform(makers(found), models, versions), clips, out, jobs, progress)
    measured: dict[str, Any] = {}
    for name, system in found.items():
        rows = [row for row in outcome.rows if row["system"] == name]
        measured[name] = {
            "made_by": system.made_by,
            "positions": {
                f"{start:g}": summarize([r for r in rows if r["start"] == start], DEFAULT_METRICS, seed)
                for start in sorted({row["start"] for row in rows})
            },
            "drift": {metric: drift(rows, metric) for metric in DEFAULT_METRICS},
        }
    summary = {
        "suite": "longform",
        **describe(clips, outcome),
        "window": WINDOW_SECONDS,
        "seed": seed,
        "made_with": versions,
        "not_available": missing,
        "systems": measured,
    }
    write_json(out / "summary.json", summary)
    page = Page("Long recordings", f"{summary['clips']} recordings, in windows of {WINDOW_SECONDS:g} s")
    page.tables(tables(summary))
    page.notes(notes(summary))
    first = next(clip for clip in clips if clip.id not in outcome.left_out)
    page.heading("To hear")
    page.players(_listen(first, found), SAMPLE_RATE)
    page.write(out)
    return summary


def _listen(clip: Utterance, systems: Mapping[str, Tokenizer]) -> dict[str, dict[str, np.ndarray]]:
    """The first, the middle and the last window of a recording, which was encoded in one piece."""
    waveform, _ = audio.read(clip.path, SAMPLE_RATE)
    size = min(round(WINDOW_SECONDS * SAMPLE_RATE), len(waveform))
    decoded = {name: fit(s.decode(s.encode(waveform)), len(waveform)) for name, s in systems.items()}
    starts = dict.fromkeys((0, (len(waveform) - size) // 2, len(waveform) - size))
    return {
        f"{clip.id}, from {at / SAMPLE_RATE:.0f} s": {name: heard[at : at + size] for name, heard in decoded.items()}
        for at in starts
    }


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
    freedom = len(known) - len(names) - 1
    if freedom < 1:
        return {}
    error = float(np.sqrt(np.square(y - slope * x).sum() / freedom / (x @ x)))
    scale = METRICS[metric].scale
    return {"slope": round(slope * scale, 5), "error": round(error * scale, 5)}


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """A row for each position and system, and each system's drift at the end."""
    rows: list[list[Cell]] = []
    for name, found in summary["systems"].items():
        for start, figures in found["positions"].items():
            cells: list[Cell] = [(f"{start} s", name)]
            for metric in DEFAULT_METRICS:
                value = figures[metric].get("value")
                cells.append("-" if value is None else f"{value:.{METRICS[metric].digits}f}")
            rows.append(cells)
    for name, found in summary["systems"].items():
        cells = [("drift a minute", name)]
        for metric in DEFAULT_METRICS:
            d = found["drift"][metric]
            cells.append((f"{d['slope']:+.3f}", f"± {1.96 * d['error']:.3f}") if d else "-")
        rows.append(cells)
    return {"By position": (["position", *(METRICS[name].heading() for name in DEFAULT_METRICS)], rows)}


def notes(summary: Mapping[str, Any]) -> list[str]:
    return [
        "The whole recording is encoded and decoded once; words are held against what the same recogniser hears in the "
        "same window of the recording. Drift: the slope over positions by least squares, ± 1.96 standard errors as if "
        "windows were independent; positions have no interval of their own.",
        *exclusions(summary),
    ]
