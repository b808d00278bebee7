"""Where shards are tokenized: in processes here, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocable.corpus.tokenize import Entry, Plan, Shard, Worker
from vocable.extras import need


@dataclass(frozen=True)
class Local:
    """Processes of one thread each."""

    workers: int = 1
    device: str = "cpu"

    def __call__(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[Entry]:
        if not shards:
            return
        # Spawned, because torch's threads and CUDA do not survive a fork.
        context = multiprocessing.get_context("spawn")
        workers = min(self.workers, len(shards))
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(workers, context, _start, (plan, out, self.device))
        try:
            futures = [pool.submit(_do, shard) for shard in shards]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()  # nobody waits for the shards that they are in
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_worker: Worker


def _start(plan: Plan, out: Path, device: str) -> None:
    global _worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))  # quietly; temporary files are removed on the way out
    _worker = Worker(plan, out, device)


def _do(shard: Shard) -> Entry:
    return _worker(shard)


@dataclass(frozen=True)
class Ray:
    """Actors of Ray Data; OUT, the audio files and the codec are where all of its machines find them."""

    workers: int = 1
    device: str = "cpu"  #: "cuda": a GPU for each actor
    address: str | None = None  #: of a cluster; None begins one here

    def __call__(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[Entry]:
        if not shards:
            return
        ray = need("ray", "ray")
        need("ray.data", "ray")
        started = not ray.is_initialized()
        if started:
            ray.init(address=self.address, log_to_driver=False)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            numbers = ray.data.range(len(shards), override_num_blocks=len(shards))  # a task for each
            resources = {"num_gpus": 1} if self.device.startswith("cuda") else {"num_cpus": 1}
            made = numbers.map(
                _Actor,
                fn_constructor_args=(plan, out.resolve(), list(shards), self.device),
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(shards))),
                **resources,
            )
            for row in made.iter_rows():
                yield row["entry"]
        finally:
            if started:
                ray.shutdown()


class _Actor:
    def __init__(self, plan: Plan, out: Path, shards: list[Shard], device: str) -> None:
        self.worker, self.shards = Worker(plan, out, device), shards

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"entry": self.worker(self.shards[int(row["id"])])}
