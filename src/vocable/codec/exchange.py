"""Import codecs from the official package (speechtokenizer 1.0.1), and export codecs to it."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors
import safetensors.torch

from vocable.codec import checkpoint, official, weight_norm
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.network import check_checkpoint
from vocable.files import atomic_path

#: Name of the file of codebook statistics, which only the official trainer and `export_official` use.
STATISTICS = "codebook_statistics.safetensors"


def import_official(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> str:
    """Convert a checkpoint of the official package to a folder of vocable; return the codec's id.

    source: a folder with config.json and one checkpoint, a checkpoint file beside its config.json, or a hub id.
    Raises CheckpointError for anything else, ValueError if `out` is the source.
    """
    path, out = checkpoint.locate(source), Path(out)
    found, statistics = checkpoint.read_official(path)
    check_checkpoint(found)
    _refuse_own_folder(path, out)
    identity = checkpoint.codec_id(found.config, found.tensors)
    with atomic_path(out / STATISTICS) as temporary:
        safetensors.torch.save_file(statistics, temporary, {"codec": identity})
    checkpoint.write(out, found.config, dict(found.tensors))
    return identity


def export_official(name: str | os.PathLike[str] | None, out: str | os.PathLike[str]) -> Path:
    """Convert a `paper` codec to a checkpoint of the official package; return its path.

    Raises CheckpointError if there is no such codec, ValueError if the official package cannot build it.
    """
    source, out = checkpoint.locate(name), Path(out)
    found = checkpoint.read(source)
    check_checkpoint(found)
    _refuse_own_folder(source, out)
    tensors, statistics = dict(found.tensors), {}
    if (source / STATISTICS).is_file():
        try:
            with safetensors.safe_open(source / STATISTICS, "pt") as file:
                identity = checkpoint.codec_id(found.config, tensors)
                if (file.metadata() or {}).get("codec") == identity:  # otherwise they are those of another codec
                    statistics = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{source / STATISTICS}: cannot be read ({error}); import again") from error
    if not found.config.weight_norm:
        tensors = weight_norm.unfold(tensors)
    return official.write(found.config, tensors, statistics, out)


def _refuse_own_folder(source: Path, out: Path) -> None:
    if out.resolve() == (source.parent if source.is_file() else source).resolve():
        raise ValueError(f"{out} is the input itself: name another output")
