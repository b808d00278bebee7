"""Codecs on disk: a folder with config.json and model.safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vocable.codec import official
from vocable.codec.config import CodecConfig
from vocable.codec.official import CONFIG
from vocable.codec.seanet import fold_weight_norm, unfold_weight_norm, unfolded_shapes
from vocable.files import atomic_path
from vocable.terminal import printable

if TYPE_CHECKING:
    from vocable.codec.model import Parts, SpeechTokenizer

WEIGHTS = "model.safetensors"
#: The name of the embedded model, where a name must be given; a folder of that name is given as "./fast".
EMBEDDED = "fast"
#: What only the official trainer's codebooks need, kept for `export_official`.
STATISTICS = "codebook_statistics.safetensors"
#: Fields of a config that do not decide codes: names, the decoder's sizes, and what training alone uses.
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
    """A model that is not there, or whose files are not a codec of this version; the message is one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def load(name: str | os.PathLike[str] | None, parts: Parts = "all", weight_norm: bool = False) -> SpeechTokenizer:
    """Load a codec in float32 on the CPU.

    name: None or "fast" for the embedded model, a folder, an official checkpoint's file, or a hub id.

    From our own files memory is what the model itself takes: the file is mapped once, parts that are not asked for are
    not read, weight norm is folded in place, and the rest stays in the file's pages, which processes share.
    """
    source = locate(name)
    config, tensors = _read(source)
    _strict(config, tensors, source)
    # Both now: later the file may hold another model, or be gone, and what is loaded may be a part, or folded.
    identity, of_tokens = codec_id(config, tensors), token_id(config, tensors)
    left_out = {"all": (), "encoder": ("decoder.",), "decoder": ("encoder.",)}.get(parts, ())
    keys = [key for key in tensors if not key.startswith(left_out)]
    kept = tensors.take(keys) if isinstance(tensors, _File) else {key: tensors[key] for key in keys}
    del tensors
    if config.seanet and config.seanet.weight_norm != weight_norm:
        kept = unfold_weight_norm(kept) if weight_norm else fold_weight_norm(kept)
        config = _with_weight_norm(config, weight_norm)
    model = _shapes(config, parts)
    model.load_state_dict(kept, assign=True)
    model.keep_ids({"id": identity, "token_id": of_tokens})
    return model


def save(model: SpeechTokenizer, folder: str | os.PathLike[str], dtype: torch.dtype) -> None:
    """Write the two files: both appear, or neither."""
    folder = Path(folder)
    _write(folder, model.config, {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()})


