"""The streams of `/v1/audio/codec`, seen from the service: their worker process, and a channel for each connection.

Memory is bounded: a channel takes no more input while AHEAD bytes of it wait. Input waits until its output has been
sent, so a client that does not read is not read from either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from itertools import count

from vocable.serve import stream_worker
from vocable.serve.engine import RETRY_SECONDS
from vocable.serve.jobs import Failed, Full, Refused, Stopping
from vocable.serve.process import LoadError, WorkerProcess
from vocable.serve.settings import Settings
from vocable.serve.stream_batch import Output
from vocable.serve.stream_worker import Data, Direction, End, Leave, Message, Open

#: Bytes of input of a stream that wait: a second of PCM at 16 kHz, or four seconds of token frames of 8 layers.
AHEAD: dict[Direction, int] = {"encode": 32_000, "decode": 4_000}
CLOSE_SECONDS = 2.0  #: until connections are closed when the service stops
log = logging.getLogger(__name__)


class Channel:
    """One stream: a context manager, which ends the stream when it is left, and an iterator over its outputs.

    The iterator raises Refused if the input cannot be used, Failed for a fault of the service, and Stopping.
    """

    def __init__(self, number: int, direction: Direction, streams: Streams) -> None:
        self.number, self.direction, self._streams = number, direction, streams
        self._outcomes: asyncio.Queue[Output | Exception] = asyncio.Queue()
        self._waiting = 0  #: bytes of input whose output has not been sent
        self._sending: Output | None = None
        self._sent = asyncio.Event()  #: some output has been sent

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.close(self)

    async def add(self, data: bytes) -> None:
        """Add input, as soon as there is room for it."""
        most = AHEAD[self.direction]
        for start in range(0, len(data), most):
            while self._waiting >= most:
                self._sent.clear()
                await self._sent.wait()
            piece = data[start : start + most]
            self._waiting += len(piece)
            self._streams.post(Data(self.number, piece))

    def end(self) -> None:
        """End the input."""
        self._streams.post(End(self.number))

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        """Return the next output. The one before it has been sent when this is called."""
        if self._sending is not None:
            self._waiting -= self._sending.used
            self._sent.set()
            if self._sending.last:
                raise StopAsyncIteration
        outcome = await self._outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        self._sending = outcome
        if outcome.error is not None:
            raise Refused(outcome.error)
        return outcome.data

    def put(self, outcome: Output | Exception) -> None:
        """Add an output or an error. For `Streams`."""
        self._outcomes.put_nowait(outcome)


class Streams:
    """The streams of all connections, and the process that steps them; it is replaced if it dies."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.restarts = 0  #: of processes that died
        self.on_step: Callable[[int], object] = lambda size: None  #: is called with the number of streams of each step
        self._channels: dict[int, Channel] = {}
        self._numbers = count()
        self._outbox: list[Message] = []
        self._posted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def __len__(self) -> int:
        return len(self._channels)

    def start(self) -> None:
        """Start the process, unless it has been started. Returns at once; streams wait until it has its codec."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close_all(self) -> None:
        """Refuse new streams, end all others with Stopping, and wait a short time until they are closed."""
        self._stopping = True
        for channel in self._channels.values():
            channel.put(Stopping("the service is stopping: connect again"))
        end = asyncio.get_running_loop().time() + CLOSE_SECONDS
        while self._channels and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End all streams and the process."""
        await self.close_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def open(self, direction: Direction, layers: slice | None) -> Channel:
        """Begin a stream. Raises Full if there are too many, Stopping while the service stops."""
        if self._stopping:
            raise Stopping("the service is stopping: connect again")
        most = self.settings.limits.streams
        if len(self._channels) >= most:
            raise Full(f"{most} streams are open, which is the limit: connect again later")
        channel = Channel(next(self._numbers), direction, self)
        self._channels[channel.number] = channel
        self.post(Open(channel.number, direction, layers))
        return channel

    def close(self, channel: Channel) -> None:
        """End a stream."""
        if self._channels.pop(channel.number, None) is not None:
            self.post(Leave(channel.number))

    def post(self, message: Message) -> None:
        """Send a message to the process. Messages that are posted while others are being sent are sent together."""
        self._outbox.append(message)
        self._posted.set()

    async def _run(self) -> None:
        """Run a process; when it dies, start the next."""
        while True:
            process = WorkerProcess(stream_worker.main, self.settings)
            try:
                await process.load()
                await self._exchange(process)
                log.error("the worker of streams, %d, died; it is replaced", process.pid)
                self.restarts += 1
            except LoadError as error:
                log.error("the codec of streams could not be loaded: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                self._outbox.clear()
                for channel in self._channels.values():
                    channel.put(Failed("the worker of this stream died: connect again"))
                process.close()

    async def _exchange(self, process: WorkerProcess) -> None:
        """Send and receive messages until the process dies."""
        sending, receiving = asyncio.create_task(self._send(process)), asyncio.create_task(self._receive(process))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            receiving.cancel()

    async def _send(self, process: WorkerProcess) -> None:
        with contextlib.suppress(OSError):
            while True:
                await self._posted.wait()
                self._posted.clear()
                messages, self._outbox = self._outbox, []
                if messages:
                    await process.send(messages)

    async def _receive(self, process: WorkerProcess) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                outputs: list[Output] = await process.receive()
                self.on_step(len({output.stream for output in outputs}))
                for output in outputs:
                    if (channel := self._channels.get(output.stream)) is not None:
                        channel.put(output)
