"""The bounded queue of jobs that wait for a worker. It forms batches of what waits."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

from vocable.serve.jobs import Decode, Encode, Full, Job, Speak

LARGEST_BATCH = 16  #: jobs


class Entry(Protocol):
    """An entry of the queue."""

    @property
    def job(self) -> Job:
        """The job."""


E = TypeVar("E", bound=Entry)


class Waiting(Generic[E]):
    """Jobs that wait, the oldest first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: deque[E] = deque()
        self._added = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: E) -> None:
        """Add a job. Raises Full if as many wait as the capacity allows."""
        if len(self._entries) >= self.capacity:
            raise Full(f"{self.capacity} requests wait already: send this one again later")
        self._entries.append(entry)
        self._added.set()

    def put_back(self, batch: list[E]) -> None:
        """Return a batch that was taken but not begun to the front of the queue."""
        self._entries.extendleft(reversed(batch))
        self._added.set()

    def remove(self, entry: E) -> None:
        """Remove a job if it waits."""
        if entry in self._entries:
            self._entries.remove(entry)

    def clear(self) -> list[E]:
        """Remove all jobs and return them."""
        entries = list(self._entries)
        self._entries.clear()
        return entries

    async def take(self, workers: int = 1) -> list[E]:
        """Wait for a job; return the oldest, and with it those that can be done in one batch with it.

        workers: the number of workers that share the waiting jobs: a batch leaves the others their part.
        """
        while not self._entries:
            self._added.clear()
            await self._added.wait()
        first = self._entries.popleft()
        batch = [first, *(e for e in self._entries if same_batch(first.job, e.job))]
        batch = batch[: min(LARGEST_BATCH, -(-len(batch) // workers))]
        for entry in batch[1:]:
            self._entries.remove(entry)
        return batch


def same_batch(one: Job, other: Job) -> bool:
    """Return whether two jobs can be done in one batch."""
    if isinstance(one, Encode) and isinstance(other, Encode):
        return one.layers == other.layers
    if isinstance(one, Speak) and isinstance(other, Speak):
        return one.seed is None and other.seed is None
    return isinstance(one, Decode) and isinstance(other, Decode)
