"""How much of speech survives a tokenizer: each clip through each system, judged by each metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS, Models, NoAnswer, Pair, load_metric, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import Recogniser, has_normalizer, recogniser
from vocable.evaluation.page import Cell, Page, Table, code_matrices, spectrograms
from vocable.evaluation.runner import Outcome, Progress, Row, describe, exclusions, language_of, run, write_json
from vocable.evaluation.tokenizers import NotAvailable, Ours, Tokenizer, load_tokenizer

SYSTEMS = ("recording", "fast@:8", "fast@:4", "fast@:2", "fast@:1", "opus:6", "opus:12", "codec2:3200")
DEFAULT_METRICS = ("pesq", "stoi", "wer", "speaker", "mos")


def scores(pair: Pair, metrics: Sequence[str], models: Models) -> Row:
    """Each metric's [sum, count], or None where it has no answer; "unjudged" then gives the reasons by metric."""
    found: Row = {}
    unjudged: dict[str, str] = {}
    for name in metrics:
        try:
            total, count = load_metric(name, models)(pair)
            if not math.isfinite(total):
                raise NoAnswer("not a finite number")
            found[name] = [round(total, 6), count]
        except NoAnswer as reason:
            found[name], unjudged[name] = None, str(reason)
    return found | ({"unjudged": unjudged} if unjudged else {})


def heard_text(hear: Recogniser, waveform: np.ndarray, language: str) -> str | None:
    """What the recogniser hears, to stand for a text; None in a language that it does not know."""
    try:
        return hear(waveform, language)
    except NoAnswer:
        return None


@dataclass(frozen=True)
class Trial:
    """A clip through a system: an item of the runner, so that a table can be given another system later."""

    clip: Utterance
    system: str
    made_by: str  #: so that rows of other weights are not gone on with

    @property
    def id(self) -> str:
        return f"{self.clip.id} through {self.system}"


@dataclass(frozen=True)
class Reconstruction:
    """A task of the runner: a trial -> its row."""

    metrics: tuple[str, ...]
    models: Models
    made_with: Mapping[str, str]  #: versions and weights of the metrics
    #: Languages in which what the recogniser hears in a recording stands for its text
    heard: frozenset[str] = frozenset()

    def plan(self) -> dict[str, Any]:
        return {"metrics": list(self.metrics), "made_with": dict(self.made_with), "heard": sorted(self.heard)}

    def start(self) -> Callable[[Trial], list[Row]]:
        load = cache(load_tokenizer)
        hear = lru_cache(maxsize=1)(self._hear)  # trials of a clip follow one another

        def work(trial: Trial) -> list[Row]:
            clip, system = trial.clip, load(trial.system)
            reference, _ = audio.read(clip.path, SAMPLE_RATE)
            language = language_of(clip)
            text = hear(clip) if language in self.heard else clip.text
            tokens = system.encode(reference)
            decoded = fit(system.decode(tokens), len(reference))
            row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key, "system": trial.system}
            row |= {"seconds": len(reference) / SAMPLE_RATE, "bits": tokens.bits}
            return [row | scores(Pair(reference, decoded, text, language), self.metrics, self.models)]

        return work

    def _hear(self, clip: Utterance) -> str | None:
        return heard_text(recogniser(self.models), audio.read(clip.path, SAMPLE_RATE)[0], language_of(clip))


def fit(decoded: np.ndarray, samples: int) -> np.ndarray:
    """As long as the clip: what a player would have played of it, clipped to full scale."""
    decoded = np.pad(decoded, (0, max(0, samples - len(decoded))))[:samples]
    clipped: np.ndarray = np.clip(decoded, -1.0, 1.0).astype(np.float32)
    return clipped


def unwritten(clips: Sequence[Utterance]) -> frozenset[str]:
    """The languages that no clip has a text in. In others, clips without one are not judged by words: a true text and
    what was heard do not go into one figure."""
    return frozenset(set(map(language_of, clips)) - {language_of(clip) for clip in clips if clip.text})


def available(systems: Sequence[str], tokens: bool = False) -> tuple[dict[str, Tokenizer], dict[str, str]]:
    """The systems that are to be had here, and of those that are not, why not.

    Raises ValueError if there are none, or, where `tokens` are needed, for one without.
    """
    found: dict[str, Tokenizer] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(systems):
        try:
            found[name] = load_tokenizer(name)
        except NotAvailable as error:
            missing[name] = str(error)
    for name, system in found.items():
        if tokens and not system.codebook_size:
            raise ValueError(f"{name} has no tokens: it can be measured by `vocable eval reconstruction` alone")
    if not found:
        raise ValueError("; ".join(missing.values()))
    return found, missing


def makers(systems: Mapping[str, Tokenizer]) -> dict[str, str]:
    """What made each: codec id, version."""
    return {name: system.made_by for name, system in systems.items()}


