"""Batches of items of similar length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def padded_batches(items: Iterable[T], *, length: Callable[[T], float], limit: float) -> Iterator[list[T]]:
    """Split items, in their order, into batches whose size with padding is at most `limit`.

    The size with padding is the number of items times the length of the longest. An item longer than `limit` is a batch
    of its own. Sort the items by length first: padding is small where neighbours have similar lengths.
    """
    batch: list[T] = []
    longest = 0.0
    for item in items:
        longest = max(longest, length(item))
        if batch and (len(batch) + 1) * longest > limit:
            yield batch
            batch, longest = [], length(item)
        batch.append(item)
    if batch:
        yield batch
