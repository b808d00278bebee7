"""A lock on a folder, so that only one run at a time writes to it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vocable.files import remove_leftovers

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def one_at_a_time(folder: str | os.PathLike[str], *subfolders: str) -> Iterator[None]:
    """Create `folder` if it does not exist, and lock FOLDER/.lock until the block ends or the process is killed.

    Temporary files that a killed process left in the folder and in its `subfolders` are removed. Raises ValueError if
    another process, or another thread of this one, holds the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):  # PermissionError on Windows
            raise ValueError(f"{folder}: another run uses this folder; wait for it, or choose another folder") from None
        except OSError:  # a file system without locks
            pass
        else:
            remove_leftovers(folder, *(folder / name for name in subfolders))
        yield
