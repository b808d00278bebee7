"""Read and write checkpoints of the official package (speechtokenizer 1.0.1).

An official checkpoint is a JSON config and a state dict with weight norm; checkpoints of the official trainer hold the
state dict under the key "generator". vocable uses the same tensors under other names. The counts and sums that only the
official trainer's codebooks need are stored in a separate file, so an exported codec equals the imported one bit for
bit. In this file, `theirs` are names and tensors of the official package, `ours` those of vocable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocable.codec.config import CodecConfig, SEANetConfig
from vocable.codec.weight_norm import DIRECTION, GAIN
from vocable.files import atomic_path

CONFIG, WEIGHTS = "config.json", "SpeechTokenizer.pt"
#: Suffixes of official checkpoints; that of AnyGPT is named ckpt.dev.
SUFFIXES = (".pt", ".pth", ".dev", ".ckpt", ".bin")


def may_be_weights(file: Path) -> bool:
    """Return whether a file's name is that of an official checkpoint."""
    return file.suffix in SUFFIXES or file.name.startswith("SpeechTokenizerTrainer_")


def is_official(config: object) -> bool:
    """Return whether a parsed config.json is that of an official checkpoint."""
    return isinstance(config, dict) and "n_filters" in config


def read_config(values: dict[str, Any]) -> CodecConfig:
    """Convert an official config. Keys of the trainer are ignored. Raises ValueError for a missing key."""
    try:
        seanet = SEANetConfig(
            n_filters=values["n_filters"],
            strides=tuple(values["strides"]),
            residual_kernel_size=values["residual_kernel_size"],
            residual_layers=values["n_residual_layers"],
            dilation_base=values["dilation_base"],
            lstm_layers=values["lstm_layers"],
            bidirectional=values["bidirectional"],
            activation=values["activation"],
        )
        return CodecConfig(
            name="paper",
            architecture="seanet",
            sample_rate=values["sample_rate"],
            hop_length=math.prod(seanet.strides),
            num_quantizers=values["n_q"],
            codebook_size=values["codebook_size"],
            dimension=values["dimension"],
            semantic_dimension=values["semantic_dimension"],
            seanet=seanet,
        )
    except KeyError as error:
        raise ValueError(f"the key {error} is missing") from error


def write_config(config: CodecConfig) -> dict[str, Any]:
    """Convert a config to an official one. Raises ValueError if the official package cannot build the codec."""
    c = config.seanet
    if c is None:
        raise ValueError(f"the official package cannot build a codec of architecture {config.architecture!r}")
    if c.kernel_size != 7:
        raise ValueError(f"the official package needs kernel_size 7, not {c.kernel_size}")
    return {
        "n_filters": c.n_filters,
        "strides": list(c.strides),
        "dimension": config.dimension,
        "semantic_dimension": config.semantic_dimension,
        "bidirectional": c.bidirectional,
        "dilation_base": c.dilation_base,
        "residual_kernel_size": c.residual_kernel_size,
        "n_residual_layers": c.residual_layers,
        "lstm_layers": c.lstm_layers,
        "activation": c.activation,
        "codebook_size": config.codebook_size,
        "n_q": config.num_quantizers,
        "sample_rate": config.sample_rate,
    }


def find_weights(folder: Path) -> Path:
    """Return the path of the checkpoint in a folder. Raises ValueError if there is none or more than one."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in SUFFIXES)
    found = found or sorted(folder.glob("SpeechTokenizerTrainer_*"))  # checkpoints of the official trainer
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise ValueError(f"{folder}: one official checkpoint is expected beside {CONFIG}, found {names}; name the file")
    return found[0]


def read_weights(path: Path, config: CodecConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read an official checkpoint; return a state dict with weight norm, and the statistics of the codebooks.

    Raises ValueError for a missing, unknown or wrongly shaped tensor, and for pickled objects other than tensors and
    plain containers (`weights_only`).
    """
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler can raise any exception for an invalid file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint of tensors ({reason})") from error
    if isinstance(theirs, dict) and "generator" in theirs:
        theirs = theirs["generator"]
    if not isinstance(theirs, dict) or not all(isinstance(k, str) and _is_float(v) for k, v in theirs.items()):
        raise ValueError(f"{path}: not a state dict, nor a trainer's checkpoint with one under 'generator'")
    theirs = {k.replace(GAIN, "weight_g").replace(DIRECTION, "weight_v"): v.float() for k, v in theirs.items()}

    def take(key: str) -> Tensor:
        try:
            tensor: Tensor = theirs.pop(key)
        except KeyError as error:
            raise ValueError(f"{path}: the tensor {key} of its {CONFIG} is missing") from error
        return tensor

    ours = {}
    for name, key in _names(config):
        tensor = take(key)
        ours[name] = tensor.flatten() if name.endswith(".alpha") else tensor
    statistics = {}
    book = (config.codebook_size, config.dimension)
    for what, shape in {"inited": (1,), "cluster_size": book[:1], "embed_avg": book, "embed": book}.items():
        keys = [f"quantizer.vq.layers.{k}._codebook.{what}" for k in range(config.num_quantizers)]
        tensors = [take(key) for key in keys]
        for key, found in zip(keys, (list(tensor.shape) for tensor in tensors), strict=True):
            if found != list(shape):
                raise ValueError(f"{path}: {key} has shape {found}, not {list(shape)} as in its {CONFIG}")
        # Each tensor is freed once it is copied, because the two largest need much memory.
        statistics[what] = stack = torch.empty(config.num_quantizers, *shape, device="cpu")
        for k in range(config.num_quantizers):
            stack[k] = tensors.pop(0)
    ours["quantizer.codebooks"] = statistics.pop("embed")
    if config.dimension == config.semantic_dimension:  # the official model has no map in this case
        ours["transform.weight"], ours["transform.bias"] = (
            torch.eye(config.dimension, device="cpu"),
            torch.zeros(config.dimension, device="cpu"),
        )
    if theirs:
        raise ValueError(f"{path}: {len(theirs)} tensors do not belong to its {CONFIG}, {min(theirs)} for example")
    if not bool(statistics["inited"].all()):
        raise ValueError(f"{path}: its codebooks are not initialized; every code would be 0")
    return ours, statistics


