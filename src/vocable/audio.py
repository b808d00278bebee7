"""Reading, writing and resampling speech. The only file that knows audio formats.

Waveforms are float32, mono, shape [L], full scale at 1.0.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from vocable.files import atomic_path

WRITTEN_AT_ONCE = 65_536  #: samples
#: Files that a folder is searched for; a file named outright may end in anything that libsndfile reads.
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")


class AudioError(ValueError):
    """A file or an array that cannot be used as speech; the message says what to do about it."""


def read(path: str | os.PathLike[str], sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read any file that libsndfile knows as mono float32 [L], and its sample rate in Hz.

    With `sample_rate`, the result is resampled to it. Several channels are averaged, with a warning.
    Raises AudioError for a file that is missing, not audio, empty, cut short, or holds NaN or infinite samples.
    """
    path = Path(path)
    with _open(path) as file:
        rate = file.samplerate
        mono = np.concatenate(list(_blocks(path, file, file.frames)))
    if sample_rate is not None and rate != sample_rate:
        mono, rate = resample(mono, rate, sample_rate), sample_rate
    return mono, rate


@dataclass(frozen=True)
class read_blocks:
    """A file as `read` gives it, resampled to `sample_rate`, in float32 blocks [n] of about so many seconds.

    Every iteration reads the file again. It raises what `read` raises, for a file that is cut short after the last
    whole block only.
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
    """All samples of an open file as mono float32 [n], n at most `size`."""
    rows = 0
    while len(samples := file.read(size, dtype="float32", always_2d=True)):
        if not np.isfinite(samples).all():
            raise AudioError(f"{path}: holds NaN or infinite samples; repair or leave out this file")
        if rows == 0 and file.channels > 1:
            warnings.warn(f"{path}: {file.channels} channels averaged to mono", stacklevel=3)
        rows += len(samples)
        yield samples.mean(axis=1) if file.channels > 1 else np.ascontiguousarray(samples[:, 0])
    # libsndfile reads a WAV with a cut data chunk without complaint, so the header is compared with the file.
    if rows < file.frames or _wav_is_cut(path):
        raise AudioError(f"{path}: the file is cut short; copy or download it again")
    if rows == 0:
        raise AudioError(f"{path}: holds no samples")


def duration(path: str | os.PathLike[str]) -> float:
    """Length in seconds as the file's header has it (MP3 without one is scanned); nothing is decoded.

    Raises AudioError for a file that is missing, not audio, empty, or whose header does not say its length.
    """
    path = Path(path)
    with _open(path) as file:
        frames, rate = file.frames, file.samplerate
    if frames == 0:
        raise AudioError(f"{path}: holds no samples")
    if frames >= _UNKNOWN_LENGTH:
        raise AudioError(f"{path}: the header does not say how long it is; convert it to WAV or FLAC")
    return float(frames / rate)


#: The comment in files of speech that nobody spoke.
MADE_BY_MACHINE = "Synthetic speech, made with vocable"


def write(
    path: str | os.PathLike[str], waveform: Tensor | np.ndarray, sample_rate: int, comment: str | None = None
) -> None:
    """Write a mono waveform [L] in the format that the suffix names (16-bit for WAV and FLAC), atomically. comment: for
    the file's metadata."""
    write_blocks(path, [waveform], sample_rate, comment)


def write_blocks(
    path: str | os.PathLike[str], blocks: Iterable[Tensor | np.ndarray], sample_rate: int, comment: str | None = None
) -> int:
    """Write what comes in blocks [n] as `write` does; returns the number of samples."""
    if Path(path).suffix.lstrip(".").upper() not in soundfile.available_formats():
        raise AudioError(f"{path}: unknown audio format; name the output .wav, .flac or .ogg")
    written = 0
    with atomic_path(path) as temporary, soundfile.SoundFile(temporary, "w", sample_rate, 1) as file:
        if comment is not None:
            file.comment = comment
        for block in blocks:
            samples = block.detach().float().cpu().numpy() if isinstance(block, Tensor) else np.asarray(block)
            if samples.ndim != 1:
                raise AudioError(f"a mono waveform [L] is expected, not shape {list(samples.shape)}")
            if not np.isfinite(samples).all():
                raise AudioError(f"{path}: not written, the waveform holds NaN or infinite samples")
            for start in range(0, len(samples), WRITTEN_AT_ONCE):  # libvorbis puts what it is given on the stack
                file.write(np.clip(samples[start : start + WRITTEN_AT_ONCE], -1.0, 1.0))
            written += len(samples)
    return written


def resample(waveform: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Resample float32 [L] with soxr at its high-quality setting; at least one sample remains."""
    if not isinstance(source_rate, (int, float)) or source_rate <= 0:
        raise AudioError(f"sample_rate is a positive number, not {source_rate!r}")
    if source_rate == target_rate:
        return waveform
    resampled: np.ndarray = soxr.resample(waveform, source_rate, target_rate, quality="HQ")
    return resampled if len(resampled) else np.zeros(1, np.float32)


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular filters on the HTK mel scale, unit area (Slaney's normalisation): float32 [n_fft // 2 + 1, n_mels]."""
    return torch.tensor(_mel_filters(sample_rate, n_fft, n_mels))


@lru_cache(maxsize=32)
def _mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    # An array is cached, not a tensor: one made under inference mode could not be trained with later.
    edges_mel = np.linspace(0.0, 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0), n_mels + 2)
    edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    return filters.astype(np.float32)


#: About what libsndfile gives as the length of a FLAC file that was written into a pipe.
_UNKNOWN_LENGTH = 2**62


@contextlib.contextmanager
def _open(path: Path) -> Iterator[soundfile.SoundFile]:
    if not path.is_file():
        raise AudioError(f"{path}: no such file")
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except AudioError:
        raise
    except (RuntimeError, OSError, TypeError, ValueError, MemoryError) as error:
        raise AudioError(f"{path}: not readable as audio ({_reason(error)}); convert it to WAV or FLAC") from error


def _wav_is_cut(path: Path) -> bool:
    """Whether a RIFF file is shorter than its own header says (which a streamed one does not know)."""
    with open(path, "rb") as file:
        header = file.read(8)
    if header[:4] != b"RIFF":
        return False
    promised = int.from_bytes(header[4:], "little")
    # Some writers leave out the pad byte of the last chunk: allow one.
    # A program that writes into a pipe does not know the length, and promises about the largest there is.
    return 0 < promised < 0x7FFFF000 and path.stat().st_size + 1 < promised + 8


def _reason(error: BaseException) -> str:
    return str(error).rsplit(": ", 1)[-1].rstrip(".")