def import_official(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> str:
    """Write the official package's checkpoint as a folder of ours, and return the codec's id.

    source: a folder with config.json and one checkpoint, the checkpoint itself beside its config.json, or a hub id.
    """
    found, out = locate(source), Path(out)
    config, tensors, statistics = _read_official(found)
    _strict(config, tensors, found)
    _refuse_own_folder(found, out)
    identity = codec_id(config, tensors)
    with atomic_path(out / STATISTICS) as temporary:
        safetensors.torch.save_file(statistics, temporary, {"codec": identity})
    _write(out, config, tensors)
    return identity


def export_official(name: str | os.PathLike[str] | None, out: str | os.PathLike[str]) -> Path:
    """Write a `paper` codec as the official package loads it; returns the checkpoint's path."""
    source, out = locate(name), Path(out)
    config, read = _read(source)
    _strict(config, read, source)
    _refuse_own_folder(source, out)
    tensors, statistics = dict(read), {}
    if (source / STATISTICS).is_file():
        try:
            with safetensors.safe_open(source / STATISTICS, "pt") as file:
                if (file.metadata() or {}).get("codec") == codec_id(config, tensors):  # else they are an older codec's
                    statistics = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{source / STATISTICS}: cannot be read ({error}); import again") from error
    if config.seanet and not config.seanet.weight_norm:
        tensors = unfold_weight_norm(tensors)
    return official.write(config, tensors, statistics, out)


def codec_id(config: CodecConfig, tensors: Mapping[str, Tensor]) -> str:
    """NAME-0123456789: the config's name and 40 bits of the SHA-256 of config and float32 weights."""
    return f"{config.name}-{_digest(config.to_dict(), tensors, sorted(tensors))}"


def token_id(config: CodecConfig, tensors: Mapping[str, Tensor]) -> str:
    """tokens-0123456789: 40 bits of the SHA-256 of what decides codes.

    That is the encoder, the quantizer, and the fields of the config that they depend on. Codecs that differ in nothing
    but decoder, name and what training uses have the same token id, and each decodes the tokens of the other.
    """
    values = config.to_dict()
    values |= values.pop(config.architecture)
    decisive = {key: value for key, value in values.items() if key not in _NOT_OF_TOKENS}
    keys = [key for key in sorted(tensors) if key.startswith(("encoder.", "quantizer."))]
    return f"tokens-{_digest(decisive, tensors, keys)}"


def _digest(values: dict[str, Any], tensors: Mapping[str, Tensor], keys: Sequence[str]) -> str:
    """40 bits of the SHA-256 of JSON values and of the named tensors in float32."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for key in keys:
        digest.update(key.encode())
        digest.update(tensors[key].detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:10]


def locate(
    name: str | os.PathLike[str] | None,
    *more: str,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model, or the file of an official checkpoint. A hub's is downloaded, with files named `more`.

    name: None or the word "fast" is the embedded model, never a folder of that name; a path is never the embedded one.
    """
    if name is None or name == EMBEDDED:
        return Path(str(resources.files("vocable") / "assets" / "fast"))
    text, path = str(name), Path(name)
    if path.is_file() and not official.may_be_weights(path):
        raise CheckpointError(f"{text}: name the folder that holds it, or the file of an official checkpoint")
    if path.exists():
        return path
    owner, model, *subfolder = text.split("/") if "/" in text else ("", "")
    if not (owner and model and len(subfolder) <= 1) or text.startswith((".", "~")):
        raise CheckpointError(f"{text}: no such folder; give a folder with {CONFIG}, or a hub id like 'owner/name'")
    hub = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    folder = _download(text, f"{owner}/{model}", subfolder, (CONFIG, WEIGHTS, *more), hub)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{text}: no {CONFIG} there; name the subfolder that has one, 'owner/name/subfolder'")
    # Pickles are fetched only where nothing else will do.
    if not (folder / WEIGHTS).is_file() and official.is_official(_json(folder / CONFIG)):
        folder = _download(
            text, f"{owner}/{model}", subfolder, (CONFIG, *(f"*{end}" for end in official.SUFFIXES)), hub
        )
    return folder


def _download(
    text: str, repository: str, subfolder: Sequence[str], patterns: Sequence[str], hub: Mapping[str, Any]
) -> Path:
    """The files of a hub's repository, or of its subfolder, that match; their folder. hub: snapshot_download's."""
    import huggingface_hub

    prefix = "".join(f"{part}/" for part in subfolder)
    try:
        root = huggingface_hub.snapshot_download(
            repository,
            allow_patterns=[prefix + pattern for pattern in patterns],
            ignore_patterns=None if subfolder else "*/*",
            **hub,
        )
    except (OSError, ValueError) as error:  # the hub's own errors are all of these kinds
        reason = type(error).__name__
        raise CheckpointError(f"{text}: neither a folder nor a model that the hub gives ({reason})") from error
    return Path(root, *subfolder)


def _json(path: Path) -> Any:
    """A parsed JSON file. Raises CheckpointError for one that is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: a model's {CONFIG} is needed ({error})") from error


class _File(Mapping[str, Tensor]):
    """The float32 tensors of a safetensors file.

    One that is asked for has a mapping of the file to itself, which goes with it; `take` gives many in one mapping.
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


def _read(source: Path) -> tuple[CodecConfig, Mapping[str, Tensor]]:
    """Config and state dict of a folder, ours or the official package's, or of the latter's checkpoint."""
    if source.is_file():
        return _read_official(source)[:2]
    values = _json(source / CONFIG)
    if official.is_official(values):
        return _read_official(source)[:2]
    try:
        return CodecConfig.from_dict(values), _File(source / WEIGHTS)
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{source}: {CONFIG} and {WEIGHTS} of a vocable codec are needed ({error})") from error


def _read_official(source: Path) -> tuple[CodecConfig, dict[str, Tensor], dict[str, Tensor]]:
    """Config, state dict and codebook statistics of an official folder or checkpoint file."""
    folder = source.parent if source.is_file() else source
    values = _json(folder / CONFIG)
    try:
        if not official.is_official(values):
            raise ValueError("it is not one of the official package's")
        config = official.read_config(values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: an official config is needed ({error})") from error
    try:
        return config, *official.read_weights(source if source.is_file() else official.find_weights(folder), config)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _write(folder: Path, config: CodecConfig, tensors: dict[str, Tensor]) -> None:
    # Both are written before either is renamed, the weights first.
    with atomic_path(folder / CONFIG) as values, atomic_path(folder / WEIGHTS) as weights:
        values.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        safetensors.torch.save_file(tensors, weights)


def _refuse_own_folder(source: Path, out: Path) -> None:
    if out.resolve() == (source.parent if source.is_file() else source).resolve():
        raise ValueError(f"{out} is the input itself: name another output")


def _with_weight_norm(config: CodecConfig, weight_norm: bool) -> CodecConfig:
    if config.seanet is None:
        return config
    return dataclasses.replace(config, seanet=dataclasses.replace(config.seanet, weight_norm=weight_norm))


def _shapes(config: CodecConfig, parts: Parts = "all") -> SpeechTokenizer:
    """A codec without weights: random ones would take seconds, and twice the memory.

    (Some of torch's operators on the meta device import its compiler, which takes a second and 74 MiB. Randn, arange
    and weight norm are among them, so constructors do without them here.)
    """
    from vocable.codec.model import SpeechTokenizer

    with torch.device("meta"):
        return SpeechTokenizer(config, parts)


def _strict(config: CodecConfig, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise CheckpointError unless the tensors are those of the config: no other, none missing, each of its shape, and
    all numbers finite."""
    try:
        wanted = {k: tuple(v.shape) for k, v in _shapes(_with_weight_norm(config, False)).state_dict().items()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{source}: its {CONFIG} is not a codec's ({error})") from error
    if config.seanet and config.seanet.weight_norm:
        wanted = unfolded_shapes(wanted)
    found = tensors.shapes if isinstance(tensors, _File) else {k: tuple(v.shape) for k, v in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise CheckpointError(
            f"{source}: not the weights of its {CONFIG}: {odd} is {found.get(odd, 'missing')} "
            f"in the file, {wanted.get(odd, 'nothing')} in the model"
        )
    for key, tensor in tensors.items():
        # A sum is quick, and finite if all of its terms are, but for one that overflows.
        if not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: {key} holds NaN or infinite numbers; save or download the model again")
