"""Cancel work from another thread, between two steps of a model."""

from __future__ import annotations

from collections.abc import Callable

#: Returns whether the work is to stop. The thread that works calls it between two steps; `threading.Event().is_set` is
#: such a function.
IsCancelled = Callable[[], bool]


class Cancelled(Exception):
    """Raised when the caller cancelled the work."""


def stop_if_cancelled(cancelled: IsCancelled | None) -> None:
    """Raise `Cancelled` if the work is to stop."""
    if cancelled is not None and cancelled():
        raise Cancelled("the work was cancelled before its end")
