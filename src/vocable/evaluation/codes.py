"""How well a tokenizer uses its codebooks, layer by layer: entries in use, perplexity, entropy-coded bitrate."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import information, statistics
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.page import Cell, Page, Table
from vocable.evaluation.reconstruction import available, figure_cell, makers
from vocable.evaluation.runner import Progress, Row, describe, exclusions, run, write_json
from vocable.evaluation.tokenizers import load_tokenizer


@dataclass(frozen=True)
class Codes:
    """A task of the runner: an utterance -> its codes, a row for each system."""

    systems: Mapping[str, str]  #: and what made each

    def plan(self) -> dict[str, Any]:
        return {"systems": dict(self.systems)}

    def start(self) -> Callable[[Utterance], list[Row]]:
        systems = {name: load_tokenizer(name) for name in self.systems}

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            rows = []
            for name, system in systems.items():
                codes = system.encode(waveform).codes
                assert codes is not None
                row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key, "system": name, "codes": pack(codes)}
                rows.append(row | {"seconds": len(waveform) / SAMPLE_RATE})
            return rows

        return work


def pack(codes: Tensor) -> list[str]:
    """For JSON, a sixth as long as numbers: each layer in uint16, base64. int64 [K, T] -> K strings."""
    return [base64.b64encode(layer.numpy().astype("<u2").tobytes()).decode() for layer in codes]


def unpack(codes: Sequence[str]) -> np.ndarray:
    """What `pack` packed, int64 [K, T]."""
    return np.stack([np.frombuffer(base64.b64decode(layer), "<u2").astype(np.int64) for layer in codes])


def measure(codes: Sequence[np.ndarray], size: int) -> dict[str, Any]:
    """Of one layer's codes, int [T] for each clip: figures, and each clip's bits under the counts of all the others.

    Those bits are what an order-0 entropy coder would send that had seen the other clips: (count + 1/2) over the sum.
    """
    counts = np.stack([np.bincount(clip, minlength=size) for clip in codes])
    total = counts.sum(0)
    others = total - counts + 0.5
    bits = (counts * -np.log2(others / others.sum(1, keepdims=True))).sum(1)
    return {
        "used": float((total > 0).mean()),
        "perplexity": float(2 ** information.entropy(total)),
        "bits": bits,
    }


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
    outcome = run(Codes(makers(found)), clips, out, jobs, progress)
    described = describe(clips, outcome)
    measured: dict[str, Any] = {}
    for name, system in found.items():
        rows = [row for row in outcome.rows if row["system"] == name]
        of, seconds = [row["speaker_id"] for row in rows], [row["seconds"] for row in rows]
        layers: dict[str, Any] = {}
        sent = np.zeros(len(rows))
        codes = [unpack(row["codes"]) for row in rows]
        for k in range(len(codes[0])):
            figures = measure([clip[k] for clip in codes], system.codebook_size)
            bits = figures.pop("bits")
            sent += bits
            coded = statistics.figure(list(zip(bits, seconds, strict=True)), of, seed).scaled(1.0)
            layers[f"layer {k + 1}"] = {key: round(value, 4) for key, value in figures.items()} | {"coded_bps": coded}
        measured[name] = {
            "made_by": system.made_by,
            "codebook_size": system.codebook_size,
            "nominal_bps": round(system.bitrate, 1),
            "coded_bps": statistics.figure(list(zip(sent, seconds, strict=True)), of, seed).scaled(1.0),
            "layers": layers,
        }
    summary = {
        "suite": "codes",
        **described,
        "seed": seed,
        "not_available": missing,
        "systems": measured,
    }
    write_json(out / "summary.json", summary)
    page = Page("Codes", f"{summary['clips']} clips of {summary['speakers']} speakers")
    page.tables(tables(summary))
    page.notes(notes(summary))
    page.write(out)
    return summary


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """For each system: a row for each layer, and one for all."""
    found: dict[str, Table] = {}
    for name, system in summary["systems"].items():
        layers = system["layers"]
        nominal = system["nominal_bps"]
        rows: list[list[Cell]] = [
            [
                layer,
                f"{100 * figures['used']:.1f}",
                f"{figures['perplexity']:.0f}",
                f"{nominal / len(layers):.0f}",
                figure_cell(figures["coded_bps"], 0),
            ]
            for layer, figures in layers.items()
        ]
        rows.append(["all", "", "", f"{nominal:.0f}", figure_cell(system["coded_bps"], 0)])
        heads = [
            "codes",
            "entries in use %",
            f"perplexity of {system['codebook_size']}",
            "bit/s",
            "entropy-coded bit/s",
        ]
        found[name] = (heads, rows)
    return found


def notes(summary: Mapping[str, Any]) -> list[str]:
    return [
        "Perplexity: of the codes of all clips together; at most the number of frames. Entropy-coded: by an order-0 "
        "model of the other clips, frame by frame; under it, the 95 % interval by resampling speakers.",
        *exclusions(summary),
    ]
