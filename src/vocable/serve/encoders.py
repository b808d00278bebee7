"""Speech as bytes: streams whose length is unknown when they begin, and whole files."""

from __future__ import annotations

import io
import struct
from typing import Any, Literal, Protocol

import numpy as np
import soundfile
import soxr

from vocable.audio import MADE_BY_MACHINE, WRITTEN_AT_ONCE

AudioFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]
PCM_RATE = 24_000  #: Hz, of raw samples, as in OpenAI's interface; other formats have the codec's rate in their header
MEDIA_TYPES: dict[AudioFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": f"audio/pcm;rate={PCM_RATE}",
}
#: Options of soundfile. MP3 has a constant bitrate (64 kbit/s), from which players compute the length of a stream.
_OPTIONS: dict[str, dict[str, Any]] = {
    "mp3": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.6},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "wav": {"format": "WAV", "subtype": "PCM_16"},
}
_UNKNOWN_SIZE = 0xFFFFFFFF


class AudioStream(Protocol):
    """An encoder of one stream, which has one header."""

    def write(self, waveform: np.ndarray) -> bytes:
        """Encode float32 [n]; return the bytes that are ready."""

    def close(self) -> bytes:
        """End the stream; return its last bytes."""


def open_stream(format: AudioFormat, sample_rate: int) -> AudioStream:
    """Return an encoder of speech at `sample_rate`."""
    if format == "pcm":
        return _Samples(sample_rate, PCM_RATE)
    return (
        _Samples(sample_rate, sample_rate, _wav_header(sample_rate)) if format == "wav" else _Coded(format, sample_rate)
    )


def encode_file(waveform: np.ndarray, sample_rate: int, format: AudioFormat) -> bytes:
    """Encode a whole waveform, float32 [L], as a file whose header has its length."""
    if format == "pcm":
        stream = open_stream(format, sample_rate)
        return stream.write(waveform) + stream.close()
    file = io.BytesIO()
    with _open(file, format, sample_rate) as writer:
        _write(writer, waveform)
    return file.getvalue()


def _open(file: io.IOBase, format: str, sample_rate: int) -> soundfile.SoundFile:
    writer = soundfile.SoundFile(file, "w", sample_rate, 1, **_OPTIONS[format])
    writer.comment = MADE_BY_MACHINE
    return writer


def _write(writer: soundfile.SoundFile, waveform: np.ndarray) -> None:
    for start in range(0, len(waveform), WRITTEN_AT_ONCE):  # libsndfile keeps what it is given on the stack
        writer.write(np.clip(waveform[start : start + WRITTEN_AT_ONCE], -1.0, 1.0))


class _Samples:
    """16-bit samples, little endian, behind a header."""

    def __init__(self, sample_rate: int, target_rate: int, header: bytes = b"") -> None:
        self._header = header
        self._resampler = None
        if sample_rate != target_rate:
            self._resampler = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality="HQ")

    def write(self, waveform: np.ndarray, last: bool = False) -> bytes:
        if self._resampler is not None:
            waveform = self._resampler.resample_chunk(waveform, last=last)
        header, self._header = self._header, b""
        samples = np.rint(np.clip(waveform, -1.0, 1.0) * 32767).astype("<i2")
        return header + bytes(samples.tobytes())

    def close(self) -> bytes:
        return self.write(np.zeros(0, np.float32), last=True)


def _wav_header(sample_rate: int) -> bytes:
    """Return the header of a WAV stream of unknown length: 16-bit samples, mono."""
    samples = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return b"RIFF" + struct.pack("<I", _UNKNOWN_SIZE) + b"WAVE" + samples + b"data" + struct.pack("<I", _UNKNOWN_SIZE)


class _Coded:
    """A stream that libsndfile encodes."""

    def __init__(self, format: str, sample_rate: int) -> None:
        self._sink = _Sink()
        self._writer = _open(self._sink, format, sample_rate)

    def write(self, waveform: np.ndarray) -> bytes:
        _write(self._writer, waveform)
        return self._sink.taken()

    def close(self) -> bytes:
        self._writer.close()
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """A file whose bytes are taken as they are written. At its end libsndfile corrects the header; that is ignored."""

    def __init__(self) -> None:
        super().__init__()
        self._ready = bytearray()
        self._position = self._end = 0

    def taken(self) -> bytes:
        """Return the bytes since the last call."""
        taken, self._ready = bytes(self._ready), bytearray()
        return taken

    def write(self, data: Any) -> int:
        if self._position == self._end:
            self._ready += data
            self._end += len(data)
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        return 0
