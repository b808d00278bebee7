"""`Encoded` and `Decoded`, the results of encode and decode, and the files of codes."""

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

from vocable.files import atomic_path
from vocable.terminal import printable

#: Of the files. Version "1" named the codec's id where "2" names the token id, and had no gains.
VERSION = "2"
SUFFIXES = (".safetensors", ".npz", ".jsonl")
#: Keys of a header that hold a list, one value a clip.
_PER_CLIP = ("num_frames", "num_samples", "gain")
LARGEST_CODE = 2**16 - 1
#: Bytes of the header of an .npz file, unpacked: that of a million clips.
LARGEST_HEADER = 2**28


class TokensError(ValueError):
    """A token file, or codes, that cannot be used; the message, one printable line, says what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch of clips as codes. Compare `codes`: two of them are equal only if they are the same object."""

    codes: Tensor  #: int64 [B, K', T], the rows that `layers` selects; 0 behind a clip's end
    num_frames: Tensor  #: int64 [B]
    num_samples: Tensor  #: int64 [B]
    layers: slice  #: which of the codec's layers the rows are
    token_id: str  #: of the codec that made them; in a file of version 1, the codec's own id
    sample_rate: int  #: Hz
    frame_rate: float  #: Hz
    #: float32 [B], by which each clip was multiplied before it was encoded; None: the codec takes clips as they are
    gain: Tensor | None = None

    @property
    def semantic(self) -> Tensor:
        """RVQ-1: int64 [B, 1, T]."""
        if self.layers.start != 0:
            raise TokensError(f"these codes begin at layer {self.layers.start}: they hold no semantic row")
        return self.codes[:, :1]

    @property
    def acoustic(self) -> Tensor:
        """The rows behind RVQ-1: int64 [B, K' - 1, T]."""
        return self.codes[:, 1:] if self.layers.start == 0 else self.codes

    def __len__(self) -> int:
        return len(self.codes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write .safetensors, .npz or .jsonl, by the suffix; codes are uint16 (int in JSON).

        Raises TokensError for another suffix, and for codes that are not 0 to 65,535.
        """
        writer = _by_suffix(path, {".safetensors": _save_safetensors, ".npz": _save_npz, ".jsonl": _save_jsonl})
        with atomic_path(path) as temporary:
            writer(temporary, self._header(), self._stored())

    def to_bytes(self) -> bytes:
        """What `save` writes into a .safetensors file; the same codes give the same bytes."""
        header = {"vocable": json.dumps(self._header())}
        return safetensors.numpy.save({"codes": np.ascontiguousarray(self._stored())}, header)

    def clips(self) -> list[Encoded]:
        """Each clip by itself, without padding."""
        return [
            dataclasses.replace(
                self,
                codes=self.codes[i : i + 1, :, :frames],
                num_frames=self.num_frames[i : i + 1],
                num_samples=self.num_samples[i : i + 1],
                gain=None if self.gain is None else self.gain[i : i + 1],
            )
            for i, frames in enumerate(self.num_frames.tolist())
        ]

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
        """Read what `save` wrote. Raises TokensError for anything else."""
        reader = _by_suffix(path, {".safetensors": _load_safetensors, ".npz": _load_npz, ".jsonl": _load_jsonl})
        if not Path(path).is_file():
            raise TokensError(f"{path}: no such file")
        return cls._read(str(path), lambda: reader(Path(path)))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "these bytes") -> Encoded:
        """Read what `to_bytes` made. Raises TokensError, which says `name`, for anything else."""
        return cls._read(name, lambda: _parse_safetensors(data))

    @classmethod
    def _read(cls, name: str, parse: Callable[[], tuple[dict[str, Any], np.ndarray]]) -> Encoded:
        try:
            header, codes = parse()
            version = header["version"]
            if version not in ("1", VERSION):
                raise TokensError(f"{name}: token format {version!r} is unknown here; update vocable")
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
        except Exception as error:  # whatever a broken file makes a parser say
            raise TokensError(f"{name}: not a token file of vocable; make one with `vocable encode`") from error
        if not encoded._fits():
            raise TokensError(f"{name}: the codes do not fit the header; encode the audio again")
        return encoded

    def _fits(self) -> bool:
        """Whether codes, lengths, layers and gains go together, as `encode` leaves them."""
        shape = self.codes.shape
        if len(shape) != 3 or 0 in shape or not self.num_frames.shape == self.num_samples.shape == shape[:1]:
            return False
        if self.gain is not None and not (
            self.gain.shape == shape[:1] and bool(((self.gain > 0) & self.gain.isfinite()).all())
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
    """A batch of clips as speech. Compare `waveform`: two of them are equal only if they are the same object."""

    waveform: Tensor  #: float32 [B, L], 0 behind a clip's end
    num_samples: Tensor  #: int64 [B]

    def __len__(self) -> int:
        return len(self.waveform)

    def clips(self) -> list[Tensor]:
        """Each clip at its own length: a list of float32 [L]."""
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
    # The library reads metadata from files alone: a length, then so much JSON.
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    return json.loads(metadata["vocable"]), safetensors.numpy.load(data)["codes"]


def _save_npz(path: Path, header: dict[str, Any], codes: np.ndarray) -> None:
    with open(path, "wb") as file:  # given a name, numpy may add a suffix to it
        np.savez_compressed(file, codes=codes, header=np.array(json.dumps(header)))


def _load_npz(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        # A small file may unpack to any size: what the archive says of that is held against the header first.
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
    """One clip a line: its header and its codes [K', T], without the padding."""
    with open(path, "w", encoding="utf-8") as file:
        for i, clip in enumerate(codes):
            frames = header["num_frames"][i]
            line = header | {key: header[key][i] for key in _PER_CLIP if key in header}
            file.write(json.dumps(line | {"codes": clip[:, :frames].tolist()}) + "\n")


def _load_jsonl(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    rows: Sequence[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    origins = [
        [row.get(key) for key in ("version", "codec_id", "token_id", "layers")] + ["gain" in row] for row in rows
    ]
    if any(origin != origins[0] for origin in origins):
        raise TokensError(f"{path}: the lines come from different codecs or layers; decode them apart")
    header = rows[0] | {key: [row[key] for row in rows] for key in _PER_CLIP if key in rows[0]}
    clips = [_integers(np.array(row["codes"])) for row in rows]
    if any(clip.shape != (len(clips[0]), row["num_frames"]) for clip, row in zip(clips, rows, strict=True)):
        raise TokensError(f"{path}: the codes do not fit the header; encode the audio again")
    codes = np.zeros((len(clips), len(clips[0]), max(header["num_frames"])), np.int64)
    for i, clip in enumerate(clips):
        codes[i, :, : clip.shape[1]] = clip
    return header, codes
