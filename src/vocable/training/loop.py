"""The loop that every trainer of a run has: steps, log, state, signals. What a step does is the trainer's own.

RUN/recipe.json         the recipe as it ran
RUN/state.safetensors   everything that resuming needs
RUN/log.jsonl           a line every few steps, and one for each pass over dev
RUN/tensorboard/        the same figures, and what else the trainer shows
"""

from __future__ import annotations

import contextlib
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
from vocable.lock import one_at_a_time
from vocable.training import processes
from vocable.training.log import Writer
from vocable.training.precision import autocast
from vocable.training.recipe import changed_fields
from vocable.training.state import load_header, load_state, save_state
from vocable.training.stop import Interrupted, StopSignals
from vocable.training.torch_globals import num_threads

#: Fields of a recipe that a resumed run may change: its length, how it is worked out and watched. Those of folders are
#: here where what lies in them is checked (`distillation.cache`), or does not reach the weights (dev).
FREE_TO_CHANGE = {
    *("name", "max_steps", "device", "threads", "compile", "save_every", "evaluate_every", "dev_clips"),
    *("data.workers", "data.preload", "data.on_device", "data.dev", "data.dev_tokens", "distillation.cache"),
}
LOG_EVERY = 20  #: steps
FINAL_SHARE = 0.01  #: of the learning rate, at the end of the run


class Batches(Protocol):
    """Item n, in equal parts, follows from n alone."""

    def part(self, step: int, index: int, parts: int) -> Any: ...


class Trainer(ABC):
    """One training run in a folder.

    recipe: a dataclass with, beside what is the trainer's own, optimizer.warmup, max_steps, seed, device, precision,
    accumulate, threads, save_every and evaluate_every. max_time: seconds of training (all parts of a resumed run
    together) after which it ends, annealed. on_log: called with each log record.

    Raises ValueError for a max_time that is not positive, and for a device or a precision that is not to be had.
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
        if max_time is not None and not 0 < max_time < math.inf:
            raise ValueError(f"the time to train for must be longer than 0 s, not {max_time:g} s")
        self.recipe, self.folder, self.max_time, self.on_log = recipe, Path(folder), max_time, on_log
        self.device, self.processes = processes.join(recipe.device)
        if recipe.precision == "float16" and self.device.type == "cpu":
            raise ValueError("CPUs do not train in float16: --set precision=bfloat16")
        self.step, self.elapsed, self.skipped = 0, 0.0, 0
        #: Hashes of the contents of files that the recipe names, by the dotted name of the field: in a resumed run
        #: these files may lie elsewhere.
        self.inputs: dict[str, str] = {}

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

    def settings(self) -> contextlib.AbstractContextManager[object]:
        """What holds for this process while the run trains, and not afterwards."""
        return num_threads(self.recipe.threads)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train to the end; returns a summary.

        Raises Interrupted after Ctrl-C or SIGTERM, with the state saved, and ValueError if another run is at work in
        the folder, or has saved a state there that this one did not resume from.
        """
        with contextlib.ExitStack() as stack:
            if self.is_main:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(one_at_a_time(self.folder, "model"))
                self._begin()
            stack.enter_context(self.settings())
            return self._train()

    def _begin(self) -> None:
        """Write RUN/recipe.json, unless the folder holds a run that this one does not go on with."""
        state = self.folder / "state.safetensors"
        held = load_header(state).get("step") if state.exists() else self.step
        if held != self.step:
            raise ValueError(
                f"{self.folder} holds a run at step {held}: --resume goes on with it, -o names another folder"
            )
        with atomic_path(self.folder / "recipe.json") as temporary:
            values = json.dumps(dataclasses.asdict(self.recipe), indent=2)
            temporary.write_text(values + "\n")

    def _train(self) -> dict[str, Any]:
        self.processes.wait_for_everyone()  # one may have read its data long before another
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
        """Count a step whose gradients were not finite: what to return from it."""
        self.skipped += 1
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
        names = ("step", "elapsed", "skipped", "max_time", "inputs")
        header = {name: getattr(self, name) for name in names}
        groups = {name: dict(part.state_dict()) for name, part in self.parts().items()}
        save_state(self.folder / "state.safetensors", groups, header)

    def resume(self) -> None:
        """Go on from RUN/state.safetensors. With max_steps, the result equals an uninterrupted run's bit for bit.

        Raises ValueError if the run was begun with another recipe but for fields that are free to change, and for files
        that are damaged.
        """
        groups, header = load_state(self.folder / "state.safetensors")
        path = self.folder / "recipe.json"
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: damaged ({error})") from error
        if not isinstance(before, dict):
            raise ValueError(f"{path}: damaged (not a recipe)")
        inputs: dict[str, str] = header.get("inputs", {})
        changed = {name for name in changed_fields(self.recipe, before) if name not in FREE_TO_CHANGE | inputs.keys()}
        changed |= {name for name in inputs if self.inputs.get(name) != inputs[name]}
        if changed:
            names = ", ".join(sorted(changed))
            raise ValueError(f"{self.folder} was begun with another {names}: give the same options again")
        try:
            for name, part in self.parts().items():
                part.load_state_dict(groups.get(name, {}))
            self.step, self.elapsed, self.skipped = header["step"], header["elapsed"], header["skipped"]
            self.max_time = header["max_time"] if self.max_time is None else self.max_time
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{self.folder}: the state is of another recipe; start in a new folder") from error

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
