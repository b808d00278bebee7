"""Suite `reconstruction`: how well tokenizers preserve speech. Each clip through each system, judged by each metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation.metrics import METRICS, Judges, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import recogniser
from vocable.evaluation.pictures import code_matrices, spectrograms
from vocable.evaluation.runner import Item, Outcome, Progress, Row, Task
from vocable.evaluation.scoring import (
    figures_of,
    fit_length,
    languages_without_text,
    notes_on_words,
    scores,
    transcript,
)
from vocable.evaluation.suite import TokenizerSuite, Waveforms
from vocable.evaluation.summary import exclusions, figure_cell, language_of
from vocable.evaluation.tokenizers import CodecTokenizer, Tokenizer, load_tokenizer
from vocable.page import Cell, Page, Table, to_png

SYSTEMS = ("recording", "fast@:8", "fast@:4", "fast@:2", "fast@:1", "opus:6", "opus:12", "codec2:3200")
DEFAULT_METRICS = ("pesq", "stoi", "wer", "speaker", "mos")


@dataclass(frozen=True)
class Trial:
    """Item of the runner: a clip and one system. So a system can be added to a table later."""

    clip: Utterance
    system: str
    made_by: str  #: makes rows of other weights invalid

    @property
    def id(self) -> str:
        """The clip's id and the system."""
        return f"{self.clip.id} through {self.system}"


@dataclass(frozen=True)
class JudgeReconstruction:
    """Task: a trial -> its row of scores."""

    metrics: tuple[str, ...]
    judges: Judges
    made_with: Mapping[str, str]  #: versions and weights of the metrics
    #: Languages in which the recogniser's transcript of the recording replaces the text.
    transcribed: frozenset[str] = frozenset()

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        return {"metrics": list(self.metrics), "made_with": dict(self.made_with), "heard": sorted(self.transcribed)}

    def start(self) -> Callable[[Trial], list[Row]]:
        """Return the function that measures a trial; it loads a tokenizer at its first trial."""
        load = cache(load_tokenizer)

        def work(trial: Trial) -> list[Row]:
            clip, tokenizer = trial.clip, load(trial.system)
            reference, _ = audio.read(clip.path, SAMPLE_RATE)
            language, text = language_of(clip), clip.text
            if language in self.transcribed:
                text = transcript(recogniser(self.judges), reference, language)
            tokens = tokenizer.encode(reference)
            decoded = fit_length(tokenizer.decode(tokens), len(reference))
            row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key, "system": trial.system}
            row |= {"seconds": len(reference) / SAMPLE_RATE, "bits": tokens.bits}
            return [row | scores(Pair(reference, decoded, text, language), self.metrics, self.judges)]

        return work


