"""Damaged files: a line and exit code 2, or what could be read; never a traceback, a crash, a hang or half a file.

`make test` tries a few of each kind, `make check` two thousand files in all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from attack.cases import KINDS, House, work

SECONDS = 60.0  #: that a case may take


class Worker:
    """A process that runs cases, and another one where a case ended it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: BaseProcess | None = None
        self.connection: Connection

    def run(self, kind: str, number: int) -> str:
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=work, args=(theirs, str(self.folder)))
            self.process.start()
            theirs.close()
        self.connection.send((kind, number))
        try:
            broken = str(self.connection.recv()) if self.connection.poll(SECONDS) else "hangs"
        except EOFError:
            self.process.join()
            broken = f"the process ended with {self.process.exitcode}"
        if broken:
            self.end()
        return broken

    def end(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid or 0, signal.SIGKILL)
            self.process.join()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("attack") / "good"
    folder.mkdir()
    House.build(folder)
    worker = Worker(folder)
    yield worker
    worker.end()


def attack(worker: Worker, kind: str, numbers: range) -> None:
    broken = {number: found for number in numbers if (found := worker.run(kind, number))}
    lines = [f"{kind} {number}: {found}" for number, found in broken.items()]
    assert not broken, f"{len(broken)} of {len(numbers)} cases:\n" + "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_damaged_files(worker: Worker, kind: str) -> None:
    attack(worker, kind, range(4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_damaged_files(worker: Worker, kind: str) -> None:
    attack(worker, kind, range(4, 4 + 2000 // len(KINDS)))