def write(config: CodecConfig, ours: dict[str, Tensor], statistics: dict[str, Tensor], folder: Path) -> Path:
    """Write config.json and SpeechTokenizer.pt for the official package; return the path of SpeechTokenizer.pt.

    ours: a state dict with weight norm. statistics: from `read_weights`; empty for a codec that was not imported.
    """
    values = write_config(config)
    if config.dimension == config.semantic_dimension and not torch.equal(
        ours["transform.weight"], torch.eye(config.dimension, device="cpu")
    ):
        raise ValueError("the official package has no map to a teacher whose channels are as many as the latents'")
    if not statistics:  # the statistics of entries that are each used once per step, for further training
        books = ours["quantizer.codebooks"]
        counts = torch.ones(books.shape[:2], device="cpu")
        statistics = {
            "inited": torch.ones(len(books), 1, device="cpu"),
            "cluster_size": counts,
            "embed_avg": books * counts[..., None],
        }
    theirs = {}
    for name, key in _names(config):
        theirs[key] = ours[name].view(1, -1, 1) if name.endswith(".alpha") else ours[name]
    for k in range(config.num_quantizers):
        codebook = {what: tensor[k] for what, tensor in statistics.items()} | {"embed": ours["quantizer.codebooks"][k]}
        theirs |= {f"quantizer.vq.layers.{k}._codebook.{what}": t.clone() for what, t in codebook.items()}
    # Both are written before either is renamed, the weights first.
    with atomic_path(folder / CONFIG) as written, atomic_path(folder / WEIGHTS) as weights:
        written.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        torch.save(theirs, weights)
    return folder / WEIGHTS


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _names(config: CodecConfig) -> Iterator[tuple[str, str]]:
    """Yield the names, ours and theirs, of all tensors except the codebooks.

    The official package numbers all modules consecutively, activations included. A stage of the encoder is residual
    blocks, an activation and a convolution; a stage of the decoder is an activation, a convolution and residual blocks.
    """
    c = config.seanet
    assert c is not None
    length, stages = c.residual_layers + 2, len(c.strides)
    layers = range(c.lstm_layers)

    yield from _conv("encoder.first", "encoder.model.0.conv.conv")
    for i in range(stages):
        ours, start = f"encoder.stages.{i}", 1 + i * length
        for j in range(c.residual_layers):
            yield from _residual(c, f"{ours}.residuals.{j}", f"encoder.model.{start + j}")
        yield from _activation(c, f"{ours}.down", f"encoder.model.{start + length - 2}")
        yield from _conv(f"{ours}.down", f"encoder.model.{start + length - 1}.conv.conv")
    end = 1 + stages * length
    for layer in layers:
        for ours, theirs in (("forward_lstm.", ""), ("backward_lstm.", "_reverse")) if c.bidirectional else (("", ""),):
            yield from _lstm(f"encoder.recurrence.layers.{layer}.{ours}", f"encoder.model.{end}", f"{layer}{theirs}")
    yield from _activation(c, "encoder.last", f"encoder.model.{end + 1}")
    yield from _conv("encoder.last", f"encoder.model.{end + 2}.conv.conv")

    yield from _conv("decoder.first", "decoder.model.0.conv.conv")
    for layer in layers:
        yield from _lstm(f"decoder.recurrence.layers.{layer}.", "decoder.model.1", str(layer))
    for i in range(stages):
        ours, start = f"decoder.stages.{i}", 2 + i * length
        yield from _activation(c, f"{ours}.up", f"decoder.model.{start}")
        yield from _conv(f"{ours}.up", f"decoder.model.{start + 1}.convtr.convtr")
        for j in range(c.residual_layers):
            yield from _residual(c, f"{ours}.residuals.{j}", f"decoder.model.{start + 2 + j}")
    end = 2 + stages * length
    yield from _activation(c, "decoder.last", f"decoder.model.{end}")
    yield from _conv("decoder.last", f"decoder.model.{end + 1}.conv.conv")

    if config.dimension != config.semantic_dimension:
        yield from ((f"transform.{what}", f"transform.{what}") for what in ("weight", "bias"))


def _conv(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.bias", f"{theirs}.bias"
    yield f"{ours}.{GAIN}", f"{theirs}.weight_g"
    yield f"{ours}.{DIRECTION}", f"{theirs}.weight_v"


def _activation(c: SEANetConfig, ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    if c.activation == "Snake":
        yield f"{ours}.activation.alpha", f"{theirs}.alpha"


def _residual(c: SEANetConfig, ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield from _conv(f"{ours}.shortcut", f"{theirs}.shortcut.conv.conv")
    for i, part in ((0, "squeeze"), (2, "expand")):
        yield from _activation(c, f"{ours}.{part}", f"{theirs}.block.{i}")
        yield from _conv(f"{ours}.{part}", f"{theirs}.block.{i + 1}.conv.conv")


def _lstm(ours: str, theirs: str, layer: str) -> Iterator[tuple[str, str]]:
    for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        yield f"{ours}{what}_l0", f"{theirs}.lstm.{what}_l{layer}"
