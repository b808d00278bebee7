"""Reconstruction, read by groups of clips: languages, corpora, accents, sexes, pitch, rate, or any manifest column."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import reconstruction
from vocable.evaluation.metrics import METRICS, Models
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.pitch import PitchTracker
from vocable.evaluation.page import Cell, Table
from vocable.evaluation.reconstruction import DEFAULT_METRICS, figure_cell, summarize
from vocable.evaluation.runner import Progress, Row, run, write_json
from vocable.extras import need

CROSSLINGUAL_METRICS = ("wer", "cer", "pesq", "stoi", "speaker", "mos")
UNKNOWN = "unknown"
SMALLEST_GROUP = 3  #: clips


def columns(manifest: Path) -> dict[str, dict[str, str]]:
    """What a manifest says of each clip besides what every manifest says: id -> column -> value."""
    own = {"id", "path", "duration", "text", "speaker"}
    found = {}
    for line in manifest.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            row = json.loads(line)
            found[str(row["id"])] = {
                key: str(value) for key, value in row.items() if key not in own and value is not None
            }
    return found


@dataclass(frozen=True)
class Pitch:
    """A task of the runner: an utterance -> its median F0 in Hz, None where nothing is voiced."""

    def plan(self) -> dict[str, Any]:
        return {"made_with": {"librosa": importlib.metadata.version("librosa")}}

    def start(self) -> Callable[[Utterance], list[Row]]:
        track = PitchTracker()

        def work(clip: Utterance) -> list[Row]:
            heard = track(audio.read(clip.path, SAMPLE_RATE)[0])
            voiced = heard[np.isfinite(heard)]
            return [{"clip": clip.id, "pitch": float(np.median(voiced)) if len(voiced) else None}]

        return work


def measured_columns(
    clips: Sequence[Utterance], out: Path, jobs: int = 1, progress: Progress = lambda stage, share: None
) -> dict[str, dict[str, str]]:
    """Pitch of each speaker (median F0) and rate of each clip (characters a second): id -> column -> its third. The
    clips' pitch is kept in OUT."""
    need("librosa", "eval")
    speaker = {clip.id: clip.speaker_key for clip in clips}
    pitch: dict[str, list[float]] = {}
    for row in run(Pitch(), clips, out, jobs, lambda _, share: progress("pitch", share)).rows:
        pitch.setdefault(speaker[row["clip"]], []).append(row["pitch"] or np.nan)
    rate = {clip.id: len(clip.text) / clip.duration for clip in clips if clip.text}
    of_speaker = {speaker: float(np.nanmedian(values)) for speaker, values in pitch.items()}
    thirds = {
        "pitch": _thirds(
            {clip.id: of_speaker[clip.speaker_key] for clip in clips if clip.speaker_key in of_speaker}, "Hz"
        ),
        "rate": _thirds(rate, "characters/s"),
    }
    return {
        clip.id: {column: values[clip.id] for column, values in thirds.items() if clip.id in values} for clip in clips
    }


def _thirds(values: Mapping[str, float], unit: str) -> dict[str, str]:
    known = {key: value for key, value in values.items() if np.isfinite(value)}
    if not known:
        return {}
    low, high = np.quantile(list(known.values()), [1 / 3, 2 / 3])
    names = (f"under {low:.0f} {unit}", f"{low:.0f} to {high:.0f} {unit}", f"over {high:.0f} {unit}")
    return {key: names[int(value > low) + int(value > high)] for key, value in known.items()}


def by_group(
    rows: Sequence[Row], values: Mapping[str, str], metrics: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """One system's figures for each value of a column; groups under three clips are put together as `others`."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(values.get(row["clip"], UNKNOWN), []).append(row)
    small = [name for name, members in groups.items() if len(members) < SMALLEST_GROUP]
    if small:
        pooled = [row for name in small for row in groups.pop(name)]
        groups.setdefault("others", []).extend(pooled)
    return {name: summarize(members, metrics, seed) for name, members in sorted(groups.items())}


def worst_decile(rows: Sequence[Row], metric: str) -> list[tuple[str, float]]:
    """The tenth of the speakers (at least one) with the worst means of a metric, worst first."""
    totals: dict[str, np.ndarray] = {}
    for row in rows:
        if row[metric] is not None:
            totals[row["speaker_id"]] = totals.get(row["speaker_id"], np.zeros(2)) + row[metric]
    means = {speaker: float(total[0] / total[1]) for speaker, total in totals.items() if total[1]}
    ranked = sorted(means.items(), key=lambda item: item[1], reverse=METRICS[metric].better == "lower")
    return [(s, v * METRICS[metric].scale) for s, v in ranked[: max(1, len(ranked) // 10)]]


def evaluate(
    suite: str,
    clips: Sequence[Utterance],
    values: Mapping[str, Mapping[str, str]],
    out: Path,
    *,
    systems: Sequence[str],
    metrics: Sequence[str] = DEFAULT_METRICS,
    models: Models,
    hear: bool = False,
    jobs: int = 1,
    seed: int = 0,
    remarks: Sequence[str] = (),
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Reconstruction of `clips` in OUT, and its figures by the columns of `values`: id -> column -> value."""
    summary, rows, page = reconstruction.measure(
        clips, out, systems=systems, metrics=metrics, models=models, jobs=jobs, seed=seed, hear=hear, progress=progress
    )
    names = sorted({column for one in values.values() for column in one})
    summary |= {
        "suite": suite,
        "remarks": list(remarks),
        "groups": {
            column: {
                system: by_group(
                    [r for r in rows if r["system"] == system],
                    {clip: of[column] for clip, of in values.items() if column in of},
                    metrics,
                    seed,
                )
                for system in summary["systems"]
            }
            for column in names
        },
        "worst_decile": {
            system: {m: worst_decile([r for r in rows if r["system"] == system], m) for m in metrics}
            for system in summary["systems"]
            if system != "recording"
        },
    }
    write_json(out / "summary.json", summary)
    page.title = suite.capitalize()
    page.tables(tables(summary))
    page.notes(own_notes(summary))
    page.write(out)
    return summary


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """A table for each column: a row for each value and system."""
    metrics = [METRICS[name] for name in summary["metrics"]]
    found: dict[str, Table] = {}
    for column, systems in summary["groups"].items():
        rows: list[list[Cell]] = []
        for value in next(iter(systems.values()), {}):
            for system, groups in systems.items():
                figures = groups[value]
                clips = max(figures[m.name]["clips"] for m in metrics)
                cells: list[Cell] = [(value, f"{system}, {clips} clips")]
                rows.append(cells + [figure_cell(figures[m.name], m.digits) for m in metrics])
        found[f"By {column}"] = ([column, *(m.heading() for m in metrics)], rows)
    return found


def notes(summary: Mapping[str, Any]) -> list[str]:
    return reconstruction.notes(summary) + own_notes(summary)


def own_notes(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for system, worst in summary["worst_decile"].items():
        for metric, speakers in worst.items():
            named = ", ".join(f"{speaker} ({value:.{METRICS[metric].digits}f})" for speaker, value in speakers)
            lines.append(f"{system}, worst tenth of speakers by {METRICS[metric].label}: {named}.")
    return [*summary["remarks"], *lines]
