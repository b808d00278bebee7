"""Where shards are tokenized: in processes here, or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocable.codec.load import ENCODEC
from vocable.corpus.manifest import Utterance
from vocable.corpus.parallel import end_with_parent, processes
from vocable.corpus.tokenize import Plan, Shard, Worker
from vocable.extras import need


@dataclass(frozen=True)
class Local:
    """Processes of one thread each."""

    workers: int = 1

    def __call__(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
        if not shards:
            return
        try:
            with processes(min(self.workers, len(shards)), _start, (plan, out)) as pool:
                for future in as_completed([pool.submit(_do, shard) for shard in shards]):
                    yield future.result()
        except BrokenProcessPool as error:
            raise OSError("a worker was killed, out of memory perhaps: take fewer --workers, and go on") from error


_worker: Worker


def _start(plan: Plan, out: Path) -> None:
    global _worker
    end_with_parent()
    _on_signals(lambda *_: os._exit(1))  # an exception from the codec's loading would be printed, with its traceback
    _worker = Worker(plan, out)
    _on_signals(lambda *_: sys.exit(1))  # an exception: temporary files are removed on the way out


def _on_signals(handler: Callable[..., None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _do(shard: Shard) -> int:
    try:
        return _worker(shard)
    except SystemExit:  # the pool would take it for this shard's result, and hand out the next
        os._exit(1)


@dataclass(frozen=True)
class Ray:
    """Actors of Ray Data; OUT, the audio files and the codec are where all of its machines find them."""

    workers: int = 1
    address: str | None = None  #: of a cluster; None begins one here

    def __call__(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
        if not shards:
            return
        ray = need("ray", "ray")
        need("ray.data", "ray")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ray.init(address=self.address or "local", log_to_driver=False)
        for number, handler in handlers.items():  # Ray sets its own
            signal.signal(number, handler)
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            if hasattr(context, "execution_no_progress_timeout_s"):
                context.execution_no_progress_timeout_s = -1  # a shard may take long
            # A block for each shard, so that each is a task of its own. Actors start in another folder.
            rows = [{"shard": _as_json(shard)} for shard in shards]
            codec = plan.codec or ""
            kind = ENCODEC if codec.startswith(ENCODEC) else ""
            folder = Path(codec.removeprefix(ENCODEC))
            if codec and folder.is_dir():
                plan = dataclasses.replace(plan, codec=f"{kind}{folder.resolve()}")
            made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _Actor,
                fn_constructor_args=(plan, out.resolve()),
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(shards))),
                **({"num_gpus": 1} if plan.device.startswith("cuda") else {"num_cpus": 1}),
            )
            for row in made.iter_rows():
                yield int(row["number"])
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise OSError(f"Ray: {last}; what is done is kept, the same command goes on") from error
        finally:
            ray.shutdown()


def _as_json(shard: Shard) -> str:
    """What a worker needs of a shard, its paths absolute."""
    return json.dumps([shard.number, [[u.id, str(u.path.resolve()), u.duration] for u in shard.utterances]])


def _from_json(text: str) -> Shard:
    number, utterances = json.loads(text)
    return Shard(number, [Utterance(name, Path(path), duration) for name, path, duration in utterances])


class _Actor:
    def __init__(self, plan: Plan, out: Path) -> None:
        self.worker = Worker(plan, out)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": self.worker(_from_json(row["shard"]))}
