"""Suite `robustness`: the percentage of codes that do not change when the recording is degraded, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.runner import Row, Task
from vocable.evaluation.suite import TokenizerSuite
from vocable.evaluation.summary import exclusions, figure_cell
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer, makers
from vocable.page import Table

#: A change of a recording: float32 [L] at 16 kHz -> [L]. Its noise is drawn from the generator.
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(decibels: float) -> Change:
    """Return a change that adds white noise, `decibels` below the speech."""

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.sqrt(np.square(waveform).mean()) * 10 ** (-decibels / 20)
        return waveform + rng.normal(0.0, level, len(waveform)).astype(np.float32)

    return change


def reverberation(seconds: float) -> Change:
    """Return a change that adds the echo of a room with a reverberation time (60 dB) of `seconds`.

    The impulse response is the direct sound and decaying noise, 6 dB below it.
    """

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
        tail *= 0.5 / np.sqrt(np.square(tail).sum())
        tail[0] = 1.0
        size = len(waveform) + len(tail)
        wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(tail, size), size)[: len(waveform)]
        return wet.astype(np.float32)

    return change


def clipping(fraction: float) -> Change:
    """Return a change that clips the loudest samples, this fraction of all, to one level."""

    def change(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.quantile(np.abs(waveform), 1 - fraction)
        return waveform.clip(-level, level)

    return change


def telephone(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resample to 8 kHz and back, which removes everything above 4 kHz."""
    narrow = audio.resample(waveform, SAMPLE_RATE, 8000)
    back = audio.resample(narrow, 8000, SAMPLE_RATE)
    return np.pad(back, (0, max(0, len(waveform) - len(back))))[: len(waveform)]


def gain(decibels: float) -> Change:
    """Return a change of level. Samples are floats, so nothing clips."""
    factor = np.float32(10 ** (decibels / 20))
    return lambda waveform, rng: waveform * factor


#: The changes that the suite measures, by name.
CHANGES: dict[str, Change] = {
    **{f"noise {d} dB": noise(d) for d in (20, 10, 5)},
    "reverberation 0.5 s": reverberation(0.5),
    "clipping 5 %": clipping(0.05),
    "8 kHz": telephone,
    **{f"gain {d:+d} dB": gain(d) for d in (-20, 20)},
}


@dataclass(frozen=True)
class CompareCodes:
    """Task: an utterance -> a row for each system and change: [unchanged codes, codes] of each layer."""

    systems: Mapping[str, str]  #: names, and what made each
    seed: int  #: of noise and echoes

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        return {"systems": dict(self.systems), "changes": list(CHANGES), "seed": self.seed}

    def start(self) -> Callable[[Utterance], list[Row]]:
        """Load the tokenizers and return the function that measures a clip."""
        tokenizers = {name: load_tokenizer(name) for name in self.systems}

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            rows = []
            for name, tokenizer in tokenizers.items():
                codes = tokenizer.encode(waveform).codes
                assert codes is not None
                for change, apply in CHANGES.items():
                    # Noise and echoes depend on the clip, and not on the system.
                    rng = np.random.default_rng([self.seed, *clip.id.encode()])
                    changed = tokenizer.encode(apply(waveform, rng)).codes
                    assert changed is not None
                    unchanged = changed.eq(codes).double().mean(1).tolist()
                    frames = codes.shape[1]
                    layers = {f"layer {k + 1}": [fraction * frames, frames] for k, fraction in enumerate(unchanged)}
                    row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key, "system": name, "change": change}
                    rows.append(row | layers)
            return rows

        return work


class Robustness(TokenizerSuite):
    """Suite: the percentage of codes that do not change when the recording is degraded."""

    name, title = "robustness", "Robustness"
    with_codes = True

    def task(self) -> Task[Utterance]:
        """Return the task that encodes a clip and its changed versions."""
        return CompareCodes(makers(self.tokenizers), self.seed)

    def summarize_system(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the percentage of unchanged codes: change -> layer -> figure."""
        return {"changes": {change: self._by_layer([r for r in rows if r["change"] == change]) for change in CHANGES}}

    def _by_layer(self, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
        speakers = [row["speaker_id"] for row in rows]
        layers = [key for key in rows[0] if key.startswith("layer ")]
        return {
            layer: statistics.figure([row[layer] for row in rows], speakers, seed=self.seed).scaled(100.0)
            for layer in layers
        }

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{super().lead(summary)}: % of codes that do not change"

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return a table for each system: a row for each change, a column for each layer."""
        found: dict[str, Table] = {}
        for name, system in summary["systems"].items():
            layers = list(next(iter(system["changes"].values())))
            rows = [
                [change, *(figure_cell(figures[layer], 1) for layer in layers)]
                for change, figures in system["changes"].items()
            ]
            found[f"{name}: % of codes that do not change"] = (["change", *layers], rows)
        return found

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on intervals and exclusions."""
        return [
            "95 % intervals by resampling speakers. Each clip has its own noise and echo, the same for every system.",
            *exclusions(summary),
        ]
