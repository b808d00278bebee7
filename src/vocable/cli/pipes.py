"""Pipes as inputs and outputs: "-" for standard input and output, /dev/stdin, `<(command)`, named pipes.

Most formats cannot be read or written sequentially, so the data of a pipe goes through a temporary file.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from vocable.files import is_device

STANDARD = ("-", "/dev/stdin", "/dev/stdout")


def is_pipe(path: Path) -> bool:
    """Return whether a path is standard input or output, a pipe or a device."""
    return str(path) in STANDARD or is_device(path)


@contextlib.contextmanager
def incoming(path: Path) -> Iterator[Path]:
    """Yield a temporary file with the data of a pipe; yield any other path unchanged."""
    if not is_pipe(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "input")
        with _opened(path, "rb") as pipe, open(copy, "wb") as file:
            shutil.copyfileobj(pipe, file)
        copy = copy.rename(copy.with_suffix(_suffix(copy)))
        try:
            yield copy
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), str(path))) from error


def _suffix(path: Path) -> str:
    """Return the suffix of a token file by its first bytes; "" for other files."""
    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # after the 8 bytes of the header's size
        return ".safetensors"
    return {b"PK": ".npz", b'{"': ".jsonl"}.get(head[:2], "")


@contextlib.contextmanager
def outgoing(path: Path, suffix: str) -> Iterator[Path]:
    """Yield a temporary file with `suffix`, which is then copied to the pipe; yield any other path unchanged."""
    if not is_pipe(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, f"output{suffix}")
        yield copy
        with open(copy, "rb") as file, _opened(path, "wb") as pipe:
            shutil.copyfileobj(file, pipe)
            pipe.flush()


@contextlib.contextmanager
def _opened(path: Path, mode: Literal["rb", "wb"]) -> Iterator[IO[bytes]]:
    if str(path) in STANDARD:
        yield sys.stdin.buffer if mode == "rb" else sys.stdout.buffer  # not closed
    else:
        with open(path, mode) as pipe:
            yield pipe
