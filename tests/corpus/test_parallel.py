"""Processes of a pool: results, failures, kills."""

from __future__ import annotations

import multiprocessing
import operator
import os
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import pytest

from vocable.corpus.parallel import in_processes, processes


def test_processes_yield_all_results() -> None:
    results = in_processes(partial(operator.methodcaller, "count"), ["a", "b"], workers=2)
    with pytest.raises(TypeError, match="count"):
        list(results)
    assert list(in_processes(partial(operator.itemgetter, 0), [], workers=2)) == []
    firsts = in_processes(partial(operator.itemgetter, 0), ["abc", "de", "f"], workers=2)
    assert sorted(firsts) == ["a", "d", "f"]


def test_a_process_that_is_killed_ends_the_work() -> None:
    with pytest.raises(BrokenProcessPool):
        list(in_processes(partial(operator.methodcaller, "__call__"), [os.abort], workers=1))


def test_a_failure_terminates_the_processes_of_the_pool_only() -> None:
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), processes(1, time.sleep, (0,)) as pool:
        pool.submit(time.sleep, 60)
        other.start()  # as another thread might
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 30, "the pool does not wait for running work"
    other.join(0.5)
    assert other.is_alive()
    other.kill()
    other.join()
