"""`Suite`: base class of the suites of `vocable eval`. A new suite is one file with a subclass and its task.

OUT/rows.jsonl     the rows of each item, written as soon as it is measured
OUT/summary.json   all figures
OUT/index.html     the page: tables, notes, players and pictures
OUT/tables.md      the tables and notes of the page in Markdown
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vocable.corpus.manifest import Utterance
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.runner import Item, Outcome, Progress, Row, Task, as_stage, no_progress, run
from vocable.evaluation.summary import describe, write_summary
from vocable.evaluation.tokenizers import Tokenizer, load_available
from vocable.page import Page, Table

#: What the page's players play: clip -> version -> waveform, float32 [L] at 16 kHz.
Waveforms = Mapping[str, Mapping[str, np.ndarray]]


class Suite(ABC):
    """Base class of the suites: one measurement of many items, its summary and its page.

    The constructor loads what the suite needs, so that anything missing is reported before the work begins. `run`
    measures item by item; an interrupted run resumes. The abstract methods are what a suite must define.
    """

    name: ClassVar[str]  #: of the command, and in summaries
    title: ClassVar[str]  #: of the page

    def __init__(self, clips: Sequence[Utterance], *, seed: int) -> None:
        """clips: those that the summary counts. seed: of intervals and random choices."""
        self.clips, self.seed = clips, seed

    # ---- abstract ------------------------------------------------------------------------------------------------

    @abstractmethod
    def task(self) -> Task[Any]:
        """Return the task that measures one item in a worker process."""

    @abstractmethod
    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of all rows, as JSON: the suite's own part of the summary."""

    @abstractmethod
    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return the tables of a summary, by heading."""

    @abstractmethod
    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return the notes under the tables."""

    # ---- with defaults -------------------------------------------------------------------------------------------

    def items(self) -> Sequence[Item]:
        """Return the items to measure. Default: the clips."""
        return self.clips

    def measure(self, out: Path, *, jobs: int, progress: Progress) -> Outcome:
        """Measure all items in worker processes."""
        return run(self.task(), self.items(), out, jobs=jobs, progress=progress)

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{summary['clips']} clips of {summary['speakers']} speakers"

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        """Return waveforms for the page's players. clips: those of the suite that were not left out."""
        return {}

    def draw(self, page: Page, clips: Sequence[Utterance]) -> None:  # noqa: B027
        """Add pictures to the page. clips: those of the suite that were not left out."""

    def parts(self) -> Mapping[str, Suite]:
        """Return suites that belong to this one: they run after it, in subfolders of OUT with these names."""
        return {}

    # ---- the run -------------------------------------------------------------------------------------------------

    def run(self, out: Path, *, jobs: int = 1, progress: Progress = no_progress) -> dict[str, Any]:
        """Measure all items; write the summary and the page to OUT; return the summary.

        jobs: worker processes, of one thread each. Raises ValueError as `runner.run` does, or if every clip fails.
        """
        outcome = self.measure(out, jobs=jobs, progress=progress)
        described = describe(self.clips, outcome)
        summary = {"suite": self.name, **described, "seed": self.seed} | self.summarize(outcome.rows)
        write_summary(out, summary)
        page = Page(self.title, lead=self.lead(summary))
        page.tables(self.tables(summary))
        page.notes(self.notes(summary))
        kept = [clip for clip in self.clips if clip.id not in outcome.left_out]
        if waveforms := self.players(kept):
            page.heading("To hear")
            page.players(waveforms, sample_rate=SAMPLE_RATE)
        self.draw(page, kept)
        page.write_html(out / "index.html")
        page.write_markdown(out / "tables.md")
        for name, part in self.parts().items():
            part.run(out / name, jobs=jobs, progress=as_stage(progress, name))
        return summary


class TokenizerSuite(Suite):
    """Base class of the suites that measure several tokenizers on the same clips."""

    with_codes: ClassVar[bool] = False  #: whether the suite needs tokenizers with codes

    def __init__(self, clips: Sequence[Utterance], *, systems: Sequence[str], seed: int = 0) -> None:
        """systems: names for `load_tokenizer`. Those that are not available are listed in the summary."""
        super().__init__(clips, seed=seed)
        self.tokenizers, self.missing = load_available(systems, with_codes=self.with_codes)

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each tokenizer, and which are not available."""
        systems = {
            name: {"made_by": tokenizer.made_by}
            | self.summarize_system(tokenizer, [row for row in rows if row["system"] == name])
            for name, tokenizer in self.tokenizers.items()
        }
        return {"not_available": self.missing, "systems": systems}

    @abstractmethod
    def summarize_system(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of one tokenizer from its rows."""
