"""Messages on standard error."""

from __future__ import annotations

import os
import traceback

import typer

from vocable.terminal import printable


def complain(message: str) -> None:
    """Print one line on standard error, with control characters escaped."""
    typer.echo(f"vocable: {printable(message)}", err=True)


def one_line(error: BaseException) -> str:
    """Return an error's message. If the environment variable VOCABLE_TRACEBACK is set, print the traceback first."""
    if os.environ.get("VOCABLE_TRACEBACK"):
        traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    if out_of_memory(error):
        return "out of memory: give shorter recordings, or smaller batches"
    return str(error) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of numpy, soxr or torch means that memory is full."""
    # On a CPU, torch raises a plain RuntimeError.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
