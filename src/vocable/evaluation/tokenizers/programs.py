"""Opus and Codec 2, through their command-line programs: codecs without tokens, to compare speech quality with."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np

from vocable import audio
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.tokenizers.base import NotAvailable, Tokenizer, Tokens


class Opus(Tokenizer):
    """Opus tuned for speech, with packets of 20 ms and opusenc's other defaults, such as variable bitrate."""

    def __init__(self, kbps: int) -> None:
        """kbps: the nominal bitrate in kbit/s."""
        _check_programs("opus-tools", "opusenc", "opusdec")
        self.name, self.bitrate, self.kbps = f"opus:{kbps}", 1000.0 * kbps, kbps
        self.made_by = pipe("opusenc --version").decode().splitlines()[0]

    def encode(self, waveform: np.ndarray) -> Tokens:
        """Encode one clip: float32 [L] at 16 kHz."""
        raw = f"--raw --raw-rate {SAMPLE_RATE} --raw-chan 1 --raw-bits 16"
        options = f"--quiet --speech --vbr --framesize 20 --bitrate {self.kbps} --serial 0"
        stream = pipe(f"opusenc {options} {raw} - -", _pcm(waveform))
        return Tokens(len(waveform), 8.0 * _opus_payload(stream), stream=stream)

    def decode(self, tokens: Tokens) -> np.ndarray:
        """Decode to float32 [L] at 16 kHz. opusdec removes the samples of the encoder's delay."""
        # The 16-bit output of opusdec is dithered, the floats are not.
        return np.frombuffer(pipe(f"opusdec --quiet --float --rate {SAMPLE_RATE} - -", tokens.stream), "<f4")


class Codec2(Tokenizer):
    """Codec 2, a parametric codec at 8 kHz.

    Its output is 20 ms late, which c2dec does not correct and which would cost 0.2 of STOI. This constant delay is
    removed here: on ten clips of ten, STOI had its maximum at this delay. The cross-correlation of the waveforms had
    its maximum anywhere from 5 to 29 ms, because a parametric codec preserves the envelope and not the phase.
    """

    def __init__(self, bps: int) -> None:
        """bps: the bitrate in bit/s."""
        _check_programs("codec2", "c2enc", "c2dec")
        self.name, self.bitrate, self.bps = f"codec2:{bps}", float(bps), bps
        # The programs do not print their version; Debian's package manager knows it.
        query = subprocess.run("dpkg-query -W -f '${Version}' codec2", shell=True, capture_output=True, text=True)
        self.made_by = f"codec2 {query.stdout or 'of unknown version'}"

    def encode(self, waveform: np.ndarray) -> Tokens:
        """Encode one clip: float32 [L] at 16 kHz."""
        frame = SAMPLE_RATE // 25
        # One more frame for the delay; and padded to whole frames, because c2enc drops an incomplete last frame.
        padded = np.pad(waveform, (0, frame + -len(waveform) % frame))
        stream = pipe(f"c2enc {self.bps} - -", _pcm(audio.resample(padded, SAMPLE_RATE, 8000)))
        return Tokens(len(waveform), 8.0 * len(stream), stream=stream)

    def decode(self, tokens: Tokens) -> np.ndarray:
        """Decode to float32 [L] at 16 kHz, without the delay of 20 ms."""
        decoded = np.frombuffer(pipe(f"c2dec {self.bps} - -", tokens.stream), "<i2").astype(np.float32) / 32768
        return audio.resample(decoded, 8000, SAMPLE_RATE)[SAMPLE_RATE // 50 :]


def pipe(command: str, data: bytes = b"") -> bytes:
    """Run a program on `data` and return its output. Raises ValueError with the program's message if it fails."""
    done = subprocess.run(command.split(), input=data, capture_output=True)
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())
        raise ValueError(f"{command.split()[0]} failed with exit code {done.returncode}: {message}")
    return done.stdout


def _check_programs(package: str, *programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise NotAvailable(f"{program} is not installed: apt-get install {package}")


def _opus_payload(stream: bytes) -> int:
    """Return the bytes of the audio packets of an Ogg Opus stream, without Ogg's page headers and the tags."""
    pages, at = [], 0
    while at < len(stream):
        segments = stream[at + 26]
        pages.append(sum(stream[at + 27 : at + 27 + segments]))
        at += 27 + segments + pages[-1]
    return sum(pages[2:])  # OpusHead and OpusTags have a page each


def _pcm(waveform: np.ndarray) -> bytes:
    return bytes((np.clip(waveform, -1.0, 1.0) * 32767).round().astype("<i2").tobytes())
