"""Stopping a run by Ctrl-C or SIGTERM, with its state saved."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved. `signal` is the signal's number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal = signal_number


class StopSignals:
    """Within the block, Ctrl-C and SIGTERM set `received`; a second one acts as it always does.

    Python hands signals to the main thread alone: in another thread nothing is changed, nor is a handler that was not
    installed from Python, because it could not be put back.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        self.received = number
        signal.signal(number, self._before[number])
