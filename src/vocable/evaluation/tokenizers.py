"""Tokenizers under test, behind one small protocol, and how the command line names them.

    recording                      the speech itself, in 16 bits a sample
    fast, FOLDER, OWNER/NAME       a SpeechTokenizer: the embedded one, a twin, the official package's. The name fast is
                                   reserved: a folder of that name is ./fast
    encodec:ID  dac:ID  mimi:ID  xcodec:ID     through transformers, by folder or hub id
    units:FOLDER                   k-means units of a teacher's layer, of `vocable semantic units`; decoded by what
                                   `vocable train vocoder` left there
    opus:KBPS  codec2:BPS          no tokens; for what is preserved

`NAME@:1`, `NAME@1:8` take some of the layers.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vocable import audio
from vocable.codec.model import SpeechTokenizer
from vocable.evaluation.metrics.base import SAMPLE_RATE, weights_hash
from vocable.extras import need
from vocable.semantic.teacher import Teacher
from vocable.semantic.units import UnitCodebook
from vocable.semantic.vocoder import Vocoder


class NotAvailable(ValueError):
    """A tokenizer whose weights, or tools, are not to be had here: a table says so, and has no figures for it."""


@dataclass(frozen=True)
class Tokens:
    """A clip as a tokenizer sent it."""

    num_samples: int  #: of the clip, at 16 kHz
    bits: float  #: sent, without entropy coding
    codes: Tensor | None = None  #: int64 [K', T]
    stream: bytes = b""  #: of a codec that has no codes
    gain: float = 1.0  #: by which the clip was multiplied before it was encoded


class Tokenizer(Protocol):
    """Speech [L] at 16 kHz, float32, to tokens and back."""

    name: str  #: as the command line says it
    made_by: str  #: codec id, version, or whatever else decides what comes out
    frame_rate: float  #: frames a second; 0 without frames
    bitrate: float  #: nominal, bits a second
    codebook_size: int  #: of every layer; 0 without codes

    def encode(self, waveform: np.ndarray) -> Tokens: ...

    def decode(self, tokens: Tokens) -> np.ndarray:
        """float32 [L], as long as the clip, or nearly."""

    def embed(self, codes: Tensor) -> Tensor:
        """Vectors of codes, summed over layers: int64 [K', T] -> float32 [T, D]."""


def whole_of(spec: str) -> tuple[str, slice]:
    """The tokenizer with all its layers, and which of them `spec` takes."""
    name, _, layers = spec.partition("@")
    return name, _layers(spec, layers) if layers else slice(None)


def load_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer that `spec` names. Raises NotAvailable where weights or tools are missing, ValueError for a name
    that means nothing."""
    name, _, layers_text = spec.partition("@")
    layers = _layers(spec, layers_text) if layers_text else None
    kind, _, rest = name.partition(":")
    if layers is not None and kind in ("recording", "units", "opus", "codec2"):
        raise ValueError(f"{spec}: {kind} has no layers")
    if name == "recording":
        return Recording()
    if kind in HUB_CODECS:
        return HubCodec(spec, kind, rest, layers)
    if kind == "units":
        return Units(spec, Path(rest))
    if kind in ("opus", "codec2"):
        if not rest.isdigit():
            raise ValueError(f"{spec}: say {kind}:{'6' if kind == 'opus' else '3200'}")
        return Opus(int(rest)) if kind == "opus" else Codec2(int(rest))
    return Ours(spec, name, layers)


def _layers(spec: str, text: str) -> slice:
    try:
        start, stop = (int(bound) if bound else None for bound in text.split(":"))
    except ValueError:
        raise ValueError(f"{spec}: layers are a slice, as in {spec.partition('@')[0]}@:1") from None
    return slice(start or 0, stop)


class Recording:
    """The clip itself: what metrics say where nothing is lost."""

    name, made_by, frame_rate, bitrate, codebook_size = "recording", "recording", 0.0, 16.0 * SAMPLE_RATE, 0

    def encode(self, waveform: np.ndarray) -> Tokens:
        return Tokens(len(waveform), 16.0 * len(waveform), stream=waveform.astype(np.float32).tobytes())

    def decode(self, tokens: Tokens) -> np.ndarray:
        return np.frombuffer(tokens.stream, np.float32)

    def embed(self, codes: Tensor) -> Tensor:
        raise ValueError("a recording has no tokens")


class Ours:
    """A SpeechTokenizer, through some of its layers."""

    def __init__(self, spec: str, name: str, layers: slice | None) -> None:
        from vocable.codec.checkpoint import EMBEDDED, CheckpointError

        try:
            self.model = SpeechTokenizer.from_pretrained(None if name == EMBEDDED else name)
        except CheckpointError as error:
            raise NotAvailable(str(error)) from error
        self.name, self.layers = spec, layers
        self.made_by, self.frame_rate = self.model.id, self.model.frame_rate
        self.codebook_size = self.model.codebook_sizes[0]
        self.bitrate = self.model.bitrate(layers)

    def encode(self, waveform: np.ndarray) -> Tokens:
        encoded = self.model.encode(waveform, sample_rate=SAMPLE_RATE, layers=self.layers)
        gain = 1.0 if encoded.gain is None else float(encoded.gain)
        return Tokens(len(waveform), _bits(encoded.codes, self.codebook_size), encoded.codes[0], gain=gain)

    def decode(self, tokens: Tokens) -> np.ndarray:
        assert tokens.codes is not None
        rate = self.model.sample_rate
        samples = min(-(-tokens.num_samples * rate // SAMPLE_RATE), tokens.codes.shape[1] * self.model.hop_length)
        decoded = self.model.decode(tokens.codes[None], num_samples=[samples], layers=self.layers).waveform[0].numpy()
        return audio.resample(decoded / tokens.gain, rate, SAMPLE_RATE)

    def embed(self, codes: Tensor) -> Tensor:
        return self.model.embed(codes[None], layers=self.layers)[0].T


@dataclass(frozen=True)
class HubKind:
    """What tells transformers' codecs apart."""

    model: str  #: its class
    vectors: Callable[[Any, Tensor], Tensor]  #: what its quantizer makes of codes: [1, K, T] -> [1, D, T]
    frame_rate: Callable[[Any], float]  #: of its config


HUB_CODECS = {
    "encodec": HubKind(
        "EncodecModel",
        lambda model, codes: model.quantizer.decode(codes.transpose(0, 1)),
        lambda config: config.sampling_rate / config.hop_length,
    ),
    "dac": HubKind(
        "DacModel",
        lambda model, codes: model.quantizer.from_codes(codes)[0],
        lambda config: config.sampling_rate / config.hop_length,
    ),
    "mimi": HubKind(
        "MimiModel", lambda model, codes: model.quantizer.decode(codes), lambda config: float(config.frame_rate)
    ),
    "xcodec": HubKind(
        "XcodecModel",
        lambda model, codes: model.quantizer.decode(codes.transpose(0, 1)),
        lambda config: config.sample_rate / config.hop_length,
    ),
}


class HubCodec:
    """A codec of transformers, by folder or hub id. The first K layers are all that its encoders can be asked for."""

    def __init__(self, spec: str, kind: str, name: str, layers: slice | None) -> None:
        transformers = need("transformers", "eval")
        hub = HUB_CODECS[kind]
        self._vectors = hub.vectors
        try:
            self.model = getattr(transformers, hub.model).from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            raise NotAvailable(f"{name}: weights not available; name a folder that holds them") from error
        config = self.model.config
        self.name, self.kind, self.made_by = spec, kind, f"{hub.model} {name} {weights_hash(self.model)}"
        self.rate = int(config.sample_rate if kind == "xcodec" else config.sampling_rate)
        self.codebook_size = int(config.codebook_size)
        probe = self._encode(np.zeros(self.rate, np.float32))
        start, stop, _ = (layers or slice(None)).indices(probe.shape[1])
        if start or stop <= start:
            raise ValueError(f"{spec}: layers must begin with the first, :1 to :{probe.shape[1]}")
        self.num_layers = stop
        self.frame_rate = hub.frame_rate(config)
        self.bitrate = self.frame_rate * stop * math.log2(self.codebook_size)

    @torch.inference_mode()
    def _encode(self, waveform: np.ndarray) -> Tensor:
        """Codes of all layers: [L] at the codec's own rate -> int64 [1, K, T]."""
        batch = torch.from_numpy(np.ascontiguousarray(waveform))[None, None]
        options = {"bandwidth": max(self.model.config.target_bandwidths)} if self.kind in ("encodec", "xcodec") else {}
        codes: Tensor = self.model.encode(batch, **options).audio_codes
        return codes.flatten(0, codes.ndim - 3)[:1] if codes.ndim == 4 else codes

    def encode(self, waveform: np.ndarray) -> Tokens:
        codes = self._encode(audio.resample(waveform, SAMPLE_RATE, self.rate))[:, : self.num_layers]
        return Tokens(len(waveform), _bits(codes, self.codebook_size), codes[0])

    @torch.inference_mode()
    def decode(self, tokens: Tokens) -> np.ndarray:
        assert tokens.codes is not None
        codes = tokens.codes[None]
        if self.kind == "encodec":
            decoded = self.model.decode(codes[None], [None]).audio_values
        else:
            decoded = self.model.decode(audio_codes=codes).audio_values
        return audio.resample(decoded.flatten().numpy(), self.rate, SAMPLE_RATE)

    @torch.inference_mode()
    def embed(self, codes: Tensor) -> Tensor:
        return self._vectors(self.model, codes[None])[0].T


class Units:
    """k-means units of one layer of a teacher, and the vocoder that was trained on them."""

    def __init__(self, spec: str, folder: Path) -> None:
        self.book = UnitCodebook(folder)
        try:
            self.teacher = Teacher(self.book.teacher, self.book.layer)
        except (OSError, ValueError) as error:
            raise NotAvailable(f"{self.book.teacher}: weights not available") from error
        if not Vocoder.is_trained(folder):
            raise NotAvailable(f"{spec} has no vocoder: run `vocable train vocoder` first")
        self.vocoder = Vocoder.load(folder)
        self.name = spec
        self.made_by = f"{self.book.num_units} units {self.book.hash}, vocoder {self.vocoder.hash}"
        self.frame_rate, self.codebook_size = 50.0, self.book.num_units
        self.bitrate = self.frame_rate * math.log2(self.codebook_size)

    def encode(self, waveform: np.ndarray) -> Tokens:
        codes = torch.from_numpy(self.book.nearest(self.teacher([waveform])[0].numpy()))[None]
        return Tokens(len(waveform), _bits(codes, self.codebook_size), codes)

    def decode(self, tokens: Tokens) -> np.ndarray:
        assert tokens.codes is not None
        return self.vocoder.decode(tokens.codes[0])[: tokens.num_samples]

    def embed(self, codes: Tensor) -> Tensor:
        return torch.from_numpy(self.book.centroids)[codes[0]]


class Opus:
    """Opus tuned for speech, with opusenc's defaults for the rest: variable bitrate, packets of 20 ms."""

    frame_rate, codebook_size = 0.0, 0

    def __init__(self, kbps: int) -> None:
        _tools("opus-tools", "opusenc", "opusdec")
        self.name, self.bitrate, self.kbps = f"opus:{kbps}", 1000.0 * kbps, kbps
        self.made_by = _pipe("opusenc --version").decode().splitlines()[0]

    def encode(self, waveform: np.ndarray) -> Tokens:
        raw = f"--raw --raw-rate {SAMPLE_RATE} --raw-chan 1 --raw-bits 16"
        options = f"--quiet --speech --vbr --framesize 20 --bitrate {self.kbps} --serial 0"
        stream = _pipe(f"opusenc {options} {raw} - -", _pcm(waveform))
        return Tokens(len(waveform), 8.0 * _opus_payload(stream), stream=stream)

    def decode(self, tokens: Tokens) -> np.ndarray:
        # opusdec leaves out the samples of the encoder's delay. Floats, because its 16-bit output is dithered.
        return np.frombuffer(_pipe(f"opusdec --quiet --float --rate {SAMPLE_RATE} - -", tokens.stream), "<f4")

    def embed(self, codes: Tensor) -> Tensor:
        raise ValueError("Opus has no tokens")


class Codec2:
    """Codec 2: 8 kHz, parametric.

    Its speech comes out 20 ms late, which c2dec leaves in and which would cost 0.2 of STOI. The constant is taken off:
    STOI peaked there on ten clips of ten, whereas the cross-correlation of the waveforms peaked anywhere from 5 to
    29 ms, since a parametric codec keeps the envelope and not the phase.
    """

    frame_rate, codebook_size = 0.0, 0

    def __init__(self, bps: int) -> None:
        _tools("codec2", "c2enc", "c2dec")
        self.name, self.bitrate, self.bps = f"codec2:{bps}", float(bps), bps
        # Its tools do not tell their version; Debian does.
        query = subprocess.run("dpkg-query -W -f '${Version}' codec2", shell=True, capture_output=True, text=True)
        self.made_by = f"codec2 {query.stdout or 'of unknown version'}"

    def encode(self, waveform: np.ndarray) -> Tokens:
        frame = SAMPLE_RATE // 25
        # One frame more for the delay, and whole ones, because c2enc drops a last frame that is not full.
        padded = np.pad(waveform, (0, frame + -len(waveform) % frame))
        stream = _pipe(f"c2enc {self.bps} - -", _pcm(audio.resample(padded, SAMPLE_RATE, 8000)))
        return Tokens(len(waveform), 8.0 * len(stream), stream=stream)

    def decode(self, tokens: Tokens) -> np.ndarray:
        decoded = np.frombuffer(_pipe(f"c2dec {self.bps} - -", tokens.stream), "<i2").astype(np.float32) / 32768
        return audio.resample(decoded, 8000, SAMPLE_RATE)[SAMPLE_RATE // 50 :]

    def embed(self, codes: Tensor) -> Tensor:
        raise ValueError("Codec 2 has no tokens")


def _bits(codes: Tensor, codebook_size: int) -> float:
    return codes.numel() * math.log2(codebook_size)


def _opus_payload(stream: bytes) -> int:
    """Bytes of the audio packets of an Ogg Opus stream, without Ogg's page headers and the tags."""
    pages, at = [], 0
    while at < len(stream):
        segments = stream[at + 26]
        pages.append(sum(stream[at + 27 : at + 27 + segments]))
        at += 27 + segments + pages[-1]
    return sum(pages[2:])  # OpusHead and OpusTags have a page each


def _pcm(waveform: np.ndarray) -> bytes:
    return bytes((np.clip(waveform, -1.0, 1.0) * 32767).round().astype("<i2").tobytes())


def _pipe(command: str, data: bytes = b"") -> bytes:
    """What a tool writes. Raises ValueError with the tool's own words where it fails."""
    done = subprocess.run(command.split(), input=data, capture_output=True)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ValueError(f"{command.split()[0]} failed with exit code {done.returncode}: {said}")
    return done.stdout


def _tools(package: str, *tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            raise NotAvailable(f"{tool} is not installed: apt-get install {package}")
