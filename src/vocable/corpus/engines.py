"""Engines: where the workers run, in processes on this machine or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vocable.codec.load import ENCODEC
from vocable.corpus.manifest import Utterance
from vocable.corpus.parallel import in_processes
from vocable.corpus.plan import Plan, Shard
from vocable.corpus.worker import Worker
from vocable.extras import need


class Engine(Protocol):
    """Runs workers over shards."""

    def run(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
        """Write the shards to the folder `out`; yield the number of each when it is complete."""


def make_engine(name: str, *, workers: int = 1, address: str | None = None) -> Engine:
    """Return the engine "local" or "ray". address: of a Ray cluster. Raises ValueError for another name."""
    if name == "local":
        return Local(workers)
    if name == "ray":
        return Ray(workers, address)
    raise ValueError(f"--engine is local or ray, not {name!r}")


@dataclass(frozen=True)
class Local:
    """Processes of one thread each, on this machine."""

    workers: int = 1  #: number of processes

    def run(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
        """Write the shards. Raises OSError if the system kills a worker."""
        try:
            yield from in_processes(partial(_start_worker, plan, out), shards, workers=self.workers)
        except BrokenProcessPool as error:
            raise OSError(
                "a worker was killed, perhaps because memory was full: run the same command with fewer --workers, "
                "which resumes"
            ) from error


def _start_worker(plan: Plan, out: Path) -> Callable[[Shard], int]:
    return Worker(plan, out).write


@dataclass(frozen=True)
class Ray:
    """Actors of Ray Data. The output folder, the recordings and the codec are at the same paths on all machines."""

    workers: int = 1  #: number of actors, each with one CPU or one GPU
    address: str | None = None  #: address of a cluster; None: start Ray on this machine

    def run(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
        """Write the shards. Raises OSError if Ray fails."""
        if not shards:
            return
        ray = need("ray", "ray")
        need("ray.data", "ray")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ray.init(address=self.address or "local", log_to_driver=False)
        for number, handler in handlers.items():  # Ray installed its own
            signal.signal(number, handler)
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            if hasattr(context, "execution_no_progress_timeout_s"):
                context.execution_no_progress_timeout_s = -1  # a shard may take long
            # One block per shard, so that each shard is a task.
            rows = [{"shard": _to_json(shard)} for shard in shards]
            written = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Actor,
                fn_constructor_args=(_with_absolute_paths(plan), out.resolve()),
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(shards))),
                **({"num_gpus": 1} if plan.device.startswith("cuda") else {"num_cpus": 1}),
            )
            for row in written.iter_rows():
                yield int(row["number"])
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise OSError(f"Ray: {last}; complete shards are kept: run the same command, which resumes") from error
        finally:
            ray.shutdown()


class _Actor:
    """A worker, as Ray Data calls it: with a row, for a row."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.worker = Worker(plan, out)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": self.worker.write(_from_json(row["shard"]))}


def _with_absolute_paths(plan: Plan) -> Plan:
    """Return the plan with the absolute path of a codec that is a folder: actors start in another folder."""
    codec = plan.codec or ""
    folder = Path(codec.removeprefix(ENCODEC))
    if not codec or not folder.is_dir():
        return plan
    prefix = ENCODEC if codec.startswith(ENCODEC) else ""
    return dataclasses.replace(plan, codec=f"{prefix}{folder.resolve()}")


def _to_json(shard: Shard) -> str:
    """Return what a worker needs of a shard, with absolute paths."""
    return json.dumps([shard.number, [[u.id, str(u.path.resolve()), u.duration] for u in shard.utterances]])


def _from_json(text: str) -> Shard:
    number, utterances = json.loads(text)
    return Shard(number, [Utterance(clip, Path(path), duration) for clip, path, duration in utterances])
