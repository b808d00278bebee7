"""Decode a whole corpus once, before a training run does, and name the recordings that it should not meet."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.corpus.parallel import in_threads
from vocable.files import atomic_path

#: What can be wrong with a recording, in the order in which it is said.
PROBLEMS = ("unreadable", "silent", "clipped", "short", "wrong_duration", "duplicate")

#: A recording whose loudest sample lies below this is silent: -60 dB of full scale.
SILENCE = 1e-3
#: A recording is clipped if more than this share of its samples lies at or above FULL_SCALE: speech that was
#: brought to full scale touches it with single samples.
CLIPPED_SHARE, FULL_SCALE = 1e-3, 0.999
#: Seconds by which a manifest may be off, in either direction. The trainer's crops allow for as much.
DURATION_TOLERANCE = 0.01


@dataclass(frozen=True)
class Decoded:
    """What decoding a file showed, as long as the file has this size and time of change."""

    path: str
    size: int = 0  #: bytes
    changed: int = 0  #: ns
    error: str | None = None
    duration: float = 0.0  #: s
    peak: float = 0.0
    clipped: float = 0.0  #: share of samples at full scale
    digest: str = ""  #: of sample rate and samples


def check(
    utterances: Sequence[Utterance],
    *,
    min_seconds: float = 0.5,
    journal: str | os.PathLike[str] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[tuple[Utterance, str]]]:
    """For each of PROBLEMS the utterances that have it, and in a few words how.

    Duplicates are sought among utterances without another problem, and the first of them is not one: so it is what
    stays when those named here are left out. `journal` is a file that keeps what was decoded; another call goes on from
    it, so remove it when the results are written. `progress` is called after each utterance.
    """
    found: dict[str, list[tuple[Utterance, str]]] = {problem: [] for problem in PROBLEMS}
    first: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each recording of several channels
        for utterance, decoded in zip(utterances, _decode_all(utterances, journal), strict=True):
            problems = _problems(utterance, decoded, min_seconds)
            if not problems and first.setdefault(decoded.digest, utterance.id) != utterance.id:
                problems = {"duplicate": f"the same audio as {first[decoded.digest]}"}
            for problem, detail in problems.items():
                found[problem].append((utterance, detail))
            progress()
    return found


def clean(utterances: Sequence[Utterance], found: dict[str, list[tuple[Utterance, str]]]) -> list[Utterance]:
    """The utterances without those that `check` found something wrong with."""
    bad = {utterance.id for named in found.values() for utterance, _ in named}
    return [u for u in utterances if u.id not in bad]


def write_report(
    path: str | os.PathLike[str], utterances: Sequence[Utterance], found: dict[str, list[tuple[Utterance, str]]]
) -> None:
    """Write what `check` found as JSON: for each problem its utterances, by id and path, and the detail."""
    problems = {
        problem: [{"id": utterance.id, "path": str(utterance.path), "detail": detail} for utterance, detail in named]
        for problem, named in found.items()
    }
    hours = sum(u.duration for u in utterances) / 3600
    report = {"utterances": len(utterances), "hours": round(hours, 4), "problems": problems}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _problems(utterance: Utterance, decoded: Decoded, min_seconds: float) -> dict[str, str]:
    if decoded.error is not None:
        return {"unreadable": decoded.error}
    problems = {}
    if decoded.peak < SILENCE:
        problems["silent"] = f"peak {decoded.peak:.1g} of full scale"
    if decoded.clipped > CLIPPED_SHARE:
        problems["clipped"] = f"{decoded.clipped:.1%} of its samples at full scale"
    if decoded.duration < min_seconds:
        problems["short"] = f"{decoded.duration:.3f} s"
    # The negation, because a manifest may hold NaN, which is not equal, nor near, to anything.
    if not abs(decoded.duration - utterance.duration) <= DURATION_TOLERANCE:
        problems["wrong_duration"] = f"{decoded.duration:.3f} s, not {utterance.duration:.3f} s"
    return problems


def _decode_all(utterances: Sequence[Utterance], journal: str | os.PathLike[str] | None) -> Iterator[Decoded]:
    known = {(d.path, d.size, d.changed): d for d in (_read_journal(Path(journal)) if journal else ())}

    def decode(utterance: Utterance) -> Decoded:
        size, changed = _stamp(utterance.path)
        return known.get((str(utterance.path), size, changed)) or _decode(utterance.path, size, changed)

    with ExitStack() as stack:
        log = None
        if journal:
            Path(journal).parent.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(open(journal, "a", encoding="utf-8"))
        for decoded in in_threads(decode, utterances):
            if log:  # a line begins with its own break, so that one cut off by a kill does not spoil the next
                log.write("\n" + json.dumps(asdict(decoded)))
            yield decoded


def _read_journal(path: Path) -> Iterator[Decoded]:
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        with suppress(ValueError, TypeError, RecursionError):  # of a line that a kill cut short, or that is no such
            yield Decoded(**json.loads(line))


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; zeros for one that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _decode(path: Path, size: int, changed: int) -> Decoded:
    try:
        waveform, rate = audio.read(path)
    except (ValueError, OSError) as error:
        return Decoded(str(path), size, changed, error=str(error))
    loudness = np.abs(waveform)
    digest = hashlib.blake2b(f"{rate} ".encode(), digest_size=16)
    digest.update(waveform.data)
    return Decoded(
        str(path),
        size,
        changed,
        duration=len(waveform) / rate,
        peak=float(loudness.max()),
        clipped=float((loudness >= FULL_SCALE).mean()),
        digest=digest.hexdigest(),
    )
