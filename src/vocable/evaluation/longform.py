"""Suite `longform`: does the quality of long recordings, encoded in one piece, drift with the position?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation.metrics import METRICS, Judges, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import recogniser
from vocable.evaluation.reconstruction import DEFAULT_METRICS
from vocable.evaluation.runner import Row, Task
from vocable.evaluation.scoring import figures_of, fit_length, scores, transcript
from vocable.evaluation.suite import TokenizerSuite, Waveforms
from vocable.evaluation.summary import exclusions, language_of
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer, makers
from vocable.page import Cell, Table

WINDOW_SECONDS = 15.0


@dataclass(frozen=True)
class JudgeWindows:
    """Task: a recording -> a row for each system and window.

    The whole recording is encoded and decoded once. Words are compared with the recogniser's transcript of the same
    window of the recording.
    """

    systems: Mapping[str, str]  #: names, and what made each
    judges: Judges
    made_with: Mapping[str, str]  #: versions and weights of the metrics

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        return {"systems": dict(self.systems), "made_with": dict(self.made_with), "window": WINDOW_SECONDS}

    def start(self) -> Callable[[Utterance], list[Row]]:
        """Load the tokenizers and the recogniser, and return the function that measures a recording."""
        tokenizers = {name: load_tokenizer(name) for name in self.systems}
        recognise = recogniser(self.judges)

        def work(clip: Utterance) -> list[Row]:
            waveform, _ = audio.read(clip.path, SAMPLE_RATE)
            size, language = round(WINDOW_SECONDS * SAMPLE_RATE), language_of(clip)
            starts = range(0, max(len(waveform) - size // 2, 1), size)
            texts = {at: transcript(recognise, waveform[at : at + size], language) for at in starts}
            rows = []
            for name, tokenizer in tokenizers.items():
                decoded = fit_length(tokenizer.decode(tokenizer.encode(waveform)), len(waveform))
                for at in starts:
                    window = slice(at, at + size)
                    pair = Pair(waveform[window], decoded[window], texts[at], language)
                    # Intervals resample recordings, not speakers: the question is the drift within each recording.
                    row: Row = {"clip": clip.id, "speaker_id": clip.id, "system": name, "start": at / SAMPLE_RATE}
                    rows.append(row | scores(pair, DEFAULT_METRICS, self.judges))
            return rows

        return work


class Longform(TokenizerSuite):
    """Suite: scores of long recordings by position."""

    name, title = "longform", "Long recordings"

    def __init__(self, clips: Sequence[Utterance], *, systems: Sequence[str], judges: Judges, seed: int = 0) -> None:
        """clips: whole recordings."""
        self.made_with = made_with(DEFAULT_METRICS, judges)
        super().__init__(clips, systems=systems, seed=seed)
        self.judges = judges

    def task(self) -> Task[Utterance]:
        """Return the task that scores the windows of a recording."""
        return JudgeWindows(makers(self.tokenizers), self.judges, self.made_with)

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return each system's figures by position."""
        return {"window": WINDOW_SECONDS, "made_with": self.made_with} | super().summarize(rows)

    def summarize_system(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each position, and the drift of each metric."""
        positions = {
            f"{start:g}": figures_of([r for r in rows if r["start"] == start], DEFAULT_METRICS, seed=self.seed)
            for start in sorted({row["start"] for row in rows})
        }
        return {"positions": positions, "drift": {metric: drift(rows, metric) for metric in DEFAULT_METRICS}}

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{summary['clips']} recordings, in windows of {WINDOW_SECONDS:g} s"

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return one table: a row for each position and system, and each system's drift at the end."""
        rows: list[list[Cell]] = []
        for name, found in summary["systems"].items():
            for start, figures in found["positions"].items():
                cells: list[Cell] = [(f"{start} s", name)]
                for metric in DEFAULT_METRICS:
                    value = figures[metric].get("value")
                    cells.append("-" if value is None else f"{value:.{METRICS[metric].digits}f}")
                rows.append(cells)
        for name, found in summary["systems"].items():
            cells = [("drift per minute", name)]
            for metric in DEFAULT_METRICS:
                slope = found["drift"][metric]
                cells.append((f"{slope['slope']:+.3f}", f"± {1.96 * slope['error']:.3f}") if slope else "-")
            rows.append(cells)
        return {"By position": (["position", *(METRICS[name].heading() for name in DEFAULT_METRICS)], rows)}

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on the comparison, the drift and exclusions."""
        return [
            "The whole recording is encoded and decoded once; words are compared with the same recogniser's transcript "
            "of the same window of the recording. Drift: the slope over positions by least squares, ± 1.96 standard "
            "errors as if windows were independent; positions have no intervals.",
            *exclusions(summary),
        ]

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        """Return the first, the middle and the last window of the first recording, which is encoded in one piece."""
        clip = clips[0]
        waveform, _ = audio.read(clip.path, SAMPLE_RATE)
        size = min(round(WINDOW_SECONDS * SAMPLE_RATE), len(waveform))
        decoded = {
            name: fit_length(tokenizer.decode(tokenizer.encode(waveform)), len(waveform))
            for name, tokenizer in self.tokenizers.items()
        }
        starts = dict.fromkeys((0, (len(waveform) - size) // 2, len(waveform) - size))
        return {
            f"{clip.id}, from {at / SAMPLE_RATE:.0f} s": {
                name: speech[at : at + size] for name, speech in decoded.items()
            }
            for at in starts
        }


def drift(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Fit a metric to the position by least squares, with a level for each clip.

    Returns the slope per minute and its standard error; nothing if there are too few windows.
    """
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
