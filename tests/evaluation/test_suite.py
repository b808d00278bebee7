"""The base class of suites, with a suite that is nothing but its own file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vocable.cli.results import run_suite
from vocable.corpus.manifest import Utterance
from vocable.evaluation.runner import Row, Task
from vocable.evaluation.suite import Suite, Waveforms
from vocable.evaluation.summary import exclusions
from vocable.page import Table


class MeasureDuration:
    """Task: an utterance -> its duration; those without a text are bad."""

    def plan(self) -> dict[str, Any]:
        return {}

    def start(self) -> Callable[[Utterance], list[Row]]:
        def work(clip: Utterance) -> list[Row]:
            if clip.text is None:
                raise ValueError("no text")
            return [{"clip": clip.id, "duration": clip.duration}]

        return work


class Durations(Suite):
    """Suite: the total duration of the clips."""

    name, title = "durations", "Durations"

    def task(self) -> Task[Utterance]:
        return MeasureDuration()

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {"total": sum(row["duration"] for row in rows)}

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        return {"Durations": (["clips", "seconds"], [[str(summary["clips"]), f"{summary['total']:.1f}"]])}

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        return exclusions(summary)

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        return {clip.id: {"silence": np.zeros(160)} for clip in clips}


class Twice(Durations):
    """Suite: durations, and durations once more in OUT/again."""

    def parts(self) -> Mapping[str, Suite]:
        return {"again": Durations(self.clips[:1], seed=1)}


CLIPS = [Utterance(f"{i}", Path(f"{i}"), 1.0 + i, text=text) for i, text in enumerate(("a", None, "b"))]


def test_a_suite_is_one_class_and_its_task(tmp_path: Path) -> None:
    stages: list[tuple[str, float]] = []
    summary = Twice(CLIPS, seed=3).run(tmp_path, progress=lambda *stage: stages.append(stage))
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["suite"], summary["seed"], summary["total"], summary["clips"]) == ("durations", 3, 4.0, 2)
    assert summary["left_out"] == {"1": "no text"}
    page = (tmp_path / "index.html").read_text()
    assert "2 clips of 2 speakers" in page and page.count("<audio") == 2
    assert "| 2 | 4.0 |" in (tmp_path / "tables.md").read_text()
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert (again["seed"], again["total"]) == (1, 1.0)
    assert stages[-1] == ("again", 1.0)


def test_all_results_are_printed_and_missing_clips_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    with pytest.raises(typer.Exit):
        run_suite(Twice(CLIPS, seed=0), tmp_path, jobs=1)
    printed = capsys.readouterr()
    assert printed.out.count("Durations") == 2 and "Left out, 1 of 3 clips: 1 (no text)." in printed.out
    assert "2 clips, 1 left out" in printed.err
    run_suite(Twice(CLIPS[:1], seed=0), tmp_path / "good", jobs=1)


def test_a_run_without_a_usable_clip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not one of 1 clips could be used: no text"):
        Durations(CLIPS[1:2], seed=0).run(tmp_path)
