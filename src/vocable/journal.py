"""Journals: files of the finished steps of a long job, from which a killed job can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """A file of JSON values, one per line, to which a job appends while it runs."""

    path: Path

    def read(self) -> Iterator[Any]:
        """Yield the values in the file; incomplete lines of a killed job are skipped."""
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
                with suppress(ValueError, RecursionError):
                    yield json.loads(line)

    @contextmanager
    def open(self) -> Iterator[Callable[[Any], None]]:
        """Open the file, which is created if it does not exist; yields the function that appends a value."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            empty = self.path.stat().st_size == 0

            def append(value: Any) -> None:
                nonlocal empty
                # The line break comes before the value, so an incomplete line does not damage the next one.
                file.write(("" if empty else "\n") + json.dumps(value))
                file.flush()
                empty = False

            yield append
