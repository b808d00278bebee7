"""Suite `codes`: how well a tokenizer uses its codebooks, layer by layer.

Entries in use, perplexity, and the bitrate after entropy coding.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import information, statistics
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.runner import Row, Task
from vocable.evaluation.suite import TokenizerSuite
from vocable.evaluation.summary import exclusions, figure_cell
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer, makers
from vocable.page import Cell, Table


@dataclass(frozen=True)
class EncodeClip:
    """Task: an utterance -> its codes, a row for each system."""

    systems: Mapping[str, str]  #: names, and what made each

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        return {"systems": dict(self.systems)}

    def start(self) -> Callable[[Utterance], list[Row]]:
        """Load the tokenizers and return the function that encodes a clip."""
        tokenizers = {name: load_tokenizer(name) for name in self.systems}

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            rows = []
            for name, tokenizer in tokenizers.items():
                codes = tokenizer.encode(waveform).codes
                assert codes is not None
                row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key, "system": name, "codes": pack(codes)}
                rows.append(row | {"seconds": len(waveform) / SAMPLE_RATE})
            return rows

        return work


def pack(codes: Tensor) -> list[str]:
    """Encode codes for JSON, each layer as base64 of uint16: int64 [K, T] -> K strings."""
    return [base64.b64encode(layer.numpy().astype("<u2").tobytes()).decode() for layer in codes]


def unpack(codes: Sequence[str]) -> np.ndarray:
    """Decode the strings of `pack`: int64 [K, T]."""
    return np.stack([np.frombuffer(base64.b64decode(layer), "<u2").astype(np.int64) for layer in codes])


def measure_layer(codes: Sequence[np.ndarray], size: int) -> dict[str, Any]:
    """Return the usage of one layer's codebook of `size` entries. codes: int [T] for each clip.

    used: fraction of entries that occur. perplexity: of the codes of all clips. bits [clips]: of each clip under an
    order-0 entropy coder with the counts of all other clips; p(code) = (count + 1/2) / sum.
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


class Codes(TokenizerSuite):
    """Suite: the usage of codebooks."""

    name, title = "codes", "Codes"
    with_codes = True

    def task(self) -> Task[Utterance]:
        """Return the task that encodes a clip."""
        return EncodeClip(makers(self.tokenizers))

    def summarize_system(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each layer, and the bitrates of all layers."""
        speakers, seconds = [row["speaker_id"] for row in rows], [row["seconds"] for row in rows]
        codes = [unpack(row["codes"]) for row in rows]
        layers: dict[str, Any] = {}
        all_bits = np.zeros(len(rows))
        for k, size in enumerate(tokenizer.codebook_sizes):
            figures = measure_layer([clip[k] for clip in codes], size)
            bits = figures.pop("bits")
            all_bits += bits
            coded = statistics.figure(list(zip(bits, seconds, strict=True)), speakers, seed=self.seed).scaled(1.0)
            layers[f"layer {k + 1}"] = {key: round(value, 4) for key, value in figures.items()} | {"coded_bps": coded}
        coded = statistics.figure(list(zip(all_bits, seconds, strict=True)), speakers, seed=self.seed).scaled(1.0)
        return {
            "codebook_size": max(tokenizer.codebook_sizes),
            "nominal_bps": round(tokenizer.bitrate, 1),
            "coded_bps": coded,
            "layers": layers,
        }

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return a table for each system: a row for each layer, and one for all layers."""
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
            columns = [
                "codes",
                "entries in use %",
                f"perplexity of {system['codebook_size']}",
                "bit/s",
                "entropy-coded bit/s",
            ]
            found[name] = (columns, rows)
        return found

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on perplexity, entropy coding and exclusions."""
        return [
            "Perplexity: of the codes of all clips together; at most the number of frames. Entropy-coded: by an "
            "order-0 model of the other clips, frame by frame; under it, the 95 % interval by resampling speakers.",
            *exclusions(summary),
        ]
