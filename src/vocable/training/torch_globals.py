"""Contexts that change settings which torch keeps for the whole process, and restore them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_SEEDING = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator for the length of a block; afterwards it is in its earlier state.

    All threads draw from that generator, so a lock admits one of them at a time to such a block: each draws the same
    numbers as in a process of its own.
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads for the length of a block; 0 changes nothing."""
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
