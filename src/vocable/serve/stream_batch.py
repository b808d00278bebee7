"""Streams of several clients that are stepped together: `Encoders` and `Decoders`, with a row for each client.

The rows of one direction are the rows of one `Stream`, whose state grows and shrinks as clients come and leave. A step
takes at most one frame of each client, so a client that sends many at once does not delay the others.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from vocable.codec.clips import layer_range
from vocable.codec.frames import State
from vocable.codec.model import SpeechTokenizer
from vocable.codec.stream import Stream
from vocable.codec.token_frames import FrameReader, frame_bytes, header_bytes, header_of
from vocable.codec.tokens import Encoded, TokensError
from vocable.pcm import pcm_bytes, pcm_waveform

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Output:
    """The output that a stream made of some of its input."""

    stream: int  #: number of the stream
    data: bytes = b""
    used: int = 0  #: bytes of input that were used
    last: bool = False  #: whether the stream has ended
    error: str | None = None  #: why the input cannot be used, one line


class Input(Protocol):
    """The input of one client that waits."""

    def __len__(self) -> int:
        """Return the number of bytes that wait."""

    def add(self, data: bytes) -> None:
        """Add input."""


I = TypeVar("I", bound=Input)  # noqa: E741


class Batch(ABC, Generic[I]):
    """The streams of one direction, by their numbers: the rows of `stream`, in the order of `inputs`."""

    def __init__(self, codec: SpeechTokenizer) -> None:
        self.codec = codec
        self.inputs: dict[int, I] = {}
        self.stream: Stream | None = None  #: None without rows
        self._new = codec.stream().state()
        self._held: dict[int, int] = {}  #: bytes of input that were not used before the last output
        self._ended: set[int] = set()  #: streams whose input has ended

    def add(self, number: int, data: bytes) -> None:
        """Add input of a stream."""
        self.inputs[number].add(data)
        self._held[number] += len(data)

    def end(self, number: int) -> None:
        """End the input of a stream."""
        self._ended.add(number)

    def remove(self, number: int) -> None:
        """Remove a stream."""
        kept = [i for i, other in enumerate(self.inputs) if other != number]
        del self.inputs[number], self._held[number]
        self._ended.discard(number)
        self._restart(self._states(kept))

    def step(self) -> Iterator[Output]:
        """Step each stream that has a frame, and end each whose input has ended and that has none."""
        stepped = self._step()
        for number, made in stepped.items():
            yield self._output(number, made)
        for number in self._ended - stepped.keys():
            try:
                made = self._flush(self.inputs[number], self._alone(number))
            except TokensError as error:
                made = error
            yield dataclasses.replace(self._output(number, made), last=True)
            if number in self.inputs:
                self.remove(number)

    @abstractmethod
    def _step(self) -> dict[int, bytes | TokensError]:
        """Return the output of each stream that has a frame, which may be empty, or why its input is refused."""

    @abstractmethod
    def _flush(self, waiting: I, stream: Stream) -> bytes:
        """Return the last output of a stream, from the input that waits. Raises TokensError if the input is cut off."""

    def _open(self, number: int, waiting: I) -> None:
        """Add a stream."""
        state = self._new
        if self.stream is not None:
            old = self.stream.state()
            state = {name: torch.cat([old[name], tensor]) for name, tensor in self._new.items()}
        self.inputs[number], self._held[number] = waiting, 0
        self._restart(state)

    def _output(self, number: int, made: bytes | TokensError) -> Output:
        """Return an output of a stream; a stream with an error is removed."""
        if isinstance(made, TokensError):
            self.remove(number)
            return Output(number, last=True, error=str(made))
        used = self._held[number] - len(self.inputs[number])
        self._held[number] -= used
        return Output(number, made, used)

    def _alone(self, number: int) -> Stream:
        """Return a copy of one stream."""
        stream = self.codec.stream()
        stream.restore(self._states([list(self.inputs).index(number)]))
        return stream

    def _states(self, rows: Sequence[int]) -> State:
        assert self.stream is not None
        return {name: tensor[list(rows)] for name, tensor in self.stream.state().items()}

    def _restart(self, state: State) -> None:
        self.stream = None
        if self.inputs:
            self.stream = self.codec.stream(batch=len(self.inputs))
            self.stream.restore(state)


class Pcm:
    """The PCM of one client that waits, and the header of the client's token frames."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header
        self.layers = slice(*header["layers"])
        self._waiting = bytearray()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, data: bytes) -> None:
        """Add PCM."""
        self._waiting += data

    def take(self, size: int) -> np.ndarray:
        """Remove `size` bytes, or none if there are fewer; return them as float32 [n]."""
        if len(self._waiting) < size:
            return _NOTHING
        waveform = pcm_waveform(bytes(self._waiting[:size]))
        del self._waiting[:size]
        return waveform


