"""`WorkerProcess`: a worker process, seen from the service."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from vocable.serve.settings import Settings


class LoadError(Exception):
    """A worker that could not load its models."""


class WorkerProcess:
    """A process that runs `main(connection, settings)`. Each wait for the process takes a thread of its own.

    `main` sends one message when it has its models: a `str` says why it could not load them.
    """

    def __init__(self, main: Callable[[Connection, Settings], None], settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads and CUDA do not survive a fork
        self._connection, other = context.Pipe()
        self._process = context.Process(target=main, args=(other, settings), daemon=True)
        self._other: Connection | None = other
        self._threads = ThreadPoolExecutor(2, "worker")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    async def load(self) -> Any:
        """Start the process, wait until it has its models, and return its first message. Raises LoadError."""
        await self._in_thread(self._process.start)
        assert self._other is not None
        self._other.close()  # of this process: the worker has its own, and its end is seen here when it dies
        try:
            message = await self.receive()
        except (EOFError, OSError) as error:
            raise LoadError("the worker died while it loaded the models") from error
        if isinstance(message, str):
            raise LoadError(message)
        return message

    async def send(self, message: object) -> None:
        """Send a message. Raises OSError if the process has ended."""
        await self._in_thread(self._connection.send, message)

    def send_now(self, message: object) -> None:
        """Send a small message without a thread, while no other is being sent. Raises OSError as `send` does."""
        self._connection.send(message)

    async def receive(self) -> Any:
        """Wait for a message. Raises EOFError or OSError if the process has ended."""
        return await self._in_thread(self._connection.recv)

    async def wait(self) -> None:
        """Wait until the process ends."""
        await self._in_thread(self._process.join)

    def close(self) -> None:
        """End the process."""
        if self._process.pid is not None:
            self._process.kill()  # it writes no files that others read
        self._connection.close()
        self._threads.shutdown(wait=False)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
