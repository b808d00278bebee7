"""How much of speech survives a tokenizer: each clip through each system, judged by each metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS, Metric, Models, Pair
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import recogniser
from vocable.evaluation.page import Page, spectrograms
from vocable.evaluation.runner import Row, describe, run, write_json
from vocable.evaluation.tokenizers import NotAvailable, Tokenizer, load_tokenizer

SYSTEMS = ("recording", "fast@:8", "fast@:4", "fast@:2", "fast@:1", "opus:6", "opus:12", "codec2:3200")
DEFAULT_METRICS = ("pesq", "stoi", "wer", "speaker", "mos")


class Judge:
    """Systems and metrics, loaded, for one process."""

    def __init__(self, systems: Sequence[str], metrics: Sequence[str], models: Models) -> None:
        self.systems: dict[str, Tokenizer] = {name: load_tokenizer(name) for name in systems}
        self.metrics: dict[str, Metric] = {name: METRICS[name](models) for name in metrics}

    def scores(self, pair: Pair) -> dict[str, list[float] | None]:
        """Each metric's (sum, count); None where it has no answer, or one that is not a number."""
        found = {}
        for name, metric in self.metrics.items():
            score = metric(pair)
            found[name] = [round(score[0], 6), score[1]] if score and math.isfinite(score[0]) else None
        return found


@dataclass(frozen=True)
class Reconstruction:
    """A task of the runner: an utterance -> a row for each system."""

    systems: tuple[str, ...]
    made_by: tuple[str, ...]  #: by each system, so that rows of other weights are not gone on with
    metrics: tuple[str, ...]
    models: Models
    keep: tuple[str, ...] = ()  #: ids of clips whose decoded speech is written to `audio`
    audio: Path = Path("audio")
    hear: bool = False  #: where a clip has no text, what the recogniser hears in the recording stands for it

    def plan(self) -> dict[str, Any]:
        return {
            "systems": dict(zip(self.systems, self.made_by, strict=True)),
            "metrics": list(self.metrics),
            "models": {key: str(value) for key, value in asdict(self.models).items()},
            "kept clips": list(self.keep),
            "hear": self.hear,
        }

    def start(self) -> Callable[[Utterance], list[Row]]:
        judge = Judge(self.systems, self.metrics, self.models)
        hear = recogniser(self.models) if self.hear else None

        def work(clip: Utterance) -> list[Row]:
            reference, _ = audio.read(clip.path, SAMPLE_RATE)
            language = clip.language or "en"
            text = hear(reference, language) if hear and clip.text is None else clip.text
            rows = []
            for name, system in judge.systems.items():
                tokens = system.encode(reference)
                decoded = fit(system.decode(tokens), len(reference))
                if clip.id in self.keep:
                    keep(self.audio, clip.id, name, decoded)
                row: Row = {"clip": clip.id, "system": name, "seconds": len(reference) / SAMPLE_RATE}
                pair = Pair(reference, decoded, text, language)
                rows.append(row | {"bits": tokens.bits} | judge.scores(pair))
            return rows

        return work


def fit(decoded: np.ndarray, samples: int) -> np.ndarray:
    """As long as the clip: what a player would have played of it, clipped to full scale."""
    decoded = np.pad(decoded, (0, max(0, samples - len(decoded))))[:samples]
    clipped: np.ndarray = np.clip(decoded, -1.0, 1.0).astype(np.float32)
    return clipped


def keep(folder: Path, clip: str, system: str, waveform: np.ndarray) -> None:
    """Write a clip for the page's players."""
    audio.write(kept_path(folder, clip, system), waveform, SAMPLE_RATE)


def kept_path(folder: Path, clip: str, system: str) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in system)
    return folder / clip.replace("/", "_") / f"{safe}.ogg"


def available(systems: Sequence[str]) -> tuple[dict[str, Row], dict[str, str]]:
    """What made each system, and its bitrate; and of those that are not to be had here, why not."""
    found: dict[str, Row] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(systems):
        try:
            tokenizer = load_tokenizer(name)
        except NotAvailable as error:
            missing[name] = str(error)
        else:
            found[name] = {"made_by": tokenizer.made_by, "nominal_bps": round(tokenizer.bitrate, 1)}
    if not found:
        raise ValueError("; ".join(missing.values()))
    return found, missing


