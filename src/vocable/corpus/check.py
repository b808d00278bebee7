"""Decode every recording of a corpus, and name those that a training run should not use."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.corpus.parallel import in_threads
from vocable.files import atomic_path
from vocable.journal import Journal

#: Problems that `check` finds, in the order in which they are reported.
PROBLEMS = ("unreadable", "silent", "clipped", "short", "wrong_duration", "duplicate")

#: A recording is silent if its peak is below this: -60 dB of full scale.
SILENCE = 1e-3
#: A recording is clipped if more than this fraction of its samples is at or above FULL_SCALE. A recording that was
#: normalized to full scale reaches it with a few samples.
CLIPPED_FRACTION, FULL_SCALE = 1e-3, 0.999
#: Seconds by which the duration in a manifest may differ from the file's. The trainer's crops allow for as much.
DURATION_TOLERANCE = 0.01

Found = dict[str, list[tuple[Utterance, str]]]  #: for each of PROBLEMS, utterances and a short detail


@dataclass(frozen=True)
class Measurement:
    """Properties of a decoded file, valid while the file has this size and modification time."""

    path: str
    size: int = 0  #: bytes
    changed: int = 0  #: modification time in ns
    error: str | None = None  #: why the file cannot be decoded
    duration: float = 0.0  #: seconds
    peak: float = 0.0  #: largest magnitude of a sample
    clipped: float = 0.0  #: fraction of samples at full scale
    digest: str = ""  #: hash of the sample rate and the samples


def check(
    utterances: Sequence[Utterance],
    *,
    min_seconds: float = 0.5,
    journal: str | os.PathLike[str] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Found:
    """Decode the utterances; return for each of PROBLEMS those that have it, with a detail.

    Duplicates are searched among the utterances without another problem, and the first of equal ones is not reported,
    so that it remains when all that are reported are removed. journal: a file that stores the measurements, with which
    an interrupted check is resumed; delete it after the results are written. progress: called after each utterance.
    """
    found: Found = {problem: [] for problem in PROBLEMS}
    first: dict[str, str] = {}  # digest -> id of the first utterance that has it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each recording of several channels
        for utterance, measurement in zip(utterances, _measure_all(utterances, journal), strict=True):
            problems = _problems(utterance, measurement, min_seconds)
            if not problems and first.setdefault(measurement.digest, utterance.id) != utterance.id:
                problems = {"duplicate": f"the same audio as {first[measurement.digest]}"}
            for problem, detail in problems.items():
                found[problem].append((utterance, detail))
            progress()
    return found


def clean(utterances: Sequence[Utterance], found: Found) -> list[Utterance]:
    """Return the utterances for which `check` found no problem."""
    bad = {utterance.id for named in found.values() for utterance, _ in named}
    return [u for u in utterances if u.id not in bad]


def write_report(path: str | os.PathLike[str], utterances: Sequence[Utterance], found: Found) -> None:
    """Write the result of `check` as JSON: for each problem the id, path and detail of its utterances."""
    problems = {
        problem: [{"id": utterance.id, "path": str(utterance.path), "detail": detail} for utterance, detail in named]
        for problem, named in found.items()
    }
    hours = sum(u.duration for u in utterances) / 3600
    report = {"utterances": len(utterances), "hours": round(hours, 4), "problems": problems}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _problems(utterance: Utterance, measurement: Measurement, min_seconds: float) -> dict[str, str]:
    """Return the problems of one utterance, but for duplicates, each with a detail."""
    if measurement.error is not None:
        return {"unreadable": measurement.error}
    problems = {}
    if measurement.peak < SILENCE:
        problems["silent"] = f"peak {measurement.peak:.1g} of full scale"
    if measurement.clipped > CLIPPED_FRACTION:
        problems["clipped"] = f"{measurement.clipped:.1%} of its samples at full scale"
    if measurement.duration < min_seconds:
        problems["short"] = f"{measurement.duration:.3f} s"
    # Written as a negation because the manifest may hold NaN, for which every comparison is false.
    if not abs(measurement.duration - utterance.duration) <= DURATION_TOLERANCE:
        problems["wrong_duration"] = f"{measurement.duration:.3f} s, not {utterance.duration:.3f} s"
    return problems


def _measure_all(utterances: Sequence[Utterance], path: str | os.PathLike[str] | None) -> Iterator[Measurement]:
    """Yield the measurement of each utterance, from the journal at `path` if it holds a valid one."""
    journal = Journal(Path(path)) if path else None
    known = {(m.path, m.size, m.changed): m for m in (_read_measurements(journal) if journal else ())}

    def measure(utterance: Utterance) -> Measurement:
        size, changed = _size_and_time(utterance.path)
        return known.get((str(utterance.path), size, changed)) or _measure(utterance.path, size, changed)

    with journal.open() if journal else nullcontext() as append:
        for measurement in in_threads(measure, utterances):
            if append:
                append(asdict(measurement))
            yield measurement


def _read_measurements(journal: Journal) -> Iterator[Measurement]:
    for value in journal.read():
        with suppress(TypeError):  # not a measurement
            yield Measurement(**value)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return the size and modification time of a file; zeros if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _measure(path: Path, size: int, changed: int) -> Measurement:
    try:
        waveform, rate = audio.read(path)
    except (ValueError, OSError) as error:
        return Measurement(str(path), size, changed, error=str(error))
    magnitude = np.abs(waveform)
    digest = hashlib.blake2b(f"{rate} ".encode(), digest_size=16)
    digest.update(waveform.data)
    return Measurement(
        str(path),
        size,
        changed,
        duration=len(waveform) / rate,
        peak=float(magnitude.max()),
        clipped=float((magnitude >= FULL_SCALE).mean()),
        digest=digest.hexdigest(),
    )
