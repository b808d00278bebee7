"""PCM on pipes and sockets: 16 bits, little-endian, raw or, as input of a command, in a WAV file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
import soxr

FULL_SCALE = 32_768
CONVERT = "convert it: ffmpeg -i IN -f s16le -ac 1 -ar 16000 - | vocable stream ..."


def read_pcm(file: IO[bytes], rate: int, raw_rate: int | None, samples: int) -> Iterator[np.ndarray]:
    """Yield float32 [n] at `rate` Hz, each block as soon as `samples` samples of the input are there.

    raw_rate: sample rate of raw PCM (None: `rate`). The channels of a WAV file are averaged. Raises ValueError for a
    WAV file that is not 16-bit PCM.
    """
    head = file.read(4)
    channels, found = 1, rate if raw_rate is None else raw_rate
    if head == b"RIFF":
        channels, found = _wav_header(file)
        head = b""
    resampler = None if found == rate else soxr.ResampleStream(found, rate, 1, "float32")
    while True:
        data = head + file.read(2 * channels * samples - len(head))
        head = b""
        last = len(data) < 2 * channels * samples
        data = data[: len(data) // (2 * channels) * 2 * channels]
        block = (np.frombuffer(data, "<i2").reshape(-1, channels).mean(1) / FULL_SCALE).astype(np.float32)
        if resampler is not None:
            block = resampler.resample_chunk(block, last=last)
        yield block
        if last:
            return


def pcm_bytes(waveform: np.ndarray) -> bytes:
    """Return float32 [n] as 16-bit PCM; samples beyond full scale are clipped."""
    rounded = np.clip(np.rint(waveform * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return bytes(rounded.astype("<i2").tobytes())


def pcm_waveform(data: bytes) -> np.ndarray:
    """Return mono 16-bit PCM as float32 [n]. Raises ValueError for an odd number of bytes."""
    return np.frombuffer(data, "<i2").astype(np.float32) / FULL_SCALE


def _wav_header(file: IO[bytes]) -> tuple[int, int]:
    """Read the header of a WAV file after its first four bytes; return the number of channels and the sample rate."""
    found: tuple[int, int] | None = None
    try:
        if file.read(8)[4:] != b"WAVE":
            raise ValueError("no WAVE")
        while True:
            name, size = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                break
            chunk = file.read(size + size % 2)
            if name == b"fmt ":
                kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
                if kind not in (1, 0xFFFE) or bits != 16 or not channels or not rate:
                    raise ValueError("another format")
                found = channels, rate
        if found is None:
            raise ValueError("no format")
    except (ValueError, struct.error) as error:
        raise ValueError(f"standard input is no WAV file of 16-bit PCM; {CONVERT}") from error
    return found
