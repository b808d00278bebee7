"""Stopping a run by Ctrl-C or SIGTERM, with its state saved."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupted(Exception):
    """Raised when a signal has stopped a run and its state is saved. `signal` is the signal's number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal = signal_number


class StopSignals:
    """Context in which the first Ctrl-C or SIGTERM sets `received`; a second one has its usual effect.

    Python delivers signals to the main thread, so in another thread nothing changes. A handler that was not installed
    from Python is left in place too, because it could not be restored.
    """

    def __init__(self) -> None:
        self.received = 0  #: number of the signal that was received, or 0
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:
                    self._handlers_before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        self.received = number
        signal.signal(number, self._handlers_before[number])
