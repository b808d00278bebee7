"""Lines on standard error."""

from __future__ import annotations

import os
import traceback

import typer

from vocable.terminal import printable


def complain(message: str) -> None:
    """Print a line, in which names of files cannot command the terminal."""
    typer.echo(f"vocable: {printable(message)}", err=True)


def one_line(error: BaseException) -> str:
    """What an error says. With the environment variable VOCABLE_TRACEBACK its traceback is printed first."""
    if os.environ.get("VOCABLE_TRACEBACK"):
        traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    if out_of_memory(error):
        return "out of memory: give shorter recordings, or smaller batches"
    return str(error) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether numpy, soxr or torch, which has no exception of its own for this on a CPU, found no memory."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
