"""Saved states of streams: safetensors files whose metadata name the version of the format and the codec."""

from __future__ import annotations

import json
import os

import safetensors
import safetensors.torch
from torch import Tensor

from vocable.files import atomic_path

VERSION = "1"  #: version of the format


def write_state(path: str | os.PathLike[str], state: dict[str, Tensor], codec_id: str) -> None:
    """Write a state, a flat dict of tensors, of a stream of the codec `codec_id`."""
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}
    header = {"version": VERSION, "codec": codec_id}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {"vocable": json.dumps(header)})


def read_state(path: str | os.PathLike[str], codec_id: str) -> dict[str, Tensor]:
    """Read a state. Raises ValueError for another kind of file, another version, or another codec."""
    name = os.fspath(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["vocable"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        version, codec = header["version"], header["codec"]
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{name}: not a saved state of a stream; write one with Stream.save") from error
    if version != VERSION:
        raise ValueError(f"{name}: unknown version {version!r} of the format of states; update vocable")
    if codec != codec_id:
        raise ValueError(f"{name}: a state of the codec {codec}, not of {codec_id}: load the codec {codec}")
    return state
