"""`/v1/audio/codec`, a WebSocket: PCM to token frames, or token frames to PCM, while they come.

A connection is one stream in one direction. The client sends binary messages, and the text `end` after the last one;
the service sends the rest and closes with 1000. Errors are close codes with a reason of one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from vocable.serve.jobs import Failed, Full, Refused, Stopping, Unavailable
from vocable.serve.metrics import Metrics
from vocable.serve.schemas import LAYERS_PATTERN, layer_slice
from vocable.serve.settings import Limits
from vocable.serve.stream_worker import Direction
from vocable.serve.streams import Channel, Streams
from vocable.terminal import printable

router = APIRouter()
DIRECTIONS: dict[str, Direction] = {"encode": "encode", "decode": "decode"}
END = "end"  #: the text that ends the input
LARGEST_REASON = 123  #: bytes of the reason of a close code
CLOSE_SECONDS = 1.0  #: until a client that does not read is left without a close code
T = TypeVar("T")
log = logging.getLogger(__name__)


class Closed(Exception):
    """The end of a connection: a close code and a reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@router.websocket("/v1/audio/codec")
async def codec(socket: WebSocket, direction: str = "", layers: str | None = None) -> None:
    """Encode or decode a stream. layers: whose codes are sent, such as `:1`."""
    await socket.accept()
    streams: Streams = socket.app.state.streams
    with contextlib.ExitStack() as stack:
        try:
            _check_codec(socket)
            if (found := DIRECTIONS.get(direction)) is None:
                raise Closed(1008, "add ?direction=encode or ?direction=decode to the address")
            if layers is not None and (found == "decode" or not re.fullmatch(LAYERS_PATTERN, layers)):
                raise Closed(1008, "layers is a slice, such as :1, and goes with direction=encode")
            channel = stack.enter_context(streams.open(found, layer_slice(layers)))
            await _serve(socket, channel)
            await _close(socket, Closed(1000))
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await _close(socket, _closed(error))


def _check_codec(socket: WebSocket) -> None:
    """Raise Unavailable before the models are loaded, and Closed for a codec that cannot stream."""
    loaded = socket.app.state.engine.loaded
    if loaded is None:
        raise Unavailable("the models are being loaded: connect again later")
    if loaded.codec["delay"] is None:
        raise Closed(1008, "this service's codec needs whole clips: start vocable serve with -m and a causal codec")


def _closed(error: Exception) -> Closed:
    """Return the close code of an error."""
    codes = {Refused: 1007, Stopping: 1001, Full: 1013, Unavailable: 1013, Failed: 1011}
    if isinstance(error, Closed):
        return error
    for kind, code in codes.items():
        if isinstance(error, kind):
            return Closed(code, str(error))
    log.error("a stream failed", exc_info=error)
    return Closed(1011, "the service failed; its log says why")


async def _close(socket: WebSocket, closed: Closed) -> None:
    reason = printable(closed.reason).encode()[:LARGEST_REASON].decode(errors="ignore")
    with contextlib.suppress(asyncio.TimeoutError, RuntimeError, WebSocketDisconnect):
        await asyncio.wait_for(socket.close(closed.code, reason), CLOSE_SECONDS)


async def _serve(socket: WebSocket, channel: Channel) -> None:
    """Run a stream until it ends. Raises Closed, what the channel raises, and WebSocketDisconnect."""
    limits: Limits = socket.app.state.settings.limits
    length = _Length(socket, channel, limits)
    if header := await anext(channel):  # the worker has its codec and has begun the stream
        await socket.send_bytes(header)
    tasks = {
        asyncio.create_task(_receive(socket, channel, limits.stream_idle, length)),
        asyncio.create_task(_send(socket, channel, limits.stream_idle, length)),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Length:
    """The seconds of speech of a stream: those that an encoder gets, or a decoder makes."""

    def __init__(self, socket: WebSocket, channel: Channel, limits: Limits) -> None:
        metrics: Metrics = socket.app.state.metrics
        self._counter = metrics.audio.labels(f"{channel.direction}d")
        self._rate: int = socket.app.state.engine.loaded.codec["sample_rate"]
        self._longest, self._seconds = limits.stream_seconds, 0.0

    def add(self, pcm: bytes) -> None:
        """Count PCM. Raises Closed if the stream is too long."""
        seconds = len(pcm) / 2 / self._rate
        self._seconds += seconds
        self._counter.inc(seconds)
        if self._seconds > self._longest:
            raise Closed(1008, f"the stream is longer than {self._longest:g} s, which is the limit: connect again")


async def _receive(socket: WebSocket, channel: Channel, idle: float, length: _Length) -> None:
    """Give the messages of the client to the channel. Raises Closed, and WebSocketDisconnect if the client leaves."""
    silent = f"no message came in {idle:g} s: send the text {END} after the last one"
    stuck = f"the service has not read in {idle:g} s: read what it sends"
    while (data := await _within(idle, _message(socket), silent)) is not None:
        if channel.direction == "encode":
            if len(data) % 2:
                raise Closed(1007, "a message has an odd number of bytes: send whole samples of 16 bits")
            length.add(data)
        await _within(idle, channel.add(data), stuck)
    channel.end()
    await _message(socket)
    raise Closed(1008, f"a message came after {END}: connect again for another stream")


async def _send(socket: WebSocket, channel: Channel, idle: float, length: _Length) -> None:
    """Send the outputs of the channel until the stream ends. Raises Closed, and what the channel raises."""
    async for data in channel:
        if channel.direction == "decode":
            length.add(data)
        if data:
            await _within(idle, socket.send_bytes(data), f"the client has not read in {idle:g} s")


async def _message(socket: WebSocket) -> bytes | None:
    """Return the next message; None for the text `end`. Raises Closed for any other text."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    if (text := message.get("text")) is None:
        data: bytes = message["bytes"]
        return data
    if text != END:
        raise Closed(1003, f"send binary messages, and the text {END} after the last one")
    return None


async def _within(seconds: float, waiting: Awaitable[T], reason: str) -> T:
    """Wait for a result. Raises Closed with the reason if it takes longer than this."""
    try:
        return await asyncio.wait_for(waiting, seconds)
    except asyncio.TimeoutError:
        raise Closed(1008, reason) from None