def evaluate(
    clips: Sequence[Utterance],
    out: Path,
    *,
    systems: Sequence[str] = SYSTEMS,
    metrics: Sequence[str] = DEFAULT_METRICS,
    models: Models,
    jobs: int = 1,
    seed: int = 0,
    listen: int = 6,
    hear: bool = False,
    progress: Callable[[str | None], None] = lambda error: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json and index.html; returns the summary. listen: clips to hear on the page."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
    found, missing = available(systems)
    made_with: dict[str, str] = {}
    for name in metrics:  # once here, so that what is missing is said before any work, and once
        made_with |= METRICS[name](models).made_with()
    heard = [clips[i * len(clips) // min(listen, len(clips))].id for i in range(min(listen, len(clips)))]
    made_by = tuple(str(row["made_by"]) for row in found.values())
    task = Reconstruction(tuple(found), made_by, tuple(metrics), models, tuple(heard), out / "audio", hear)
    outcome = run(task, clips, out, jobs, progress)
    speakers = {clip.id: clip.speaker or clip.id for clip in clips}
    summary = {
        "suite": "reconstruction",
        **describe(clips, outcome),
        "metrics": list(metrics),
        "seed": seed,
        "made_with": made_with,
        "not_available": missing,
        "systems": {
            name: row | summarize([r for r in outcome.rows if r["system"] == name], metrics, speakers, seed)
            for name, row in found.items()
        },
    }
    write_json(out / "summary.json", summary)
    draw(summary, clips, heard, out).write(out / "index.html")
    return summary


def summarize(rows: Sequence[Row], metrics: Sequence[str], speakers: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Figures of one system's rows. speakers: of each clip."""
    summary: dict[str, Any] = {}
    if rows and all("bits" in row for row in rows):
        seconds = sum(row["seconds"] for row in rows)
        summary["measured_bps"] = round(sum(row["bits"] for row in rows) / seconds, 1)
    for name in metrics:
        valid = [row for row in rows if row[name] is not None]
        summary[name] = {"clips": len(valid), "failed": len(rows) - len(valid)}
        if valid:
            figure = statistics.figure([r[name] for r in valid], [speakers[r["clip"]] for r in valid], seed)
            summary[name] |= figure.scaled(METRICS[name].scale)
    return summary


def draw(summary: dict[str, Any], clips: Sequence[Utterance], heard: Sequence[str], out: Path) -> Page:
    """The page: the table, players, and spectrograms of the first clip to hear."""
    page = Page("Reconstruction", f"{summary['clips']} clips of {summary['speakers']} speakers")
    page.table(*figures_table(summary))
    for line in notes(summary):
        page.paragraph(line)
    systems = list(summary["systems"])
    done = [clip for clip in heard if clip not in summary["left_out"]]
    if done:
        page.heading("To hear")
        players = {clip: [kept_path(out / "audio", clip, name) for name in systems] for clip in done}
        page.players(systems, players)
        page.heading("To see")
        paths = {name: kept_path(out / "audio", done[0], name) for name in systems}
        waveforms = {name: audio.read(path, SAMPLE_RATE)[0] for name, path in paths.items()}
        page.picture(spectrograms(waveforms, SAMPLE_RATE), f"Spectrograms of {done[0]}")
    return page


def figures_table(summary: dict[str, Any]) -> tuple[list[str], list[list[str | tuple[str, str]]]]:
    """Columns and rows of a table of systems by metrics, intervals small under the figures."""
    metrics = [METRICS[name] for name in summary["metrics"]]
    columns = ["system", "bit/s", *(f"{m.label} {'↑' if m.better == 'higher' else '↓'}" for m in metrics)]
    rows: list[list[str | tuple[str, str]]] = []
    for name, found in summary["systems"].items():
        cells: list[str | tuple[str, str]] = [(name, found["made_by"])]
        cells.append((f"{found['nominal_bps']:.0f}", f"{found.get('measured_bps', math.nan):.0f} measured"))
        for metric in metrics:
            cells.append(figure_cell(found[metric.name], metric.digits))
        rows.append(cells)
    for name in summary["not_available"]:
        rows.append([name, "weights not available", *([""] * len(metrics))])
    return columns, rows


def figure_cell(figure: Mapping[str, float], digits: int) -> str | tuple[str, str]:
    if "value" not in figure:
        return "-"
    return f"{figure['value']:.{digits}f}", f"{figure['low']:.{digits}f} to {figure['high']:.{digits}f}"


def notes(summary: dict[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    lines = ["Figures are means; under them, 95 % intervals by resampling speakers with all their clips."]
    for name, found in summary["systems"].items():
        for metric in summary["metrics"]:
            failed = found[metric]["failed"]
            if failed:
                lines.append(f"{name}: no {METRICS[metric].label} for {failed} clips.")
    if summary["left_out"]:
        named = "; ".join(f"{clip} ({why})" for clip, why in summary["left_out"].items())
        lines.append(f"Left out, {len(summary['left_out'])} clips: {named}.")
    lines += [f"{name}: {why}" for name, why in summary["not_available"].items()]
    lines.append("Made with " + ", ".join(f"{key} {value}" for key, value in summary["made_with"].items()) + ".")
    return lines
