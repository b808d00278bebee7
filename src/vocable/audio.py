"""Read, write and resample speech.

Waveforms are float32, mono, shape [L], full scale at 1.0.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from vocable import containers
from vocable.files import atomic_path

READ_AT_ONCE = 1 << 20  #: samples per read, over all channels
WRITTEN_AT_ONCE = 65_536  #: samples per write
#: Range of sample rates in Hz. A header with another rate is damaged.
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
#: Suffixes of the files that are read from a folder. A file given by its path may have any suffix.
SUFFIXES: tuple[str, ...] = (
    ".wav",
    ".wave",
    ".w64",
    ".rf64",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aiff",
    ".aif",
)
SUFFIXES += (".aifc", ".au", ".snd", ".caf", ".sph", ".nist")
#: Suffixes of recordings that libsndfile cannot read. Each one gives an error, so that no speech is lost unnoticed.
SUFFIXES += (".m4a", ".m4b", ".mp4", ".aac", ".webm", ".weba", ".wma", ".amr", ".3gp", ".mka", ".mkv", ".mov", ".avi")
SUFFIXES += (".ac3", ".ape", ".wv")


class AudioError(ValueError):
    """A file or an array that cannot be used as speech. The message says what to do."""


class ChannelsWarning(UserWarning):
    """A warning that the channels of a recording were averaged. The message is the same for all files."""


def read(path: str | os.PathLike[str], sample_rate: float | None = None) -> tuple[np.ndarray, int]:
    """Read a file that libsndfile supports; return mono float32 [L] and the sample rate in Hz.

    sample_rate: the rate to resample to (None: the file's). Several channels are averaged, with a ChannelsWarning.
    Raises AudioError for a file that is missing, not audio, empty or truncated, contains several recordings or NaN or
    infinite samples, or does not fit in memory; OSError for a file without read permission.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            rate = file.samplerate
            blocks = list(_blocks(path, file, max(1, READ_AT_ONCE // file.channels)))
        mono = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if sample_rate is not None and rate != sample_rate:
            mono, rate = resample(mono, rate, sample_rate), sample_rate
    except MemoryError as error:
        raise AudioError(f"{path}: does not fit in memory; cut it into shorter recordings") from error
    return mono, rate


@dataclass(frozen=True)
class read_blocks:
    """The samples of a file at `sample_rate`, mono, as an iterable of float32 blocks [n] of about `seconds` seconds.

    Every iteration reads the file again. Errors are those of `read`; errors in the samples are raised when the samples
    are read.
    """

    path: str | os.PathLike[str]
    sample_rate: int
    seconds: float = 30.0

    def __iter__(self) -> Iterator[np.ndarray]:
        path = Path(self.path)
        with _open(path) as file:
            blocks = _blocks(path, file, max(1, round(self.seconds * file.samplerate)))
            if file.samplerate == self.sample_rate:
                yield from blocks
                return
            stream = soxr.ResampleStream(file.samplerate, self.sample_rate, 1, dtype="float32", quality="HQ")
            made = 0
            for block in blocks:
                resampled = stream.resample_chunk(block)
                made += len(resampled)
                yield resampled
            rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
            yield rest if made + len(rest) else np.zeros(1, np.float32)


def _blocks(path: Path, file: soundfile.SoundFile, size: int) -> Iterator[np.ndarray]:
    """Yield the samples of an open file as mono float32 blocks [n], n at most `size`."""
    rows = 0
    # Reading stops at the end that the header states: libFLAC may read other data after it.
    while len(samples := file.read(min(size, file.frames - rows), dtype="float32", always_2d=True)):
        if not np.isfinite(samples).all():
            raise AudioError(f"{path}: holds NaN or infinite samples; repair or leave out this file")
        if rows == 0 and file.channels > 1:
            warnings.warn(f"{file.channels} channels averaged to mono", ChannelsWarning, stacklevel=3)
        rows += len(samples)
        yield samples.mean(axis=1) if file.channels > 1 else np.ascontiguousarray(samples[:, 0])
    if rows < file.frames < _UNKNOWN_LENGTH:
        raise AudioError(_truncated(path))
    if rows == 0:
        raise AudioError(f"{path}: holds no samples")


def duration(path: str | os.PathLike[str]) -> float:
    """Return the length of a file in seconds, from its header.

    A file is decoded only if its header does not have the length (FLAC that was written to a pipe).
    Raises AudioError for a file that is missing, not audio, empty or truncated.
    """
    path = Path(path)
    with _open(path, thorough=False) as file:
        frames = file.frames
        if frames >= _UNKNOWN_LENGTH:
            frames = 0
            while rows := len(file.read(max(1, READ_AT_ONCE // file.channels), dtype="float32")):
                frames += rows
        rate = file.samplerate
    if frames == 0:
        raise AudioError(f"{path}: holds no samples")
    return float(frames / rate)


#: Comment in the metadata of synthetic speech.
MADE_BY_MACHINE = "Synthetic speech, made with vocable"


def write(
    path: str | os.PathLike[str], waveform: Tensor | np.ndarray, sample_rate: float, comment: str | None = None
) -> None:
    """Write a mono float waveform [L] atomically, in the format of the suffix (16-bit for WAV and FLAC).

    Samples above full scale, 1.0, are clipped. comment: a comment in the file's metadata. Raises AudioError for another
    shape, for integers, and for NaN or infinite samples.
    """
    write_blocks(path, [waveform], sample_rate, comment)


def write_blocks(
    path: str | os.PathLike[str], blocks: Iterable[Tensor | np.ndarray], sample_rate: float, comment: str | None = None
) -> int:
    """Write a waveform in blocks [n] as `write` does; return the number of samples."""
    if Path(path).suffix.lstrip(".").upper() not in soundfile.available_formats():
        raise AudioError(f"{path}: unknown audio format; name the output .wav, .flac or .ogg")
    rate = int(_checked_rate(sample_rate))
    if rate != sample_rate:
        raise AudioError(f"{path}: sample_rate is a whole number, not {sample_rate!r}")
    written = 0
    with atomic_path(path) as temporary, soundfile.SoundFile(_name(temporary), "w", rate, 1) as file:
        if comment is not None:
            file.comment = comment
        for block in blocks:
            if isinstance(block, Tensor):
                block = block.detach().cpu()
                block = (block.float() if block.is_floating_point() else block).numpy()
            samples = np.asarray(block)
            if samples.dtype.kind != "f":
                raise AudioError(f"samples are floats with full scale 1.0, not {samples.dtype} (int16: / 32768)")
            if samples.dtype != np.float64:
                samples = samples.astype(np.float32, copy=False)
            if samples.ndim != 1:
                raise AudioError(f"a mono waveform [L] is expected, not shape {list(samples.shape)}")
            if not np.isfinite(samples).all():
                raise AudioError(f"{path}: not written, the waveform holds NaN or infinite samples")
            for start in range(0, len(samples), WRITTEN_AT_ONCE):  # libvorbis copies its input to the stack
                file.write(np.clip(samples[start : start + WRITTEN_AT_ONCE], -1.0, 1.0))
            written += len(samples)
    return written


def resample(waveform: np.ndarray, source_rate: float, target_rate: float) -> np.ndarray:
    """Resample float32 [L] with soxr at its setting HQ, to at least one sample. Rates are in Hz.

    Raises AudioError for a rate outside of LOWEST_RATE to HIGHEST_RATE.
    """
    source, target = _checked_rate(source_rate), _checked_rate(target_rate)
    if source == target:
        return waveform
    resampled: np.ndarray = soxr.resample(waveform, source, target, quality="HQ")
    return resampled if len(resampled) else np.zeros(1, np.float32)


def _checked_rate(rate: object) -> float:
    if not isinstance(rate, Real) or not LOWEST_RATE <= float(rate) <= HIGHEST_RATE:
        raise AudioError(f"a sample rate is a number of {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {rate!r}")
    return float(rate)


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Return triangular filters of unit area on the HTK mel scale: float32 [n_fft // 2 + 1, n_mels]."""
    return torch.tensor(_mel_filters(sample_rate, n_fft, n_mels))


@lru_cache(maxsize=32)
def _mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    # An array is cached, because a tensor that was created in inference mode cannot be used in training.
    edges_mel = np.linspace(0.0, 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0), n_mels + 2)
    edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    return filters.astype(np.float32)


#: libsndfile returns at least about this length for a FLAC file that was written to a pipe.
_UNKNOWN_LENGTH = 2**62


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read sequentially.

    python-soundfile seeks after every read of a seekable file, which fails at the end of a FLAC file of unknown length.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def _open(path: Path, *, thorough: bool = True) -> Iterator[soundfile.SoundFile]:
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if not path.is_file():
        raise AudioError(f"{path}: is a folder or a device, not a file")
    with contextlib.ExitStack() as stack:
        try:
            readable = stack.enter_context(containers.whole(path, thorough=thorough))
            file = stack.enter_context(_Stream(_name(readable)))
        except containers.CutShort as error:
            raise AudioError(_truncated(path)) from error
        except containers.Unreadable as error:
            hint = "" if error.options is None else f"; convert it: {_conversion(path, error.options)}"
            raise AudioError(f"{path}: {error}{hint}") from error
        except (RuntimeError, TypeError, ValueError) as error:
            reason = f"not readable as audio ({_reason(error)})"
            raise AudioError(f"{path}: {reason}; convert it: {_conversion(path)}") from error
        if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
            raise AudioError(f"{path}: the sample rate in its header, {file.samplerate} Hz, is wrong; correct it")
        try:
            yield file
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: damaged or cut short ({_reason(error)}); copy or download it again") from error


def _name(path: Path) -> Path | bytes:
    """Return a path for python-soundfile, which on POSIX systems cannot encode every name itself."""
    return path if sys.platform == "win32" else os.fsencode(path)


def _truncated(path: Path) -> str:
    return f"{path}: the file is cut short; copy or download it again, or convert the rest: {_conversion(path)}"


def _conversion(path: Path, options: str = "") -> str:
    """Return the ffmpeg command that converts a file to a readable format.

    Paths in it have no folders, because error messages are stored in corpus indices.
    """
    made = path.with_suffix(".wav" if path.suffix.lower() == ".flac" else ".flac")
    return " ".join(["ffmpeg", *options.split(), "-i", shlex.quote(path.name), shlex.quote(made.name)])


def _reason(error: BaseException) -> str:
    return str(error).rsplit(": ", 1)[-1].rstrip(".")