class Encoders(Batch[Pcm]):
    """Encode PCM to token frames."""

    def open(self, number: int, layers: slice | None) -> bytes:
        """Begin a stream; return the header of its token frames. Raises ValueError for invalid layers."""
        chosen = slice(*layer_range(layers, self.codec.num_quantizers))
        header = header_of(self.codec, chosen, None)
        self._open(number, Pcm(header))
        return header_bytes(header, as_json=False)

    def _step(self) -> dict[int, bytes | TokensError]:
        size = 2 * self.codec.hop_length  # bytes of a frame
        blocks = [pcm.take(size) for pcm in self.inputs.values()]
        if self.stream is None or not any(map(len, blocks)):
            return {}
        rows = zip(self.inputs.items(), blocks, self.stream.encode(blocks).clips(), strict=True)
        return {number: _frames(clip, pcm) for (number, pcm), block, clip in rows if len(block)}

    def _flush(self, waiting: Pcm, stream: Stream) -> bytes:
        tail = stream.encode(waiting.take(len(waiting)))  # less than a frame
        return _frames(tail, waiting) + _frames(stream.flush()[0], waiting)


class Decoders(Batch[FrameReader]):
    """Decode token frames to PCM."""

    def open(self, number: int) -> None:
        """Begin a stream."""
        self._open(number, FrameReader())

    def _step(self) -> dict[int, bytes | TokensError]:
        frames: dict[int, Encoded] = {}
        outputs: dict[int, bytes | TokensError] = {}
        for number, reader in self.inputs.items():
            try:
                if (frame := reader.next()) is not None:
                    frames[number] = frame
            except TokensError as error:
                outputs[number] = error
        layers = {number: (frame.layers.start, frame.layers.stop) for number, frame in frames.items()}
        for chosen in set(layers.values()):
            outputs |= self._decode({number: frame for number, frame in frames.items() if layers[number] == chosen})
        return outputs

    def _flush(self, waiting: FrameReader, stream: Stream) -> bytes:
        if len(waiting):
            raise TokensError("the last token frame is cut off: send all its bytes before the end")
        return pcm_bytes(stream.flush()[1].waveform[0].cpu().numpy())

    def _decode(self, frames: dict[int, Encoded]) -> dict[int, bytes | TokensError]:
        """Decode frames of the same layers."""
        assert self.stream is not None
        numbers, rates = list(self.inputs), (self.codec.sample_rate, self.codec.frame_rate)
        try:
            if any((frame.sample_rate, frame.frame_rate) != rates for frame in frames.values()):
                raise TokensError("tokens of a codec of other rates: load that codec")
            clips = self.stream.decode(_joined([frames.get(number) for number in numbers])).clips()
        except TokensError as error:  # nothing has been decoded, because tokens are checked first
            if len(frames) == 1:
                return dict.fromkeys(frames, error)
            alone = [self._decode({number: frame}) for number, frame in frames.items()]
            return {number: output for outputs in alone for number, output in outputs.items()}
        return {number: pcm_bytes(clips[numbers.index(number)].cpu().numpy()) for number in frames}


def _frames(clip: Encoded, pcm: Pcm) -> bytes:
    """Return the bytes of the frames of a clip with all layers."""
    chosen = dataclasses.replace(clip, codes=clip.codes[:, pcm.layers], layers=pcm.layers)
    return frame_bytes(chosen, pcm.header, as_json=False)


def _joined(frames: Sequence[Encoded | None]) -> Encoded:
    """Return one frame, or none, of each recording as a batch."""
    first = next(frame for frame in frames if frame is not None)

    def rows(name: str, fill: float) -> torch.Tensor:
        empty = torch.full_like(getattr(first, name), fill)
        return torch.cat([empty if frame is None else getattr(frame, name) for frame in frames])

    codes, counts, samples, gain = rows("codes", 0), rows("num_frames", 0), rows("num_samples", 0), rows("gain", 1.0)
    return dataclasses.replace(first, codes=codes, num_frames=counts, num_samples=samples, gain=gain)
