from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vocable
from vocable.corpus.manifest import Utterance
from vocable.evaluation import runner
from vocable.evaluation.summary import read_summary


@dataclass(frozen=True)
class Number:
    id: str
    value: int


@dataclass(frozen=True)
class Squares:
    """Task: a number -> its square; 13 is a bad item, and negative numbers a fault of the program."""

    log: Path
    power: int = 2

    def plan(self) -> dict[str, Any]:
        return {"power": self.power}

    def start(self) -> Callable[[Number], list[runner.Row]]:
        def work(item: Number) -> list[runner.Row]:
            with open(self.log, "a") as file:
                file.write(f"{item.value}\n")
            if item.value == 13:
                raise ValueError("unlucky")
            if item.value < 0:
                raise AttributeError("module 'numpy' has no attribute 'float'")
            return [{"clip": item.id, "square": item.value**self.power}]

        return work


ITEMS = [Number(f"n{i}", i) for i in range(20)]


def test_rows_in_order_and_a_bad_item_left_out(tmp_path: Path) -> None:
    fractions: list[float] = []
    outcome = runner.run(
        Squares(tmp_path / "log"), ITEMS, tmp_path, progress=lambda stage, fraction: fractions.append(fraction)
    )
    assert [row["square"] for row in outcome.rows] == [i * i for i in range(20) if i != 13]
    assert outcome.left_out == {"n13": "unlucky"}
    assert fractions == [i / 20 for i in range(21)]
    assert runner.read_rows(tmp_path) == ({"vocable": vocable.__version__, "power": 2}, outcome.rows)


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_and_resumed_gives_the_same(tmp_path: Path, jobs: int) -> None:
    whole = runner.run(Squares(tmp_path / "whole.log"), ITEMS, tmp_path / "whole")

    class Stop(Exception): ...

    def stop_after_seven(stage: str, fraction: float) -> None:
        if round(fraction * 20) == 7:
            raise Stop

    task = Squares(tmp_path / "log")
    with pytest.raises(Stop):
        runner.run(task, ITEMS, tmp_path / "out", jobs=jobs, progress=stop_after_seven)
    with open(tmp_path / "out" / "rows.jsonl", "a") as file:
        file.write('\n{"item": "n19", "rows": [{"cl')  # as a kill leaves it
    done = len((tmp_path / "log").read_text().split()) if jobs == 1 else 0
    resumed = runner.run(task, ITEMS, tmp_path / "out", jobs=jobs)
    assert resumed.rows == whole.rows and resumed.left_out == whole.left_out
    if jobs == 1:  # nothing was done twice
        assert done == 7
        assert len((tmp_path / "log").read_text().split()) == 20


@dataclass(frozen=True)
class Sleeping:
    """Task: nothing, at once for 0 and after ten minutes for other numbers."""

    def plan(self) -> dict[str, Any]:
        return {}

    def start(self) -> Callable[[Number], list[runner.Row]]:
        return lambda item: time.sleep(600 * bool(item.value)) or [{"clip": item.id}]


def test_an_interrupt_does_not_wait_for_long_items(tmp_path: Path) -> None:
    def interrupt(stage: str, fraction: float) -> None:
        if fraction:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run(Sleeping(), ITEMS[:4], tmp_path, jobs=2, progress=interrupt)
    assert time.monotonic() - begun < 60


def test_changed_and_failed_items_are_measured_again(tmp_path: Path) -> None:
    task = Squares(tmp_path / "log")
    runner.run(task, ITEMS[10:15], tmp_path)
    changed = [Number("n11", 50), *ITEMS[12:15]]
    outcome = runner.run(task, changed, tmp_path)
    assert [row["square"] for row in outcome.rows] == [2500, 144, 196]
    assert (tmp_path / "log").read_text().split()[5:] == ["50", "13"]
    with pytest.raises(ValueError, match="'n12' occurs twice"):
        runner.run(task, [*changed, ITEMS[12]], tmp_path)
    with pytest.raises(ValueError, match="no clips"):
        runner.run(task, [], tmp_path)


def test_another_plan_is_refused(tmp_path: Path) -> None:
    runner.run(Squares(tmp_path / "log"), ITEMS[:2], tmp_path)
    with pytest.raises(ValueError, match="another power"):
        runner.run(Squares(tmp_path / "log", 3), ITEMS[:2], tmp_path)
    (tmp_path / "rows.jsonl").write_text("nonsense")
    with pytest.raises(ValueError, match="another"):
        runner.run(Squares(tmp_path / "log"), ITEMS[:2], tmp_path)


def test_items_are_added_to_finished_results(tmp_path: Path) -> None:
    runner.run(Squares(tmp_path / "log"), ITEMS[:5], tmp_path)
    outcome = runner.run(Squares(tmp_path / "log"), ITEMS[3:8], tmp_path)
    assert [row["clip"] for row in outcome.rows] == [f"n{i}" for i in range(3, 8)]
    plan = json.loads((tmp_path / "rows.jsonl").read_text().split("\n")[0])["plan"]
    assert plan == {"vocable": vocable.__version__, "power": 2}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_program_ends_the_run(tmp_path: Path, jobs: int) -> None:
    task = Squares(tmp_path / "log")
    with pytest.raises(ValueError, match=r"stopped at broken .* not the clip's.*'float'"):
        runner.run(task, [ITEMS[1], Number("broken", -1)], tmp_path, jobs=jobs)
    assert len(runner.run(task, ITEMS[:3], tmp_path).rows) == 3  # what was done before stands


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    task = Squares(tmp_path / "log")

    def start_another(stage: str, fraction: float) -> None:
        if fraction == 0.5:
            with pytest.raises(ValueError, match="another run uses this folder"):
                runner.run(task, ITEMS[:2], tmp_path)

    runner.run(task, ITEMS[:2], tmp_path, progress=start_another)
    lines = (tmp_path / "rows.jsonl").read_text().split("\n")
    assert len(lines) == 3 and len(runner.run(task, ITEMS[:2], tmp_path).rows) == 2


def test_a_speaker_that_is_a_list_is_refused_first(tmp_path: Path) -> None:
    clips = [Utterance("a", Path("a"), 1.0), Utterance("b", Path("b"), 1.0, speaker=["x"])]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="b: speaker, text"):
        runner.run(Squares(tmp_path / "log"), clips, tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / "log").exists()


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        runner.read_rows(tmp_path)
    with pytest.raises(ValueError, match="no finished evaluation"):
        read_summary(tmp_path)
    for damaged in ("", "[", "[" * 100_000, "[]"):
        (tmp_path / "rows.jsonl").write_text(damaged)
        (tmp_path / "summary.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"rows\.jsonl: damaged"):
            runner.read_rows(tmp_path)
        with pytest.raises(ValueError, match=r"summary\.json: "):
            read_summary(tmp_path)
