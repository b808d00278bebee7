"""`Encoded` and `Decoded`, the results of encode and decode; reading and writing token files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vocable.files import atomic_path
from vocable.terminal import printable

#: Version of the file format. Version "1" stored the codec's id instead of the token id, and no gains.
VERSION = "2"
SUFFIXES = (".safetensors", ".npz", ".jsonl")
#: Keys of a header with one value per clip.
_PER_CLIP = ("num_frames", "num_samples", "gain")
LARGEST_CODE = 2**16 - 1
#: Largest header of an .npz file in bytes, uncompressed: enough for a million clips.
LARGEST_HEADER = 2**28


class TokensError(ValueError):
    """A token file, or codes, that cannot be used. The message is one line that says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch of clips as codes. Compare `codes`: `==` is identity."""

    codes: Tensor  #: int64 [B, K', T], one row for each layer of `layers`; 0 after a clip's end
    num_frames: Tensor  #: int64 [B]
    num_samples: Tensor  #: int64 [B]
    layers: slice  #: the codec's layers whose codes the rows are
    token_id: str  #: token id of the codec; in a file of version 1, the codec's id
    sample_rate: int  #: in Hz
    frame_rate: float  #: in Hz
    #: float32 [B], the factor that each clip was multiplied by before it was encoded, or [B, T], the factors at the end
    #: of the frames of a stream that follows the level; None: the codec has no level
    gain: Tensor | None = None

    @property
    def semantic(self) -> Tensor:
        """The codes of RVQ-1: int64 [B, 1, T]. Raises TokensError if `layers` does not begin with it."""
        if self.layers.start != 0:
            raise TokensError(f"these codes begin at layer {self.layers.start}: they hold no semantic codes")
        return self.codes[:, :1]

    @property
    def acoustic(self) -> Tensor:
        """The codes of the layers above RVQ-1: int64 [B, K' - 1, T]."""
        return self.codes[:, 1:] if self.layers.start == 0 else self.codes

    def __len__(self) -> int:
        return len(self.codes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a token file in the format of the suffix, .safetensors, .npz or .jsonl; codes are stored as uint16.

        Raises TokensError for another suffix, and for codes that are not 0 to 65,535.
        """
        writer = _by_suffix(path, {".safetensors": _save_safetensors, ".npz": _save_npz, ".jsonl": _save_jsonl})
        with atomic_path(path) as temporary:
            writer(temporary, self._header(), self._stored())

    def to_bytes(self) -> bytes:
        """Return the bytes of a .safetensors file, which are always the same for the same codes."""
        header = {"vocable": json.dumps(self._header())}
        return safetensors.numpy.save({"codes": np.ascontiguousarray(self._stored())}, header)

    def clips(self) -> list[Encoded]:
        """Return each clip as an `Encoded` without padding."""
        return [
            dataclasses.replace(
                self,
                codes=self.codes[i : i + 1, :, :frames],
                num_frames=self.num_frames[i : i + 1],
                num_samples=self.num_samples[i : i + 1],
                gain=None if self.gain is None else self.gain[i : i + 1, slice(frames) if self.gain.ndim == 2 else ...],
            )
            for i, frames in enumerate(self.num_frames.tolist())
        ]

    @classmethod
    def joined(cls, blocks: Sequence[Encoded]) -> Encoded:
        """Return consecutive blocks of the same recordings, the results of a stream, as one batch."""
        clips = [[block.clips()[i] for block in blocks] for i in range(len(blocks[0]))]
        codes = [torch.cat([part.codes[0] for part in parts], 1).T for parts in clips]
        gain = blocks[0].gain
        if gain is not None and gain.ndim == 2:
            gains = [torch.cat([part.gain[0] for part in parts if part.gain is not None]) for parts in clips]
            gain = pad_sequence(gains, batch_first=True, padding_value=1.0)
        return dataclasses.replace(
            blocks[0],
            codes=pad_sequence(codes, batch_first=True).transpose(1, 2),
            num_frames=torch.stack([block.num_frames for block in blocks]).sum(0),
            num_samples=torch.stack([block.num_samples for block in blocks]).sum(0),
            gain=gain,
        )

    def _header(self) -> dict[str, Any]:
        header = {
            "version": VERSION,
            "token_id": self.token_id,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "layers": [self.layers.start, self.layers.stop],
            "num_frames": self.num_frames.tolist(),
            "num_samples": self.num_samples.tolist(),
        }
        return header if self.gain is None else header | {"gain": self.gain.tolist()}

    def _stored(self) -> np.ndarray:
        low, high = int(self.codes.min()), int(self.codes.max())
        if low < 0 or high > LARGEST_CODE:
            raise TokensError(f"token files keep codes of 0 to {LARGEST_CODE}, found {low} to {high}")
        return self.codes.cpu().numpy().astype(np.uint16)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Encoded:
        """Read a token file. Raises TokensError if it cannot be read."""
        reader = _by_suffix(path, {".safetensors": _load_safetensors, ".npz": _load_npz, ".jsonl": _load_jsonl})
        if not Path(path).is_file():
            raise TokensError(f"{path}: no such file")
        return cls._read(str(path), lambda: reader(Path(path)))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "these bytes") -> Encoded:
        """Parse the bytes of a .safetensors file. Raises TokensError for invalid bytes; `name` begins the message."""
        return cls._read(name, lambda: _parse_safetensors(data))

    @classmethod
    def _read(cls, name: str, parse: Callable[[], tuple[dict[str, Any], np.ndarray]]) -> Encoded:
        try:
            header, codes = parse()
            version = header["version"]
            if version not in ("1", VERSION):
                raise TokensError(f"{name}: unknown version {version!r} of the token format; update vocable")
            start, stop = _whole_numbers(header["layers"])
            encoded = cls(
                codes=torch.from_numpy(_integers(codes)),
                num_frames=torch.tensor(_whole_numbers(header["num_frames"]), device="cpu"),
                num_samples=torch.tensor(_whole_numbers(header["num_samples"]), device="cpu"),
                layers=slice(start, stop),
                token_id=str(header["codec_id" if version == "1" else "token_id"]),
                sample_rate=int(header["sample_rate"]),
                frame_rate=float(header["frame_rate"]),
                gain=torch.tensor(header["gain"], dtype=torch.float32, device="cpu") if "gain" in header else None,
            )
            if not encoded.token_id.isprintable():
                raise ValueError("no codec's id")
            if encoded.sample_rate < 1 or not 0 < encoded.frame_rate < math.inf:
                raise ValueError("no codec's rates")
        except TokensError:
            raise
        except MemoryError as error:
            raise TokensError(f"{name}: its codes do not fit into memory; keep fewer clips in a file") from error
        except Exception as error:  # the parsers raise many kinds of exceptions for broken files
            raise TokensError(f"{name}: not a token file of vocable; make one with `vocable encode`") from error
        if not encoded._fits():
            raise TokensError(f"{name}: the codes do not fit the header; encode the audio again")
        return encoded

    def _fits(self) -> bool:
        """Return whether codes, lengths, layers and gains are consistent."""
        shape = self.codes.shape
        if len(shape) != 3 or 0 in shape or not self.num_frames.shape == self.num_samples.shape == shape[:1]:
            return False
        if self.gain is not None and not (
            self.gain.shape in (shape[:1], (shape[0], shape[2]))
            and bool(((self.gain > 0) & self.gain.isfinite()).all())
        ):
            return False
        frames, samples = self.num_frames, self.num_samples
        longest = frames.double() * (self.sample_rate / self.frame_rate)
        return (
            0 <= self.layers.start < self.layers.stop == self.layers.start + shape[1]
            and 1 <= int(frames.min()) <= int(frames.max()) <= shape[2]
            and int(samples.min()) >= 1
            and bool((samples <= longest + 0.5).all())
        )


@dataclass(frozen=True, eq=False)
class Decoded:
    """A batch of clips as speech. Compare `waveform`: `==` is identity."""

    waveform: Tensor  #: float32 [B, L], 0 after a clip's end
    num_samples: Tensor  #: int64 [B]

    def __len__(self) -> int:
        return len(self.waveform)

    def clips(self) -> list[Tensor]:
        """Return each clip without padding: a list of float32 [L]."""
        return [w[:n] for w, n in zip(self.waveform, self.num_samples.tolist(), strict=True)]


def _whole_numbers(values: object) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError("no list of whole numbers")
    return values


def _integers(codes: np.ndarray) -> np.ndarray:
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes of {codes.dtype}")
    return np.ascontiguousarray(codes, np.int64)


def _by_suffix(path: str | os.PathLike[str], table: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    suffix = Path(path).suffix.lower()
    if suffix not in table:
        raise TokensError(f"{path}: a token file ends in {', '.join(SUFFIXES)}")
    return table[suffix]


def _save_safetensors(path: Path, header: dict[str, Any], codes: np.ndarray) -> None:
    safetensors.numpy.save_file({"codes": np.ascontiguousarray(codes)}, path, {"vocable": json.dumps(header)})


def _load_safetensors(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["vocable"]), file.get_tensor("codes")


def _parse_safetensors(data: bytes) -> tuple[dict[str, Any], np.ndarray]:
    # The library reads metadata only from files. The format is the size of the header in 8 bytes, then the JSON header.
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    return json.loads(metadata["vocable"]), safetensors.numpy.load(data)["codes"]


def _save_npz(path: Path, header: dict[str, Any], codes: np.ndarray) -> None:
    with open(path, "wb") as file:  # numpy may add a suffix to a path
        np.savez_compressed(file, codes=codes, header=np.array(json.dumps(header)))


def _load_npz(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        # A small file may decompress to any size, so the sizes in the archive are first compared with the header.
        sizes = {member.filename: member.file_size for member in file.zip.infolist()}
        if sizes["header.npy"] > LARGEST_HEADER:
            raise ValueError("a header too long")
        header = json.loads(str(file["header"]))
        start, stop = header["layers"]
        values = (stop - start) * len(header["num_frames"]) * max(header["num_frames"])
        if sizes["codes.npy"] > 8 * values + 1024:
            raise TokensError(f"{path}: the codes do not fit the header; encode the audio again")
        return header, file["codes"]


def _save_jsonl(path: Path, header: dict[str, Any], codes: np.ndarray) -> None:
    """Write one line per clip: its header and its codes [K', T] without padding."""
    with open(path, "w", encoding="utf-8") as file:
        for i, clip in enumerate(codes):
            frames = header["num_frames"][i]
            line = header | {key: header[key][i] for key in _PER_CLIP if key in header}
            if isinstance(line.get("gain"), list):
                line["gain"] = line["gain"][:frames]
            file.write(json.dumps(line | {"codes": clip[:, :frames].tolist()}) + "\n")


def _load_jsonl(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    rows: Sequence[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    origins = [
        [row.get(key) for key in ("version", "codec_id", "token_id", "layers")] + ["gain" in row] for row in rows
    ]
    if any(origin != origins[0] for origin in origins):
        raise TokensError(f"{path}: the lines come from different codecs or layers; decode them separately")
    header = rows[0] | {key: [row[key] for row in rows] for key in _PER_CLIP if key in rows[0]}
    clips = [_integers(np.array(row["codes"])) for row in rows]
    if any(clip.shape != (len(clips[0]), row["num_frames"]) for clip, row in zip(clips, rows, strict=True)):
        raise TokensError(f"{path}: the codes do not fit the header; encode the audio again")
    codes = np.zeros((len(clips), len(clips[0]), max(header["num_frames"])), np.int64)
    for i, clip in enumerate(clips):
        codes[i, :, : clip.shape[1]] = clip
        if "gain" in header and isinstance(header["gain"][i], list):
            header["gain"][i] += [1.0] * (codes.shape[2] - clip.shape[1])
    return header, codes