class Reconstruction(TokenizerSuite):
    """Suite: scores of the speech that tokenizers decode."""

    name, title = "reconstruction", "Reconstruction"

    def __init__(
        self,
        clips: Sequence[Utterance],
        *,
        systems: Sequence[str] = SYSTEMS,
        metrics: Sequence[str] = DEFAULT_METRICS,
        judges: Judges,
        transcribe: bool = False,
        listen: int = 6,
        seed: int = 0,
    ) -> None:
        """transcribe: in languages in which no clip has a text, compare words with the recogniser's transcript of the
        recording. listen: the number of clips that the page plays."""
        self.made_with = made_with(metrics, judges)
        super().__init__(clips, systems=systems, seed=seed)
        self.metrics, self.judges, self.listen = tuple(metrics), judges, listen
        self.transcribed = languages_without_text(clips) if transcribe else frozenset()

    def task(self) -> Task[Trial]:
        """Return the task that scores a trial."""
        return JudgeReconstruction(self.metrics, self.judges, self.made_with, self.transcribed)

    def items(self) -> Sequence[Item]:
        """Return every clip with every system."""
        return [Trial(clip, name, tok.made_by) for clip in self.clips for name, tok in self.tokenizers.items()]

    def measure(self, out: Path, *, jobs: int, progress: Progress) -> Outcome:
        """Measure all trials. A clip that fails in one system is left out of all: they are compared on equal clips."""
        trials = super().measure(out, jobs=jobs, progress=progress)
        names = {Trial(clip, name, "").id: clip.id for clip in self.clips for name in self.tokenizers}
        left_out = {names[trial]: why for trial, why in trials.left_out.items()}
        return Outcome([row for row in trials.rows if row["clip"] not in left_out], left_out)

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return each system's figures by metric."""
        own = {"metrics": list(self.metrics), "heard": sorted(self.transcribed), "made_with": self.made_with}
        return own | super().summarize(rows)

    def summarize_system(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, Any]:
        """Return one system's bitrates and figures."""
        return {"nominal_bps": round(tokenizer.bitrate, 1)} | figures_of(rows, self.metrics, seed=self.seed)

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return one table: systems by metrics."""
        metrics = [METRICS[name] for name in summary["metrics"]]
        rows: list[list[Cell]] = []
        for name, found in summary["systems"].items():
            cells: list[Cell] = [(name, found["made_by"])]
            cells.append((f"{found['nominal_bps']:.0f}", f"{found.get('measured_bps', math.nan):.0f} measured"))
            rows.append(cells + [figure_cell(found[metric.name], metric.digits) for metric in metrics])
        for name in summary["not_available"]:
            rows.append([name, "weights not available", *([""] * len(metrics))])
        return {"Figures": (["system", "bit/s", *(metric.heading() for metric in metrics)], rows)}

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on intervals, words, versions and exclusions."""
        lines = ["Figures are means; under them, 95 % intervals by resampling speakers, where there are five or more."]
        if any(METRICS[name].needs_text for name in summary["metrics"]):
            lines += notes_on_words(summary)
        lines.append("Made with " + ", ".join(f"{key} {value}" for key, value in summary["made_with"].items()) + ".")
        return lines + exclusions(summary)

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        """Return some clips, decoded by every system."""
        return players(self._shown(clips), self.tokenizers)

    def draw(self, page: Page, clips: Sequence[Utterance]) -> None:
        """Add the pictures of the first clip."""
        draw(page, self._shown(clips)[:1], self.tokenizers)

    def _shown(self, clips: Sequence[Utterance]) -> list[Utterance]:
        kept = {clip.id for clip in clips}
        return [clip for clip in spread(self.clips, self.listen) if clip.id in kept]


def players(clips: Sequence[Utterance], tokenizers: Mapping[str, Tokenizer]) -> Waveforms:
    """Decode clips by every tokenizer: clip -> tokenizer -> float32 [L] at 16 kHz."""
    found = {}
    for clip in clips:
        waveform = audio.read(clip.path, SAMPLE_RATE)[0]
        decoded = {name: tokenizer.decode(tokenizer.encode(waveform)) for name, tokenizer in tokenizers.items()}
        found[clip.id] = {name: fit_length(speech, len(waveform)) for name, speech in decoded.items()}
    return found


def draw(page: Page, clips: Sequence[Utterance], tokenizers: Mapping[str, Tokenizer]) -> None:
    """Add, for each clip, the spectrograms of the decoded speech and the codes of all `Codec`s."""
    for clip in clips:
        waveform = audio.read(clip.path, SAMPLE_RATE)[0]
        codes = {}
        for name, tokenizer in tokenizers.items():
            if isinstance(tokenizer, CodecTokenizer):
                found = tokenizer.encode(waveform).codes
                assert found is not None
                codes[name] = found.numpy()
        page.heading("To see")
        pictures = spectrograms(players([clip], tokenizers)[clip.id], sample_rate=SAMPLE_RATE)
        page.picture(to_png(pictures), caption=f"Spectrograms of {clip.id}")
        if codes:
            caption = f"Codes of {clip.id}: a row for each layer, a colour for each code"
            page.picture(to_png(code_matrices(codes)), caption=caption)
