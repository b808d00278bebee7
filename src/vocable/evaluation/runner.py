"""Work over many clips: in several processes, resumable clip by clip; a bad clip is named and does not stop the rest.

OUT/rows.jsonl   first what was asked for, then a line for each clip as soon as it is done
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

import vocable
from vocable.corpus.manifest import Utterance
from vocable.corpus.parallel import end_with_parent, processes
from vocable.evaluation.metrics import METRICS
from vocable.evaluation.metrics.base import language_code
from vocable.files import atomic_path
from vocable.lock import one_at_a_time

ENGLISH = "en"  #: what is taken for the language of clips that do not say theirs; summaries count them
#: What reading, coding and judging one clip may raise: the clip is left out and named. Any other error is no fault of
#: the clip but of the installation or the program, and ends the run.
CLIP_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
#: Figures of one clip and one system, as JSON. A figure that could not be had is None, and "unjudged" says why.
Row = dict[str, Any]
Progress = Callable[[str, float], None]  #: called with what is being done, and the share of it that is


class Item(Protocol):
    """What is worked on: an utterance, or a pair of them."""

    @property
    def id(self) -> str: ...


I = TypeVar("I", bound=Item)  # noqa: E741
J = TypeVar("J", bound=Item, contravariant=True)


class Task(Protocol[J]):
    """What is done with each item; it can be pickled, and loads its models in `start`, once a process."""

    def plan(self) -> dict[str, Any]:
        """All that the rows depend on, as JSON: rows of another plan are not gone on with."""

    def start(self) -> Callable[[J], list[Row]]: ...


@dataclass
class Outcome:
    rows: list[Row] = field(default_factory=list)  #: in the order of the items
    left_out: dict[str, str] = field(default_factory=dict)  #: ids of bad items, and why


class _Work(Generic[I]):
    """One process's models, loaded at its first item."""

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
                "the same command, which goes on from here"
            ) from error


def _digest(item: Item) -> str:
    """Of all that is known of an item: a clip whose text was corrected is measured anew."""
    return hashlib.sha256(repr(item).encode()).hexdigest()[:12]


_work: _Work[Any]


def _start_process(task: Task[Any]) -> None:
    global _work
    end_with_parent()
    torch.set_num_threads(1)
    _work = _Work(task)


def _do(item: Item) -> dict[str, Any]:
    return _work(item)


def run(
    task: Task[I],
    items: Sequence[I],
    out: Path,
    jobs: int = 1,
    progress: Progress = lambda stage, share: None,
) -> Outcome:
    """Rows of all items: from OUT/rows.jsonl where they stand, and else from `jobs` processes of one thread each.

    What was an error is tried again. Raises ValueError if OUT holds rows of another plan, another run is at work there,
    an id occurs twice, a field of a clip is a list or an object, the system kills a process, or an error occurs that is
    none of CLIP_ERRORS.
    """
    out.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(out):
        return _run(task, items, out / "rows.jsonl", jobs, progress)


def _run(task: Task[I], items: Sequence[I], path: Path, jobs: int, progress: Progress) -> Outcome:
    plan = json.loads(json.dumps({"vocable": vocable.__version__} | task.plan()))
    for item in items:
        try:
            hash(item)  # speakers, languages and corpora are counted in the end, which lists cannot be
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
    with open(path, "a", encoding="utf-8") as file:
        if path.stat().st_size == 0:
            file.write(json.dumps({"plan": plan}))
        for count, result in enumerate(_results(task, todo, jobs), 1):
            # The line break comes first, so that a line that a kill cut short spoils no other.
            file.write("\n" + json.dumps(result))
            file.flush()
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
        with processes(jobs, _start_process, (task,)) as pool:
            futures: list[Future[dict[str, Any]]] = [pool.submit(_do, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
    except BrokenProcessPool as error:
        raise ValueError(
            "a process was killed, for its memory perhaps: go on with --jobs 1, or shorter clips"
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
        except (ValueError, KeyError, TypeError, RecursionError):  # a line that a kill cut short
            continue
    return done


def read_rows(out: Path) -> tuple[dict[str, Any], list[Row]]:
    """The plan and the rows of a folder that `run` filled."""
    path = out / "rows.jsonl"
    if not path.is_file():
        raise ValueError(f"{out}: no results here: name the folder of an evaluation")
    first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        plan: dict[str, Any] = json.loads(first)["plan"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: its first line is no plan; measure again in another folder") from error
    return plan, [row for result in _parse(lines).values() for row in result.get("rows", [])]


def read_summary(out: Path) -> dict[str, Any]:
    """The summary of a suite's folder."""
    path = out / "summary.json"
    if not path.is_file():
        raise ValueError(f"{out}: no finished evaluation here")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: run the same evaluation again") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{path}: no summary of an evaluation")
    return summary


def language_of(clip: Utterance) -> str:
    """A clip's language without region, "sv" of "sv-SE"; English where the clip does not say it."""
    return language_code(clip.language or ENGLISH)


def describe(clips: Sequence[Utterance], outcome: Outcome) -> dict[str, Any]:
    """What every summary says of the clips, the programs and the machine."""
    kept = [clip for clip in clips if clip.id not in outcome.left_out]
    if not kept:
        raise ValueError(f"not one of {len(clips)} clips could be used: {next(iter(outcome.left_out.values()))}")
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    return {
        "clips": len(kept),
        "speakers": len({clip.speaker_key for clip in kept}),
        "without_text": sum(clip.text is None for clip in kept),
        "without_language": sum(clip.language is None for clip in kept),
        "clip_languages": dict(sorted(Counter(map(language_of, kept)).items())),
        "left_out": outcome.left_out,
        "unjudged": _count_unjudged(outcome.rows),
        "versions": {"vocable": vocable.__version__, "python": platform.python_version(), **packages},
    }


def _count_unjudged(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, int]]]:
    """How many rows lack a figure: system -> metric -> reason -> count."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in rows:
        for metric, reason in row.get("unjudged", {}).items():
            reasons = found.setdefault(row["system"], {}).setdefault(metric, {})
            reasons[reason] = reasons.get(reason, 0) + 1
    return found


def is_complete(summary: Mapping[str, Any]) -> bool:
    """Whether every clip of the manifest has every figure that was asked for, from every system."""
    missing = ("left_out", "unjudged", "not_available", "failed", "unspoken", "untold", "too_few_clips")
    return not any(summary.get(key) for key in missing)


def exclusions(summary: Mapping[str, Any]) -> list[str]:
    """What every suite says last: clips and systems that it could not use, and figures that clips lack."""
    left_out: Mapping[str, str] = summary["left_out"]
    lines = [f"{name}: {why}." for name, why in summary.get("not_available", {}).items()]
    for system, metrics in summary["unjudged"].items():
        for metric, reasons in metrics.items():
            label = METRICS[metric].label if metric in METRICS else metric.replace("_", " ")
            lines += [f"{system}: no {label} in {count} cases: {reason}." for reason, count in reasons.items()]
    if summary["without_language"]:
        lines.append(f"{summary['without_language']} clips do not say their language and were taken as English.")
    if left_out:
        named = "; ".join(f"{clip} ({why})" for clip, why in left_out.items())
        lines.append(f"Left out, {len(left_out)} of {len(left_out) + summary['clips']} clips: {named}.")
    return lines


def write_json(path: Path, value: Any) -> None:
    """As one file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
