"""What the benchmark scripts have in common: how they time, what they report of the machine, and how they give up."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

import vocable
from vocable import audio
from vocable.corpus.manifest import read_manifest
from vocable.files import atomic_path
from vocable.training.stop import Interrupted

T = TypeVar("T")


def versions(*packages: str) -> dict[str, str]:
    """The versions that the figures were made with."""
    own = {"vocable": vocable.__version__, "python": platform.python_version()}
    return own | {package: importlib.metadata.version(package) for package in packages}


def fail(message: str) -> NoReturn:
    """One line on standard error, and exit code 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def stopped(number: int = signal.SIGINT) -> NoReturn:
    """One line on standard error, and a signal's exit code."""
    print("stopped; the same command goes on from here", file=sys.stderr)
    raise SystemExit(128 + number) from None


def trained(work: Callable[[], T]) -> T:
    """What `work` returns, which trains; input that it cannot use, or a signal, ends the script in one line."""
    try:
        return work()
    except (ValueError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        stopped()
    except Interrupted as error:
        stopped(error.signal)


def cpu_name() -> str:
    """The processor as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the CPU seconds that it took."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def quartiles(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": median, "quartile_1": low, "quartile_3": high}


def read_speech(manifest: Path, seconds: float) -> np.ndarray:
    """So much of the manifest's recordings, or a little more, one after another: float32 [L] at 16 kHz. ValueError for
    a manifest that holds less."""
    parts: list[np.ndarray] = []
    for utterance in read_manifest(manifest):
        parts.append(audio.read(utterance.path, 16_000)[0])
        if sum(map(len, parts)) >= 16_000 * seconds:
            return np.concatenate(parts)
    raise ValueError(f"{manifest}: holds less than the {seconds:.0f} s of speech that are needed")


def peak_resident() -> float:
    """MiB of the process's resident set at its largest. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def publish(report: dict[str, Any], out: Path, page: Path, mark: str, text: str) -> None:
    """Write a report's figures as JSON, and print its table and put it on a page, as `write_between` does."""
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    print(text)
    write_between(page, mark, text)


def write_between(page: Path, mark: str, text: str) -> None:
    """Put `text` between the lines <!-- mark --> and <!-- /mark's first word --> of a page. ValueError without them."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark.split(':')[0]} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page}: the lines {begin} and {end} say where the table goes, and are not there")
    with atomic_path(page) as temporary:
        temporary.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
