"""Run a task on many items in several processes, resumable item by item; a bad item is reported and left out.

OUT/rows.jsonl   first the plan, then a line for each item as soon as it is finished
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

import vocable
from vocable.corpus.parallel import in_processes
from vocable.journal import Journal
from vocable.lock import one_at_a_time

#: Errors that reading, coding and judging a clip may raise: the clip is left out, and the error is its reason. Every
#: other error is a fault of the installation or the program, and ends the run.
CLIP_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
#: Figures of one item and one system, as JSON: [sum, count], or None, and then "unjudged" holds the reason.
Row = dict[str, Any]
#: Called with the name of a stage and the finished fraction of it.
Progress = Callable[[str, float], None]


def no_progress(stage: str, fraction: float) -> None:
    """Show no progress."""


def as_stage(progress: Progress, name: str) -> Progress:
    """Return a callback that reports all stages of a run as the one stage `name`."""
    return lambda _, fraction: progress(name, fraction)


class Item(Protocol):
    """An item that a task measures, such as an utterance or a pair of utterances."""

    @property
    def id(self) -> str:
        """A name that no other item has."""


I = TypeVar("I", bound=Item)  # noqa: E741
J = TypeVar("J", bound=Item, contravariant=True)


class Task(Protocol[J]):
    """A measurement of one item. It is pickled and sent to the worker processes."""

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on, as JSON: a run is not resumed with another plan."""

    def start(self) -> Callable[[J], list[Row]]:
        """Load the models, once in each process, and return the function that measures an item."""


@dataclass
class Outcome:
    """The results of a run."""

    rows: list[Row] = field(default_factory=list)  #: in the order of the items
    left_out: dict[str, str] = field(default_factory=dict)  #: ids of bad items -> reasons


class _Work(Generic[I]):
    """A task in one process; the models are loaded at the first item."""

    def __init__(self, task: Task[I]) -> None:
        self._task = task
        self._work: Callable[[I], list[Row]] | None = None

    def __call__(self, item: I) -> dict[str, Any]:
        self._work = self._work or self._task.start()
        try:
            return {"item": item.id, "is": _digest(item), "rows": self._work(item)}
        except CLIP_ERRORS as error:
            return {"item": item.id, "is": _digest(item), "error": " ".join(str(error).split()) or type(error).__name__}
        except Exception as error:
            raise ValueError(
                f"stopped at {item.id} by an error that is not the clip's, {error!r}: repair the installation and run "
                "the same command again, which resumes here"
            ) from error


def _digest(item: Item) -> str:
    """Return a digest of all fields of an item: a clip whose text was corrected is measured again."""
    return hashlib.sha256(repr(item).encode()).hexdigest()[:12]


def _start_process(task: Task[I]) -> _Work[I]:
    torch.set_num_threads(1)
    return _Work(task)


def run(
    task: Task[I],
    items: Sequence[I],
    out: Path,
    *,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> Outcome:
    """Measure the items that have no rows in OUT/rows.jsonl yet, in `jobs` processes of one thread each.

    Returns the rows of all items. Items that failed in an earlier run are tried again. Raises ValueError if OUT holds
    rows of another plan, another run is at work there, an id occurs twice, a field of a clip is a list or an object,
    the system kills a process, or an error occurs that is not in CLIP_ERRORS.
    """
    out.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(out):
        return _run(task, items, out / "rows.jsonl", jobs, progress)


def _run(task: Task[I], items: Sequence[I], path: Path, jobs: int, progress: Progress) -> Outcome:
    plan = json.loads(json.dumps({"vocable": vocable.__version__} | task.plan()))
    for item in items:
        try:
            hash(item)  # summaries count speakers, languages and corpora, and lists cannot be counted
        except TypeError as error:
            raise ValueError(f"{item.id}: speaker, text, corpus and language must be texts, not lists") from error
    known = {item.id: _digest(item) for item in items}
    if not items or len(known) < len(items):
        twice = next((item.id for i, item in enumerate(items) if item.id in {other.id for other in items[:i]}), "")
        raise ValueError(f"the id {twice!r} occurs twice: rename one" if items else "there are no clips")
    done = {
        name: result
        for name, result in _read(path, plan).items()
        if "rows" in result and result.get("is") == known.get(name)
    }
    todo = [item for item in items if item.id not in done]
    ready = len(items) - len(todo)
    progress("clips", ready / len(items))
    with Journal(path).open() as append:
        if path.stat().st_size == 0:
            append({"plan": plan})
        for count, result in enumerate(_results(task, todo, jobs), 1):
            append(result)
            done[result["item"]] = result
            progress("clips", (ready + count) / len(items))
    outcome = Outcome()
    for item in items:
        result = done[item.id]
        outcome.rows += result.get("rows", [])
        if "error" in result:
            outcome.left_out[item.id] = result["error"]
    return outcome


def _results(task: Task[I], items: Sequence[I], jobs: int) -> Iterator[dict[str, Any]]:
    if jobs == 1 or len(items) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from map(_Work(task), items)
        finally:
            torch.set_num_threads(threads)
        return
    try:
        yield from in_processes(partial(_start_process, task), items, workers=jobs)
    except BrokenProcessPool as error:
        raise ValueError(
            "a process was killed, perhaps because memory ran out: resume with --jobs 1, or with shorter clips"
        ) from error


def _read(path: Path, plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        begun: Any = json.loads(first)["plan"] if first else plan
    except (ValueError, KeyError, TypeError, RecursionError):
        begun = None
    if begun != plan:
        changed = [key for key in plan if not isinstance(begun, dict) or begun.get(key) != plan[key]]
        raise ValueError(f"{path} was begun with another {', '.join(changed) or 'plan'}: name another folder")
    return _parse(lines)


def _parse(lines: Sequence[str]) -> dict[str, dict[str, Any]]:
    done = {}
    for line in lines:
        try:
            result = json.loads(line)
            done[result["item"]] = result
        except (ValueError, KeyError, TypeError, RecursionError):  # the kill of a run cut this line short
            continue
    return done


def read_rows(out: Path) -> tuple[dict[str, Any], list[Row]]:
    """Read the plan and the rows that `run` wrote. Raises ValueError if there are none or they are damaged."""
    path = out / "rows.jsonl"
    if not path.is_file():
        raise ValueError(f"{out}: no results here: name the folder of an evaluation")
    first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        plan: dict[str, Any] = json.loads(first)["plan"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: its first line is not a plan; measure again in another folder") from error
    return plan, [row for result in _parse(lines).values() for row in result.get("rows", [])]
