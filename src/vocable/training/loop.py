"""The training loop: steps, log, saved state, signals. Subclasses of Trainer define what a step does.

RUN/recipe.json         the recipe of the run
RUN/state.safetensors   everything that resuming needs
RUN/log.jsonl           a line every LOG_EVERY steps, and one for each evaluation on dev
RUN/tensorboard/        the same figures, and whatever else the trainer's `evaluate` writes there
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
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch

from vocable.files import atomic_path
from vocable.lock import one_at_a_time
from vocable.training import processes
from vocable.training.log import Writer
from vocable.training.precision import autocast
from vocable.training.recipe_file import changed_fields
from vocable.training.schedule import learning_rate_factor
from vocable.training.state import load_header, load_state, save_state
from vocable.training.stop import Interrupted, StopSignals
from vocable.training.torch_globals import num_threads

#: Recipe fields that may differ when a run is resumed: its length, speed and logging. Fields that name files are here
#: if their contents are checked elsewhere (`distillation.cache`) or do not affect the weights (dev).
FREE_TO_CHANGE = {
    *("name", "max_steps", "device", "threads", "compile", "save_every", "evaluate_every", "dev_clips"),
    *("data.workers", "data.preload", "data.on_device", "data.dev", "data.dev_tokens", "distillation.cache"),
}
LOG_EVERY = 20  #: steps


class Batches(Protocol):
    """A batch for each step, which depends only on the seed and the step: resumed runs see the same ones."""

    def micro_batch(self, step: int, index: int, count: int) -> Any:
        """Return number `index` of the `count` equal micro-batches that the batch of a step is divided into."""


def changed_fields_of_run(folder: Path, recipe: Any) -> set[str]:
    """Return the dotted names of the fields in which a recipe differs from that of a run, and which may not change.

    Fields that name files are not among them: their contents count. Raises ValueError for damaged files.
    """
    path = folder / "recipe.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    if not isinstance(before, dict):
        raise ValueError(f"{path}: damaged (not a recipe)")
    free = FREE_TO_CHANGE | load_header(folder / "state.safetensors").get("inputs", {}).keys()
    return {name for name in changed_fields(recipe, before) if name not in free}


def refuse(changed: Collection[str], folder: Path) -> None:
    """Raise ValueError if a recipe differs from that of the run in `folder`. changed: names of fields."""
    if changed:
        raise ValueError(f"{folder} was begun with another {', '.join(sorted(changed))}: give the same options again")


class Trainer(ABC):
    """Base class of a training run in a folder.

    recipe: a dataclass with fields of the trainer's own, and optimizer.warmup, max_steps, seed, device, precision,
    accumulate, threads, save_every and evaluate_every. max_time: seconds of training after which the run ends, with the
    learning rate at its lowest; the time before a resumption counts. on_log: called with each record of the log.

    Raises ValueError for a max_time that is not positive, and for a device or a precision that this machine lacks.
    """

    data: Batches
    workers = 2  #: threads that read recordings and cut batches ahead

    def __init__(
        self,
        recipe: Any,
        folder: str | os.PathLike[str],
        *,
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
        #: Hashes of the files that the recipe names, by the dotted name of the field. A resumed run must find the same
        #: contents there, though perhaps under another path.
        self.inputs: dict[str, str] = {}

    # ---- what a subclass defines -----------------------------------------------------------------------------------

    @abstractmethod
    def train_step(self, micro_batches: list[Any]) -> dict[str, float]:
        """Train on this process's micro-batches of one step; return the means of the losses, or `skip()`."""

    @abstractmethod
    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Return figures on dev for the log, and write whatever else there is to TensorBoard."""

    @abstractmethod
    def components(self) -> dict[str, Any]:
        """Return the objects whose state is saved, by the name of their group of tensors: models, optimizers, averages.

        Each has `state_dict` and `load_state_dict`. Nothing else needs saving: the order of the data, the learning rate
        and every random number depend only on the seed and the step.
        """

    @abstractmethod
    def publish(self) -> None:
        """Write the trained model, to RUN/model as a rule. Called in the first process only."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return what the run's summary says about the published model."""

    def settings(self) -> contextlib.AbstractContextManager[object]:
        """Return a context that changes process-wide settings of torch while the run trains."""
        return num_threads(self.recipe.threads)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train to the end of the run and return a summary.

        Raises Interrupted after Ctrl-C or SIGTERM, when the state is saved, and ValueError if another process trains in
        the folder, or if the folder holds a state that this run was not resumed from.
        """
        with contextlib.ExitStack() as stack:
            if self.is_main:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(one_at_a_time(self.folder, "model"))
                self._write_recipe()
            stack.enter_context(self.settings())
            return self._train()

    def _write_recipe(self) -> None:
        """Write RUN/recipe.json. Raises ValueError if the folder holds a state that this run was not resumed from."""
        state = self.folder / "state.safetensors"
        held = load_header(state).get("step") if state.exists() else self.step
        if held != self.step:
            raise ValueError(
                f"{self.folder} holds a run at step {held}: resume it with --resume, or name another folder with -o"
            )
        with atomic_path(self.folder / "recipe.json") as temporary:
            values = json.dumps(dataclasses.asdict(self.recipe), indent=2)
            temporary.write_text(values + "\n")

    def _train(self) -> dict[str, Any]:
        self.processes.wait_for_everyone()  # processes may take different times to read their data
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
                # All processes exchange what they received, so that they stop at the same step. A signal that arrives
                # after this line takes effect at the next step.
                self.elapsed, received = processes.largest((elapsed, stop.received), self.device)
                stopped_by = int(received)
                if self.step % LOG_EVERY == 0 or self.progress >= 1.0:
                    self._log(writer, record)
                if self.step % self.recipe.save_every == 0:
                    self.save()
                if self.step % self.recipe.evaluate_every == 0 or self.progress >= 1.0:
                    self._log(writer, self.evaluate(writer) if self.is_main else {})
            self.save()
            self.processes.wait_for_everyone()  # a launcher ends all processes as soon as one has ended
        if stopped_by and self.progress < 1.0:
            raise Interrupted(stopped_by)
        if self.is_main:
            self.publish()
        self.processes.wait_for_everyone()
        return {**self.about(), "steps": self.step, "seconds": round(self.elapsed), "skipped": self.skipped}

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return processes.rank() == 0

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, by steps or by time, whichever is larger. May exceed 1 in the last step."""
        by_time = self.elapsed / max(self.max_time, 1e-9) if self.max_time is not None else 0.0
        return max(self.step / int(self.recipe.max_steps), by_time)

    def learning_rate_factor(self) -> float:
        """Return the factor on the recipe's learning rates at this step, 0 to 1."""
        warmup, max_steps = self.recipe.optimizer.warmup, self.recipe.max_steps
        return learning_rate_factor(self.progress, warmup=warmup, max_steps=max_steps)

    def skip(self) -> dict[str, float]:
        """Count a step whose gradients were not finite, and return its record for the log."""
        self.skipped += 1
        return {"skipped": float(self.skipped)}

    def autocast(self) -> torch.autocast:
        """Return a context in which matrix products and convolutions have the recipe's precision."""
        return autocast(self.device.type, self.recipe.precision)

    def generator(self) -> torch.Generator:
        """Return a CPU generator seeded by the recipe's seed and the step, so that no generator needs saving."""
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)

    # ---- state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write RUN/state.safetensors, atomically, in the first process only."""
        if not self.is_main:  # all processes have the same state
            return
        names = ("step", "elapsed", "skipped", "max_time", "inputs")
        header = {name: getattr(self, name) for name in names}
        groups = {name: dict(component.state_dict()) for name, component in self.components().items()}
        save_state(self.folder / "state.safetensors", groups, header)

    def resume(self) -> None:
        """Load RUN/state.safetensors. Without max_time, the run then ends as an uninterrupted one would, bit for bit.

        Raises ValueError for damaged files, and if the recipe differs from RUN/recipe.json in other fields than
        FREE_TO_CHANGE or in the contents of the files that it names.
        """
        changed = changed_fields_of_run(self.folder, self.recipe)
        groups, header = load_state(self.folder / "state.safetensors")
        inputs: dict[str, str] = header.get("inputs", {})
        changed |= {name for name in inputs if self.inputs.get(name) != inputs[name]}
        refuse(changed, self.folder)
        try:
            for name, component in self.components().items():
                component.load_state_dict(groups.get(name, {}))
            self.step, self.elapsed, self.skipped = header["step"], header["elapsed"], header["skipped"]
            self.max_time = header["max_time"] if self.max_time is None else self.max_time
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{self.folder}: the state is of another recipe; start in a new folder") from error

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[list[Any]]:
        """Yield this process's micro-batches for each step from this one on; the pool prepares a few steps ahead.

        Threads are enough: numpy and libsndfile release Python's global lock.
        """
        accumulate = self.recipe.accumulate
        count = processes.world_size() * accumulate

        def begin(step: int) -> list[Future[Any]]:
            own = range(processes.rank() * accumulate, (processes.rank() + 1) * accumulate)
            return [pool.submit(self.data.micro_batch, step, index, count) for index in own]

        steps = iter(range(self.step, self.recipe.max_steps))
        ahead = deque(begin(step) for step in itertools.islice(steps, 2 * self.workers))
        while ahead:
            yield [future.result() for future in ahead.popleft()]
            ahead.extend(begin(step) for step in itertools.islice(steps, 1))

    def _log(self, writer: Writer, record: dict[str, float]) -> None:
        head = {"step": self.step, "elapsed": round(self.elapsed, 1), "progress": round(self.progress, 4)}
        writer.record(head, record)
        if self.is_main:
            self.on_log(head | record)
