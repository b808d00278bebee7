"""Codecs on disk: a folder with config.json and model.safetensors."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch

from vocable.codec.config import CodecConfig
from vocable.files import atomic_path

if TYPE_CHECKING:
    from vocable.codec.model import SpeechTokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class CheckpointError(ValueError):
    """A model that is not there, or whose files are not a codec of this version."""


def load(name: str | os.PathLike[str] | None) -> SpeechTokenizer:
    """Load the embedded model (None), a folder, or a hub id, in float32 on the CPU."""
    from vocable.codec.model import SpeechTokenizer

    folder = _folder(name)
    try:
        config = CodecConfig.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        model = SpeechTokenizer(config)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder}: {CONFIG} and {WEIGHTS} of a vocable codec are needed ({error})") from error
    _strict(model, tensors, folder)
    model.load_state_dict({k: v.float() for k, v in tensors.items()})
    model._id = codec_id(model)
    return model


def save(model: SpeechTokenizer, folder: str | os.PathLike[str], dtype: torch.dtype) -> None:
    """Write the two files, each one atomically, the weights first."""
    folder = Path(folder)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(tensors, temporary)
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8")


def codec_id(model: SpeechTokenizer) -> str:
    """NAME-0123456789: the config's name and 40 bits of the SHA-256 of config and float32 weights."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return f"{model.config.name}-{digest.hexdigest()[:10]}"


def _folder(name: str | os.PathLike[str] | None) -> Path:
    if name is None:
        return Path(str(resources.files("vocable") / "assets" / "fast"))
    if Path(name).is_dir():
        return Path(name)
    text = str(name)
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or Path(name).exists():
        raise CheckpointError(f"{text}: no such folder; give a folder with {CONFIG}, or a hub id like 'owner/name'")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(text, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:  # the hub's own errors are all of these kinds
        reason = type(error).__name__
        raise CheckpointError(f"{text}: neither a folder nor a model that the hub gives ({reason})") from error


def _strict(model: SpeechTokenizer, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise CheckpointError(
            f"{folder / WEIGHTS}: not the weights of its {CONFIG}: {odd} is {found.get(odd, 'missing')} "
            f"in the file, {wanted.get(odd, 'nothing')} in the model"
        )
