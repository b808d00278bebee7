"""Work on many items at once, in threads or in processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Items that wait for a thread at the same time: an interrupt has to wait for the work on these.
WAITING_ITEMS = 64


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the results of `function` for each of `items`, in their order.

    Threads are enough for reading audio files: libsndfile and hashlib release Python's global lock.
    """
    pool = ThreadPoolExecutor()
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= WAITING_ITEMS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_processes(start: Callable[[], Callable[[T], R]], items: Sequence[T], *, workers: int) -> Iterator[R]:
    """Yield the results of all items as they are ready, from `workers` processes.

    start: called once in each process; returns the function that is called for each item. It is pickled, so it is a
    function of a module or a partial of one. Raises BrokenProcessPool if a process was killed, and what the function
    raises for an item.
    """
    if not items:
        return
    with processes(min(workers, len(items)), _start, (start,)) as pool:
        for future in as_completed([pool.submit(_call, item) for item in items]):
            yield future.result()


#: The function that `start` returned in this process: a pool keeps nothing else between two items.
_function: Callable[[Any], Any]


def _start(start: Callable[[], Callable[[T], R]]) -> None:
    global _function
    end_with_parent()
    _handle_signals(lambda *_: os._exit(1))  # the pool would print an exception of `start`, with its traceback
    _function = start()
    _handle_signals(lambda *_: sys.exit(1))  # an exception, so that temporary files are removed


def _handle_signals(handler: Callable[..., None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _call(item: Any) -> Any:
    try:
        return _function(item)
    except SystemExit:  # the pool would take the exception for this item's result and send the next item
        os._exit(1)


@contextmanager
def processes(workers: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes each begin with `start(*arguments)`.

    After Ctrl-C or a failure the processes are terminated, because the work on one item may take minutes.
    """
    # Spawned, because torch's threads and CUDA do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start, arguments)
    try:
        yield pool
    except BrokenProcessPool:
        raise
    except BaseException:
        for process in list((pool._processes or {}).values()):  # Python 3.14 has terminate_workers for this
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process of a pool when its parent ends; without this it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
