"""Do tokens stay what they are when the recording gets worse? The share of codes that stay, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.page import Page, Table
from vocable.evaluation.reconstruction import available, figure_cell, makers
from vocable.evaluation.runner import Progress, Row, describe, exclusions, run, write_json
from vocable.evaluation.tokenizers import load_tokenizer

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(decibels: float) -> Change:
    """White noise, so many dB under the speech."""

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.sqrt(np.square(waveform).mean()) * 10 ** (-decibels / 20)
        return waveform + rng.normal(0.0, level, len(waveform)).astype(np.float32)

    return change


def reverberation(seconds: float) -> Change:
    """A room whose echo falls by 60 dB in so many seconds: noise that decays, after the direct sound, 6 dB under it."""

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
        tail *= 0.5 / np.sqrt(np.square(tail).sum())
        tail[0] = 1.0
        size = len(waveform) + len(tail)
        wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(tail, size), size)[: len(waveform)]
        return wet.astype(np.float32)

    return change


def clipping(share: float) -> Change:
    """The loudest samples, so large a share of them, cut to one level."""

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.quantile(np.abs(waveform), 1 - share)
        return waveform.clip(-level, level)

    return change


def telephone(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through 8 kHz and back: nothing above 4 kHz."""
    there = audio.resample(waveform, SAMPLE_RATE, 8000)
    back = audio.resample(there, 8000, SAMPLE_RATE)
    return np.pad(back, (0, max(0, len(waveform) - len(back))))[: len(waveform)]


def gain(decibels: float) -> Change:
    """Louder or softer, as floats: nothing clips."""
    factor = np.float32(10 ** (decibels / 20))
    return lambda waveform, rng: waveform * factor


CHANGES: dict[str, Change] = {
    **{f"noise {d} dB": noise(d) for d in (20, 10, 5)},
    "reverberation 0.5 s": reverberation(0.5),
    "clipping 5 %": clipping(0.05),
    "8 kHz": telephone,
    **{f"gain {d:+d} dB": gain(d) for d in (-20, 20)},
}


@dataclass(frozen=True)
class Robustness:
    """A task of the runner: an utterance -> a row for each system and change: (codes that stay, codes) by layer."""

    systems: Mapping[str, str]  #: and what made each
    seed: int

    def plan(self) -> dict[str, Any]:
        return {"systems": dict(self.systems), "changes": list(CHANGES), "seed": self.seed}

    def start(self) -> Callable[[Utterance], list[Row]]:
        systems = {name: load_tokenizer(name) for name in self.systems}

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            rows = []
            for name, system in systems.items():
                codes = system.encode(waveform).codes
                assert codes is not None
                for change, apply in CHANGES.items():
                    # The clip's own noise, the same for every system.
                    rng = np.random.default_rng([self.seed, *clip.id.encode()])
                    changed = system.encode(apply(waveform, rng)).codes
                    assert changed is not None
                    stays = changed.eq(codes).double().mean(1).tolist()
                    frames = codes.shape[1]
                    layers = {f"layer {k + 1}": [share * frames, frames] for k, share in enumerate(stays)}
                    row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key, "system": name, "change": change}
                    rows.append(row | layers)
            return rows

        return work


def evaluate(
    clips: Sequence[Utterance],
    out: Path,
    *,
    systems: Sequence[str],
    jobs: int = 1,
    seed: int = 0,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json, index.html and tables.md; returns the summary."""
    found, missing = available(systems, tokens=True)
    outcome = run(Robustness(makers(found), seed), clips, out, jobs, progress)
    described = describe(clips, outcome)
    measured: dict[str, Any] = {}
    for name, system in found.items():
        rows = [row for row in outcome.rows if row["system"] == name]
        changes = {change: _summarize([r for r in rows if r["change"] == change], seed) for change in CHANGES}
        measured[name] = {"made_by": system.made_by, "changes": changes}
    summary = {
        "suite": "robustness",
        **described,
        "seed": seed,
        "not_available": missing,
        "systems": measured,
    }
    write_json(out / "summary.json", summary)
    page = Page("Robustness", f"{summary['clips']} clips of {summary['speakers']} speakers: % of codes that stay")
    page.tables(tables(summary))
    page.notes(notes(summary))
    page.write(out)
    return summary


def _summarize(rows: Sequence[Row], seed: int) -> dict[str, dict[str, float]]:
    """The share of codes that stay, in percent, by layer."""
    of = [row["speaker_id"] for row in rows]
    layers = [key for key in rows[0] if key.startswith("layer ")]
    return {layer: statistics.figure([row[layer] for row in rows], of, seed).scaled(100.0) for layer in layers}


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """For each system: a row for each change, a column for each layer."""
    found: dict[str, Table] = {}
    for name, row in summary["systems"].items():
        layers = list(next(iter(row["changes"].values())))
        rows = [
            [change, *(figure_cell(figures[layer], 1) for layer in layers)]
            for change, figures in row["changes"].items()
        ]
        found[f"{name}: % of codes that stay"] = (["change", *layers], rows)
    return found


def notes(summary: Mapping[str, Any]) -> list[str]:
    return [
        "95 % intervals by resampling speakers. Noise and echoes are each clip's own, alike for every system.",
        *exclusions(summary),
    ]
