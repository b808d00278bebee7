"""Read and write codecs: folders with config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from vocable.codec import official
from vocable.codec.config import CodecConfig
from vocable.codec.identity import weights_digest
from vocable.codec.official import CONFIG
from vocable.files import atomic_path
from vocable.terminal import printable

WEIGHTS = "model.safetensors"
#: The name of the embedded model. A folder of that name is written as "./fast".
EMBEDDED = "fast"
#: Fields of a config that codes do not depend on: the name, the decoder's sizes, and fields that only training uses.
_NOT_OF_TOKENS = {
    "name",
    "semantic_dimension",
    "decoder_frame_blocks",
    "decoder_fine_blocks",
    "decoder_look_ahead",
    "synthesis_n_fft",
    "phase_noise",
}


class CheckpointError(ValueError):
    """A model that does not exist, or whose files are not a codec of this version; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True)
class Checkpoint:
    """The config and the state dict of a codec on disk."""

    source: Path  #: the folder, or the file of an official checkpoint
    config: CodecConfig
    tensors: Mapping[str, Tensor]  #: float32, by name; those of a safetensors file are read on access

    def ids(self) -> dict[str, str]:
        """Return the codec's "id" and "token_id"."""
        return {"id": codec_id(self.config, self.tensors), "token_id": token_id(self.config, self.tensors)}

    def take(self, left_out: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Read the tensors whose names do not begin with one of the prefixes `left_out`.

        The tensors use one memory map of the file, so processes that load the same codec share its memory.
        """
        names = [name for name in self.tensors if not name.startswith(left_out)]
        return self.tensors.take(names) if isinstance(self.tensors, _File) else {n: self.tensors[n] for n in names}

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise CheckpointError unless the tensors have exactly these names and shapes and are finite."""
        tensors = self.tensors
        found = tensors.shapes if isinstance(tensors, _File) else {k: tuple(v.shape) for k, v in tensors.items()}
        if shapes != found:
            odd = sorted(set(shapes.items()) ^ set(found.items()))[0][0]
            raise CheckpointError(
                f"{self.source}: not the weights of its {CONFIG}: {odd} is {found.get(odd, 'missing')} "
                f"in the file, {shapes.get(odd, 'nothing')} in the model"
            )
        for name, tensor in tensors.items():
            # The sum is a quick test. It is finite if all values are, unless it overflows.
            if not tensor.sum().isfinite() and not tensor.isfinite().all():
                raise CheckpointError(
                    f"{self.source}: {name} contains NaN or infinite values; save or download the model again"
                )


def read(source: Path) -> Checkpoint:
    """Read a codec: a folder of vocable or of the official package, or the file of an official checkpoint.

    source: a path from `locate`. Raises CheckpointError for anything else.
    """
    if source.is_file() or official.is_official(values := _json(source / CONFIG)):
        return read_official(source)[0]
    try:
        return Checkpoint(source, CodecConfig.from_dict(values), _File(source / WEIGHTS))
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{source}: {CONFIG} and {WEIGHTS} of a vocable codec are needed ({error})") from error


def read_official(source: Path) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Read a checkpoint of the official package; return it and the statistics of its codebooks."""
    folder = source.parent if source.is_file() else source
    values = _json(folder / CONFIG)
    try:
        if not official.is_official(values):
            raise ValueError("this is not one")
        config = official.read_config(values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: an official config is needed ({error})") from error
    try:
        weights = source if source.is_file() else official.find_weights(folder)
        tensors, statistics = official.read_weights(weights, config)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return Checkpoint(source, config, tensors), statistics


def write(folder: str | os.PathLike[str], config: CodecConfig, tensors: dict[str, Tensor]) -> None:
    """Write config.json and model.safetensors, both or neither."""
    # Both are written before either is renamed, the weights first.
    with atomic_path(Path(folder, CONFIG)) as values, atomic_path(Path(folder, WEIGHTS)) as weights:
        values.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        safetensors.torch.save_file(tensors, weights)


def codec_id(config: CodecConfig, tensors: Mapping[str, Tensor]) -> str:
    """Return NAME-0123456789: the config's name and 40 bits of the SHA-256 of config and float32 weights."""
    return f"{config.name}-{weights_digest(tensors, config.to_dict())}"


def token_id(config: CodecConfig, tensors: Mapping[str, Tensor]) -> str:
    """Return tokens-0123456789: 40 bits of the SHA-256 of everything that codes depend on.

    This is the encoder, the quantizer, and the config fields that they use. Codecs that differ only in decoder, name or
    training fields have the same token id and can decode each other's tokens.
    """
    values = config.to_dict()
    values |= values.pop(config.architecture)
    decisive = {key: value for key, value in values.items() if key not in _NOT_OF_TOKENS}
    names = [name for name in tensors if name.startswith(("encoder.", "quantizer."))]
    return f"tokens-{weights_digest(tensors, decisive, names)}"


def locate(
    name: str | os.PathLike[str] | None,
    *more: str,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder of a model, or the file of an official checkpoint; download it if it is on the hub.

    name: a path or a hub id; None and the string "fast" mean the embedded model. more: names of other files to
    download. revision: a branch, tag or commit of the hub's repository. cache_dir: the folder of downloads (None: the
    hub's own cache). local_files_only: use only files in the cache. Raises CheckpointError if there is no such model.
    """
    if name is None or name == EMBEDDED:
        return Path(str(resources.files("vocable") / "assets" / "fast"))
    text, path = str(name), Path(name)
    if path.is_file() and not official.may_be_weights(path):
        raise CheckpointError(f"{text}: not a checkpoint; name its folder, or the file of an official checkpoint")
    if path.exists():
        return path
    owner, model, *subfolder = text.split("/") if "/" in text else ("", "")
    if not (owner and model and len(subfolder) <= 1) or text.startswith((".", "~")):
        raise CheckpointError(f"{text}: no such folder; give a folder with {CONFIG}, or a hub id like 'owner/name'")
    options = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}

    def download(patterns: Sequence[str]) -> Path:
        return _download(f"{owner}/{model}", subfolder, patterns, options)

    folder = download((CONFIG, WEIGHTS, *more))
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{text}: no {CONFIG} there; name the subfolder that has one, 'owner/name/subfolder'")
    # Pickles are downloaded only if the repository has no safetensors file.
    if not (folder / WEIGHTS).is_file() and official.is_official(_json(folder / CONFIG)):
        folder = download((CONFIG, *(f"*{end}" for end in official.SUFFIXES)))
    return folder


def _download(repository: str, subfolder: Sequence[str], patterns: Sequence[str], options: dict[str, Any]) -> Path:
    """Download the files of a hub repository, or of its subfolder, that match `patterns`; return their folder."""
    import huggingface_hub

    prefix = "".join(f"{part}/" for part in subfolder)
    try:
        root = huggingface_hub.snapshot_download(
            repository,
            allow_patterns=[prefix + pattern for pattern in patterns],
            ignore_patterns=None if subfolder else "*/*",
            **options,
        )
    except (OSError, ValueError) as error:  # the base classes of huggingface_hub's errors
        reason, name = type(error).__name__, "/".join((repository, *subfolder))
        raise CheckpointError(f"{name}: no such folder, and no such model on the hub ({reason})") from error
    return Path(root, *subfolder)


def _json(path: Path) -> Any:
    """Parse a JSON file. Raises CheckpointError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: a model's {CONFIG} is needed ({error})") from error


class _File(Mapping[str, Tensor]):
    """Mapping of names to the tensors of a safetensors file, as float32.

    Access by name opens a memory map of the file for one tensor; `take` reads several tensors through one map.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with safetensors.safe_open(path, "pt") as file:
            self.shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def __getitem__(self, key: str) -> Tensor:
        return self.take([key])[key]

    def take(self, keys: Collection[str]) -> dict[str, Tensor]:
        with safetensors.safe_open(self.path, "pt") as file:
            return {key: file.get_tensor(key).float() for key in keys}

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
