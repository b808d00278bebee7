"""The worker process of `/v1/audio/codec`: it steps the streams of all clients together, frame by frame.

Messages, over a pipe. From the service: a list of `Open`, `Data`, `End` and `Leave`. From the worker: `None` once, or a
`str` that says why the codec could not be loaded; then after each step a list of `Output`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection
from typing import Literal

import torch

from vocable.codec.model import SpeechTokenizer
from vocable.codec.network import Parts
from vocable.corpus.parallel import end_with_parent
from vocable.serve.settings import Settings
from vocable.serve.stream_batch import Decoders, Encoders, Output

PARTS: tuple[Parts, ...] = ("encoder", "decoder")
Direction = Literal["encode", "decode"]


@dataclass(frozen=True)
class Open:
    """Begin a stream."""

    stream: int  #: number of the stream
    direction: Direction
    layers: slice | None  #: whose codes are sent; None: all


@dataclass(frozen=True)
class Data:
    """Input of a stream: PCM, or bytes of token frames."""

    stream: int
    data: bytes


@dataclass(frozen=True)
class End:
    """End of the input of a stream."""

    stream: int


@dataclass(frozen=True)
class Leave:
    """End of a stream whose client has left, or which has been refused."""

    stream: int


Message = Open | Data | End | Leave


def main(connection: Connection, settings: Settings) -> None:
    """Run the worker until the other end of the connection is closed or the parent process ends."""
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # the service ends its workers
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(settings.threads)
    try:
        streams = _Streams(settings)
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        connection.send(" ".join(str(error).split()) or type(error).__name__)
        return
    connection.send(None)
    with contextlib.suppress(EOFError, OSError):  # the service has ended
        while True:
            outputs: list[Output] = []
            while connection.poll():
                for message in connection.recv():
                    outputs += streams.take(message)
            outputs += streams.step()
            if outputs:
                connection.send(outputs)
            else:
                connection.poll(None)  # waits for messages


class _Streams:
    """The streams of all clients."""

    def __init__(self, settings: Settings) -> None:
        encoder, decoder = (
            SpeechTokenizer.from_pretrained(settings.model, device=settings.device, parts=part) for part in PARTS
        )
        self._encoders, self._decoders = Encoders(encoder), Decoders(decoder)
        self._batches: dict[int, Encoders | Decoders] = {}  #: by the number of the stream

    def take(self, message: Message) -> Iterator[Output]:
        """Do what a message asks. Messages about a stream that has ended have no effect."""
        number = message.stream
        if isinstance(message, Open):
            yield self._open(message)
        elif (batch := self._batches.get(number)) is not None:
            match message:
                case Data():
                    batch.add(number, message.data)
                case End():
                    batch.end(number)
                case Leave():
                    batch.remove(number)
                    del self._batches[number]

    def step(self) -> Iterator[Output]:
        """Step the streams of both directions."""
        for output in chain(self._encoders.step(), self._decoders.step()):
            if output.last:
                del self._batches[output.stream]
            yield output

    def _open(self, message: Open) -> Output:
        number, header = message.stream, b""
        try:
            if message.direction == "encode":
                header = self._encoders.open(number, message.layers)
                self._batches[number] = self._encoders
            else:
                self._decoders.open(number)
                self._batches[number] = self._decoders
        except ValueError as error:
            return Output(number, last=True, error=str(error))
        return Output(number, header)
