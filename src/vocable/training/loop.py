"""The loop that every trainer of a run has: steps, log, state, signals. What a step does is the trainer's own.

RUN/recipe.json         the recipe as it ran
RUN/state.safetensors   everything that resuming needs
RUN/log.jsonl           a line every few steps, and one for each pass over dev
RUN/tensorboard/        the same figures, and what else the trainer shows
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch

from vocable.files import atomic_path
from vocable.training import processes
from vocable.training.log import Writer
from vocable.training.precision import autocast
from vocable.training.state import load_state, save_state
from vocable.training.stop import Interrupted, StopSignals

#: What a resumed run may change; the rest of the recipe makes it the run that it is.
FREE_TO_CHANGE = ("max_steps", "device", "threads", "compile", "save_every", "evaluate_every", "dev_clips")
LOG_EVERY = 20  #: steps
PATIENCE = 10  #: losses in a row that are not finite
FINAL_SHARE = 0.01  #: of the learning rate, at the end of the run


class Batches(Protocol):
    """Item n, in equal parts, follows from n alone."""

    def part(self, step: int, index: int, parts: int) -> Any: ...


class Trainer(ABC):
    """One training run in a folder.

    recipe: a dataclass with, beside what is the trainer's own, optimizer.warmup, max_steps, seed, device, precision,
    accumulate, threads, save_every and evaluate_every. max_time: seconds of training (all parts of a resumed run
    together) after which it ends, annealed. on_log: called with each log record.
    """

    data: Batches
    workers = 2  #: threads that read and cut batches ahead

    def __init__(
        self,
        recipe: Any,
        folder: str | os.PathLike[str],
        max_time: float | None = None,
        on_log: Callable[[dict[str, Any]], None] = lambda record: None,
    ) -> None:
        self.recipe, self.folder, self.max_time, self.on_log = recipe, Path(folder), max_time, on_log
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.device, self.processes = processes.join(recipe.device)
        if recipe.precision == "float16" and self.device.type == "cpu":
            raise ValueError("CPUs do not train in float16: --set precision=bfloat16")
        self.step, self.elapsed, self.skipped, self.skipped_in_a_row = 0, 0.0, 0, 0

    # ---- a trainer's own -------------------------------------------------------------------------------------------

    @abstractmethod
    def train_step(self, parts: list[Any]) -> dict[str, float]:
        """One step on this process's parts of a batch; returns the means of its losses, or `skip()`."""

    @abstractmethod
    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Figures on dev."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """All that has a state; data order, learning rate and every random number follow from seed and step."""

    @abstractmethod
    def publish(self) -> None:
        """Write RUN/model. Called in the first process alone."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What a summary says of what was published."""

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train to the end; returns a summary. Raises Interrupted after Ctrl-C or SIGTERM, with the state saved."""
        if self.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / "recipe.json") as temporary:
                temporary.write_text(json.dumps(self._recipe_json(), indent=2) + "\n")
        stop, stopped_by = StopSignals(), 0
        started, before = time.monotonic(), self.elapsed
        with (
            stop,
            Writer(self.folder if self.is_main else None, self.step) as writer,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            batches = self._batches(pool)
            while self.progress < 1.0 and not stopped_by:
                record = self.train_step(next(batches))
                self.step += 1
                elapsed = before + time.monotonic() - started
                # A signal that comes later than this, to one process say, waits for the next step: all leave together.
                self.elapsed, received = processes.largest((elapsed, stop.received), self.device)
                stopped_by = int(received)
                if self.step % LOG_EVERY == 0 or self.progress >= 1.0:
                    self._log(writer, record)
                if self.step % self.recipe.save_every == 0:
                    self.save()
                if self.step % self.recipe.evaluate_every == 0 or self.progress >= 1.0:
                    self._log(writer, self.evaluate(writer) if self.is_main else {})
            self.save()
            self.processes.wait_for_everyone()  # a launcher ends all as soon as one has ended
        if stopped_by and self.progress < 1.0:
            raise Interrupted(stopped_by)
        if self.is_main:
            self.publish()
        self.processes.wait_for_everyone()
        return {**self.about(), "steps": self.step, "seconds": round(self.elapsed), "skipped": self.skipped}

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return processes.rank() == 0

    @property
    def progress(self) -> float:
        """Part of the run that is done, by steps or by time, whichever is further: it drives the schedule."""
        by_time = self.elapsed / max(self.max_time, 1e-9) if self.max_time is not None else 0.0
        return max(self.step / int(self.recipe.max_steps), by_time)

    def learning_rate_share(self) -> float:
        """Of the recipe's learning rate: a warm-up, then a half cosine."""
        warmup, p = float(self.recipe.optimizer.warmup), min(self.progress, 1.0)
        if p < warmup:
            return min(1.0, max(p, 1 / int(self.recipe.max_steps)) / warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * (p - warmup) / (1 - warmup)))
        return FINAL_SHARE + (1 - FINAL_SHARE) * cosine

    def skip(self) -> dict[str, float]:
        """Count a step whose loss was not finite; ValueError where they do not end."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == PATIENCE:
            raise ValueError(
                f"the loss was not finite {PATIENCE} times in a row: lower optimizer.learning_rate or clip_norm, "
                "or check the data with `vocable prepare check`; the last state saved is from before"
            )
        return {"skipped": float(self.skipped)}

    def autocast(self) -> torch.autocast:
        return autocast(self.device.type, self.recipe.precision)

    def generator(self) -> torch.Generator:
        """Randomness that follows from the seed and the step, so that none of it needs saving."""
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)

    # ---- state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write RUN/state.safetensors, atomically."""
        if not self.is_main:  # the others hold the same
            return
        header = {"step": self.step, "elapsed": self.elapsed, "skipped": self.skipped, "max_time": self.max_time}
        groups = {name: dict(part.state_dict()) for name, part in self.parts().items()}
        save_state(self.folder / "state.safetensors", groups, header)

    def resume(self) -> None:
        """Go on from RUN/state.safetensors. With max_steps, the result equals an uninterrupted run's bit for bit."""
        groups, header = load_state(self.folder / "state.safetensors")
        before, now = json.loads((self.folder / "recipe.json").read_text()), self._recipe_json()
        changed = [key for key in now if before.get(key) != now[key] and key not in FREE_TO_CHANGE]
        if changed:
            raise ValueError(f"{self.folder} was begun with another {', '.join(changed)}: give the same options again")
        if self.max_time is None:
            self.max_time = header["max_time"]
        try:
            for name, part in self.parts().items():
                part.load_state_dict(groups.get(name, {}))
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{self.folder}: the state is of another recipe; start in a new folder") from error
        self.step, self.elapsed, self.skipped = header["step"], header["elapsed"], header["skipped"]

    def _recipe_json(self) -> dict[str, Any]:
        """The recipe as JSON gives it back: tuples are lists."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        return values

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[list[Any]]:
        """This process's parts of the batches from this step on, a few steps ahead. Threads will do: numpy and
        libsndfile let go of the lock."""
        count = self.recipe.accumulate
        parts = processes.world_size() * count

        def begin(step: int) -> list[Future[Any]]:
            mine = range(processes.rank() * count, (processes.rank() + 1) * count)
            return [pool.submit(self.data.part, step, part, parts) for part in mine]

        steps = iter(range(self.step, self.recipe.max_steps))
        ahead = deque(begin(step) for step in itertools.islice(steps, 2 * self.workers))
        while ahead:
            yield [future.result() for future in ahead.popleft()]
            ahead.extend(begin(step) for step in itertools.islice(steps, 1))

    def _log(self, writer: Writer, record: dict[str, float]) -> None:
        head = {"step": self.step, "elapsed": round(self.elapsed, 1), "progress": round(self.progress, 4)}
        whole = {**head, **record}
        writer.record(whole, record, self.step)
        if self.is_main:
            self.on_log(whole)
