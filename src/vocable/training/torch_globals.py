"""Settings that torch keeps for a whole process, changed for the length of a block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_SEEDING = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's CPU generator begins at `seed`; afterwards it is where it was before.

    All threads draw from that generator, so one block waits for another: both draw what they would draw alone.
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Within the block torch computes in so many threads of the CPU; 0: as many as before."""
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
