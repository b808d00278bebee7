"""The engine: worker processes, and the jobs that they do. It runs in one event loop, which it never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from vocable.serve import worker
from vocable.serve.jobs import Job, Loaded, Result, Stopping, Unavailable
from vocable.serve.process import LoadError, WorkerProcess
from vocable.serve.settings import Settings
from vocable.serve.waiting import Waiting

RETRY_SECONDS = 5.0  #: between two attempts to start a worker that could not load its models
log = logging.getLogger(__name__)


class Results:
    """The results of one job: an asynchronous iterator, and a context manager that cancels the job when it is left.

    The iterator raises Refused for a job that cannot be done as asked, Failed for a fault of the service, and
    Unavailable if the job should be sent again.
    """

    def __init__(self, job: Job, cancel: Callable[[Results], None]) -> None:
        self.job, self.cancelled = job, False
        self._cancel = cancel
        self._outcomes: asyncio.Queue[Result | Exception | None] = asyncio.Queue()
        self._ended = False

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Cancel the job, unless it has ended."""
        if not self._ended:
            self._ended = self.cancelled = True
            self._cancel(self)

    def __aiter__(self) -> Results:
        return self

    async def __anext__(self) -> Result:
        outcome = await self._outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    def add(self, result: Result) -> None:
        """Add a result. For the engine."""
        self._outcomes.put_nowait(result)

    def end(self, error: Exception | None = None) -> None:
        """End the results, with an error or without one. For the engine; the first call counts."""
        if not self._ended:
            self._ended = True
            self._outcomes.put_nowait(error)


class Engine:
    """Runs jobs in worker processes, each of which has its own models; replaces workers that die."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loaded: Loaded | None = None  #: what the workers have loaded; None until the first is ready
        self.failure: str | None = None  #: why the models could not be loaded at the last attempt
        self.on_failure: Callable[[], None] = lambda: None  #: is called when `failure` is set
        self.on_loaded: Callable[[Loaded], None] = lambda loaded: None  #: is called when a worker has its models
        self.restarts = 0  #: of workers that died
        self.waiting: Waiting[Results] = Waiting(settings.limits.waiting)
        self.on_batch: Callable[[int], object] = lambda size: None  #: is called with the number of jobs of each batch
        self._workers: list[_Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Start the workers. Returns at once; jobs wait until one has loaded its models."""
        self._tasks = [asyncio.create_task(self._run_workers()) for _ in range(self.settings.workers)]

    async def stop(self) -> None:
        """End the workers. Jobs that have not ended get Unavailable."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for results in self.waiting.clear():
            results.end(Stopping("the service is stopping"))

    @property
    def ready(self) -> bool:
        """Whether at least one worker has its models and runs."""
        return not self._stopping and bool(self._workers)

    @property
    def process_ids(self) -> list[int]:
        """The ids of the worker processes that have their models."""
        return [one.pid for one in self._workers]

    def submit(self, job: Job) -> Results:
        """Queue a job. Raises Full if too many wait, Unavailable before the models are loaded and while stopping."""
        if self._stopping:
            raise Stopping("the service is stopping")
        if self.loaded is None:
            raise Unavailable("the models are being loaded")
        results = Results(job, self._cancel)
        self.waiting.add(results)
        return results

    async def run(self, job: Job) -> Result:
        """Do a job that has one result, and return it. Raises what `submit` and its results raise."""
        with self.submit(job) as results:
            return await anext(results)

    def _cancel(self, results: Results) -> None:
        self.waiting.remove(results)
        for one in self._workers:
            if results in one.batch and all(other.cancelled for other in one.batch):
                one.cancel()

    async def _run_workers(self) -> None:
        """Run a worker; when it dies, start the next."""
        while True:
            process = _Worker(self.settings)
            try:
                self.loaded = await process.load()
                self.failure = None
                self._workers.append(process)
                self.on_loaded(self.loaded)
                await self._feed(process)
                log.error("worker %d died; it is replaced", process.pid)
                self.restarts += 1
            except LoadError as error:
                self.failure = str(error)
                self.on_failure()
                log.error("the models could not be loaded: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                with contextlib.suppress(ValueError):
                    self._workers.remove(process)
                for results in process.batch:
                    results.end(Unavailable("the worker of this request died: send the request again"))
                process.close()

    async def _feed(self, process: _Worker) -> None:
        """Give batches to a worker until it dies."""
        died = asyncio.ensure_future(process.wait())
        take: asyncio.Task[list[Results]] | None = None
        try:
            while not died.done():
                take = asyncio.create_task(self.waiting.take(len(self._workers)))
                await asyncio.wait({take, died}, return_when=asyncio.FIRST_COMPLETED)
                if not take.done():
                    return
                batch = take.result()
                if died.done():
                    self.waiting.put_back(batch)
                    return
                self.on_batch(len(batch))
                if not await process.do(batch):
                    return
        finally:
            died.cancel()
            if take is not None:
                take.cancel()


class _Worker(WorkerProcess):
    """A worker process and the batch that it does."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(worker.main, settings)
        self.batch: list[Results] = []  #: jobs that run
        self._sending = False

    async def do(self, batch: list[Results]) -> bool:
        """Do a batch of jobs; returns whether the worker still lives."""
        self.batch, self._sending = batch, True
        try:
            await self.send([results.job for results in batch])
            self._sending = False
            if all(results.cancelled for results in batch):  # while the jobs were being sent
                self.cancel()
            while (message := await self.receive()) != worker.IDLE:
                if isinstance(message, worker.Output):
                    batch[message.index].add(message.result)
                else:
                    batch[message.index].end(message.error)
        except (EOFError, OSError):
            return False
        self.batch = []
        return True

    def cancel(self) -> None:
        """End the batch that runs, as soon as the worker can."""
        if self._sending:  # a connection is not safe for two threads; `do` cancels afterwards
            return
        with contextlib.suppress(OSError):
            self.send_now(worker.CANCEL)