def evaluate(clips: Sequence[Utterance], out: Path, **options: Any) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json, index.html, tables.md; returns the summary. options: those of `measure`."""
    summary, _, page = measure(clips, out, **options)
    write_json(out / "summary.json", summary)
    page.write(out)
    return summary


def measure(
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
    progress: Progress = lambda stage, share: None,
) -> tuple[dict[str, Any], list[Row], Page]:
    """Write OUT/rows.jsonl; returns the summary, the rows, and a page of both.

    hear: in languages that no clip has a text in, hold words against what the recogniser hears in the recording.
    listen: clips to hear on the page.
    """
    versions = made_with(metrics, models)
    found, missing = available(systems)
    heard = unwritten(clips) if hear else frozenset()
    trials = [Trial(clip, name, system.made_by) for clip in clips for name, system in found.items()]
    tried = run(Reconstruction(tuple(metrics), models, versions, heard), trials, out, jobs, progress)
    # A clip that fails in one system is left out of all: they are compared on the same clips.
    bad = {trial.clip.id: tried.left_out[trial.id] for trial in trials if trial.id in tried.left_out}
    outcome = Outcome([row for row in tried.rows if row["clip"] not in bad], bad)
    summary = {
        "suite": "reconstruction",
        **describe(clips, outcome),
        "metrics": list(metrics),
        "seed": seed,
        "heard": sorted(heard),
        "made_with": versions,
        "not_available": missing,
        "systems": {
            name: {"made_by": system.made_by, "nominal_bps": round(system.bitrate, 1)}
            | summarize([r for r in outcome.rows if r["system"] == name], metrics, seed)
            for name, system in found.items()
        },
    }
    page = Page("Reconstruction", f"{summary['clips']} clips of {summary['speakers']} speakers")
    page.tables(tables(summary))
    page.notes(notes(summary))
    draw(page, [clip for clip in spread(clips, listen) if clip.id not in outcome.left_out], found)
    return summary, outcome.rows, page


def summarize(rows: Sequence[Row], metrics: Sequence[str], seed: int) -> dict[str, Any]:
    """Figures of one system's rows."""
    summary: dict[str, Any] = {}
    if rows and all("bits" in row for row in rows):
        seconds = sum(row["seconds"] for row in rows)
        summary["measured_bps"] = round(sum(row["bits"] for row in rows) / seconds, 1)
    for name in metrics:
        valid = [row for row in rows if row[name] is not None]
        summary[name] = {"clips": len(valid), "failed": len(rows) - len(valid)}
        if valid:
            figure = statistics.figure([row[name] for row in valid], [row["speaker_id"] for row in valid], seed)
            summary[name] |= figure.scaled(METRICS[name].scale)
    return summary


def draw(page: Page, clips: Sequence[Utterance], systems: Mapping[str, Tokenizer]) -> None:
    """Players, and of the first clip spectrograms and our codes."""
    heard: dict[str, dict[str, np.ndarray]] = {}
    codes: dict[str, np.ndarray] = {}
    for clip in clips:
        waveform = audio.read(clip.path, SAMPLE_RATE)[0]
        heard[clip.id] = {}
        for name, system in systems.items():
            tokens = system.encode(waveform)
            heard[clip.id][name] = fit(system.decode(tokens), len(waveform))
            if isinstance(system, Ours) and tokens.codes is not None and clip is clips[0]:
                codes[name] = tokens.codes.numpy()
    if not heard:
        return
    page.heading("To hear")
    page.players(heard, SAMPLE_RATE)
    page.heading("To see")
    page.picture(spectrograms(heard[clips[0].id], SAMPLE_RATE), f"Spectrograms of {clips[0].id}")
    if codes:
        page.picture(code_matrices(codes), f"Codes of {clips[0].id}, layer over layer, a colour for each code")


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """Systems by metrics."""
    metrics = [METRICS[name] for name in summary["metrics"]]
    rows: list[list[Cell]] = []
    for name, found in summary["systems"].items():
        cells: list[Cell] = [(name, found["made_by"])]
        cells.append((f"{found['nominal_bps']:.0f}", f"{found.get('measured_bps', math.nan):.0f} measured"))
        rows.append(cells + [figure_cell(found[metric.name], metric.digits) for metric in metrics])
    for name in summary["not_available"]:
        rows.append([name, "weights not available", *([""] * len(metrics))])
    return {"Figures": (["system", "bit/s", *(metric.heading() for metric in metrics)], rows)}


def figure_cell(figure: Mapping[str, float], digits: int) -> Cell:
    """A figure over its interval."""
    if "value" not in figure:
        return "-"
    value = f"{figure['value']:.{digits}f}"
    if "low" not in figure:
        return value, f"{figure['speakers']} speakers" if figure["speakers"] > 1 else "1 speaker"
    return value, f"{figure['low']:.{digits}f} to {figure['high']:.{digits}f}"


def words_of(summary: Mapping[str, Any]) -> list[str]:
    """How words are compared: in which languages without a normalizer, and in which without a text."""
    lines = []
    plain = [f"{code} ({count} clips)" for code, count in summary["clip_languages"].items() if not has_normalizer(code)]
    if plain:
        lines.append(
            f"{', '.join(plain)}: Whisper has no normalizer of numbers and spellings; words count as they are written."
        )
    if summary.get("heard"):
        heard = ", ".join(summary["heard"])
        lines.append(f"{heard}: no clip has a text; what the same recogniser hears in the recording stands for it.")
    return lines


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    lines = ["Figures are means; under them, 95 % intervals by resampling speakers, where there are five or more."]
    if any(METRICS[name].needs_text for name in summary["metrics"]):
        lines += words_of(summary)
    lines.append("Made with " + ", ".join(f"{key} {value}" for key, value in summary["made_with"].items()) + ".")
    return lines + exclusions(summary)
