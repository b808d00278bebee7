"""Token frames: the codes of a stream as bytes, one frame after another, for pipes and sockets.

The header is the 4 bytes `VTF1`, the size of the following JSON as a little-endian uint32, and the JSON. A frame is one
little-endian uint16 for each layer. If `gain` in the JSON is "frame", an int16 follows, the frame's gain in 1/256 dB.
Before a last frame that is not whole come the uint16 65,535 and, as a uint16, the number of its samples.

The same as text: a line of JSON for the header, and one for each frame, with the keys `codes`, `gain`, `num_samples`.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch

from vocable.codec.base import Codec
from vocable.codec.tokens import Encoded, TokensError

MAGIC = b"VTF1"
SHORT = 65_535  #: announces, in place of a code, the number of samples of a last frame that is not whole
LARGEST_HEADER = 65_536  #: bytes
STEPS = 256  #: steps of a frame's gain per dB


def header_of(codec: Codec, layers: slice, gain: float | None) -> dict[str, Any]:
    """Return the values of a header. gain: of all frames, or None if each frame has its own or the codec has no level.

    Raises TokensError for a codec with more than 65,535 codes.
    """
    if max(codec.codebook_sizes) > SHORT:
        raise TokensError(f"token frames keep codes below {SHORT}, and this codec has {max(codec.codebook_sizes)}")
    return {
        "token_id": codec.token_id,
        "sample_rate": codec.sample_rate,
        "hop_length": codec.hop_length,
        "layers": [layers.start, layers.stop],
        "gain": "frame" if gain is None else gain,
    }


def header_bytes(header: dict[str, Any], as_json: bool) -> bytes:
    """Return the bytes of a header."""
    text = json.dumps(header).encode()
    return text + b"\n" if as_json else MAGIC + struct.pack("<I", len(text)) + text


def frame_bytes(block: Encoded, header: dict[str, Any], as_json: bool) -> bytes:
    """Return the bytes of the frames of a block of one recording, a result of `Stream.encode` or `Stream.flush`."""
    hop, codes = header["hop_length"], block.codes[0].T.cpu().numpy().astype("<u2")
    steps: list[int | None] = [None] * len(codes)
    if header["gain"] == "frame":
        gains = [1.0] * len(codes) if block.gain is None else block.gain[0].tolist()
        steps = [round(20 * math.log10(gain) * STEPS) for gain in gains]
    left, out = int(block.num_samples), []
    for row, step in zip(codes, steps, strict=True):
        samples, left = min(hop, left), left - hop
        if as_json:
            line: dict[str, Any] = {"codes": row.tolist()}
            line |= {} if step is None else {"gain": 10 ** (step / STEPS / 20)}
            line |= {} if samples == hop else {"num_samples": samples}
            out.append(json.dumps(line).encode() + b"\n")
        else:
            out.append(b"" if samples == hop else struct.pack("<HH", SHORT, samples))
            out.append(row.tobytes() + (b"" if step is None else struct.pack("<h", step)))
    return b"".join(out)


def read_frames(file: IO[bytes]) -> Iterator[Encoded]:
    """Yield the frames of a binary file or pipe, each as soon as it is there. Raises TokensError for anything else."""
    header = _read_header(file)
    while (frame := _read_frame(file, header)) is not None:
        yield frame


class FrameReader:
    """Reads token frames that come in pieces of any length, such as the messages of a socket."""

    def __init__(self) -> None:
        self._held = _Held()
        self._header: _Header | None = None

    def __len__(self) -> int:
        """Return the number of bytes that have not been read."""
        return len(self._held.getbuffer()) - self._held.tell()

    def add(self, data: bytes) -> None:
        """Add a piece."""
        self._held = _Held(bytes(self._held.getbuffer()[self._held.tell() :]) + data)

    def next(self) -> Encoded | None:
        """Return the next frame; None if it is not complete yet. Raises TokensError for anything but token frames."""
        place = self._held.tell()
        try:
            if self._header is None:
                self._header = _read_header(self._held)
                place = self._held.tell()
            return _read_frame(self._held, self._header)
        except EOFError:
            self._held.seek(place)
            return None


class _Held(io.BytesIO):
    """The bytes that have come. Reading more than these raises EOFError."""

    def read(self, size: int | None = -1, /) -> bytes:
        return self._complete(data := super().read(size), len(data) == size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._complete(line := super().readline(size), len(line) == size or line.endswith(b"\n"))

    def _complete(self, data: bytes, complete: bool) -> bytes:
        if not complete:
            raise EOFError
        return data


@dataclass(frozen=True)
class _Header:
    """The values of a header that frames are read with."""

    as_json: bool
    token_id: str
    rate: int
    hop: int
    layers: slice
    gain: float | None  #: of all frames; None if each frame has its own


def _read_header(file: IO[bytes]) -> _Header:
    try:
        first = file.read(1)
        as_json = first == b"{"
        header = json.loads(first + file.readline(LARGEST_HEADER)) if as_json else _binary_header(first, file)
        start, stop = map(int, header["layers"])
        rate, hop, gain = int(header["sample_rate"]), int(header["hop_length"]), header["gain"]
        if not 0 <= start < stop <= 256 or min(rate, hop) < 1 or (gain != "frame" and not 0 < gain < math.inf):
            raise ValueError("values out of range")
        gain = None if gain == "frame" else float(gain)
        return _Header(as_json, str(header["token_id"]), rate, hop, slice(start, stop), gain)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error) as error:
        raise TokensError("no token frames: make them with `vocable stream encode`") from error


def _read_frame(file: IO[bytes], header: _Header) -> Encoded | None:
    """Read a frame as an `Encoded` of one frame; return None at the end of the file."""
    try:
        count, hop = header.layers.stop - header.layers.start, header.hop
        frame = _json_frame(file) if header.as_json else _binary_frame(file, count, header.gain is None)
        if frame is None:
            return None
        codes, own_gain, samples = frame
        if len(codes) != count or not 0 < (samples or hop) <= hop or not 0 < own_gain < math.inf:
            raise ValueError("another number of codes or samples")
        return Encoded(
            torch.tensor(codes, device="cpu")[None, :, None],
            torch.tensor([1], device="cpu"),
            torch.tensor([samples or hop], device="cpu"),
            header.layers,
            header.token_id,
            header.rate,
            header.rate / hop,
            torch.tensor([[own_gain if header.gain is None else header.gain]], device="cpu", dtype=torch.float32),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RuntimeError, struct.error) as error:
        raise TokensError("a damaged token frame: encode the recording again") from error


Frame = tuple[list[int], float, int | None]  #: codes, gain, number of samples (None: a whole frame)


def _binary_header(first: bytes, file: IO[bytes]) -> Any:
    if first + file.read(3) != MAGIC:
        raise ValueError("other bytes")
    (size,) = struct.unpack("<I", file.read(4))
    return json.loads(file.read(min(size, LARGEST_HEADER)))


def _binary_frame(file: IO[bytes], layers: int, has_gain: bool) -> Frame | None:
    data = file.read(2)
    if not data:
        return None
    samples = None
    if struct.unpack("<H", data)[0] == SHORT:
        (samples,) = struct.unpack("<H", file.read(2))
        data = file.read(2)
    data += file.read(2 * (layers - 1))
    (step,) = struct.unpack("<h", file.read(2)) if has_gain else (0,)
    return np.frombuffer(data, "<u2").tolist(), 10 ** (step / STEPS / 20), samples


def _json_frame(file: IO[bytes]) -> Frame | None:
    line = file.readline(LARGEST_HEADER)
    if not line:
        return None
    row = json.loads(line)
    codes, samples = [int(code) for code in row["codes"]], row.get("num_samples")
    return codes, float(row.get("gain", 1.0)), None if samples is None else int(samples)
