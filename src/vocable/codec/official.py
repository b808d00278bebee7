"""Checkpoints of the official package (speechtokenizer 1.0.1), in and out.

Theirs are a JSON config and a flat state dict of weight-normed tensors; their trainer's hold it under "generator". Ours
hold the same tensors under other names, and what only their trainer's codebooks need (counts and sums) in a file beside
the weights, so that a codec goes out as it came in, every tensor bit-equal.
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
#: How their checkpoints end; AnyGPT's is named ckpt.dev.
SUFFIXES = (".pt", ".pth", ".dev", ".ckpt", ".bin")


def may_be_weights(file: Path) -> bool:
    """Whether a file may be a checkpoint of theirs, by its name."""
    return file.suffix in SUFFIXES or file.name.startswith("SpeechTokenizerTrainer_")


def is_official(config: object) -> bool:
    """Whether a parsed config.json is one of theirs."""
    return isinstance(config, dict) and "n_filters" in config


def read_config(values: dict[str, Any]) -> CodecConfig:
    """Their config as ours. Keys of their trainer are passed over. Raises ValueError for one that is missing."""
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
        raise ValueError(f"an official config has a key {error}, this one has not") from error


def write_config(config: CodecConfig) -> dict[str, Any]:
    """Our config as theirs. Raises ValueError for what their package cannot build."""
    c = config.seanet
    if c is None:
        raise ValueError(f"the official package cannot build a codec of architecture {config.architecture!r}")
    if c.kernel_size != 7:
        raise ValueError(f"the official package has kernels of 7 at both ends, not {c.kernel_size}")
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
    """The checkpoint in a folder. Raises ValueError when there is none, or more than one."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in SUFFIXES)
    found = found or sorted(folder.glob("SpeechTokenizerTrainer_*"))  # their trainer's own
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise ValueError(f"{folder}: one official checkpoint is expected beside {CONFIG}, found {names}; name the file")
    return found[0]


def read_weights(path: Path, config: CodecConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Their checkpoint as our state dict (weight norm kept), and their codebooks' statistics.

    Strict: raises ValueError for a missing, unknown or misshapen tensor. Pickled objects other than tensors and plain
    containers are refused (weights_only).
    """
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none can make the unpickler raise anything
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
            raise ValueError(f"{path}: no tensor {key}, which its {CONFIG} asks for") from error
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
                raise ValueError(f"{path}: {key} has shape {found}, its {CONFIG} asks for {list(shape)}")
        # One by one, each let go once copied: the two largest would else be in memory twice.
        statistics[what] = stack = torch.empty(config.num_quantizers, *shape, device="cpu")
        for k in range(config.num_quantizers):
            stack[k] = tensors.pop(0)
    ours["quantizer.codebooks"] = statistics.pop("embed")
    if config.dimension == config.semantic_dimension:  # theirs has no map then
        ours["transform.weight"], ours["transform.bias"] = (
            torch.eye(config.dimension, device="cpu"),
            torch.zeros(config.dimension, device="cpu"),
        )
    if theirs:
        raise ValueError(f"{path}: {len(theirs)} tensors that its {CONFIG} has no place for, {min(theirs)} among them")
    if not bool(statistics["inited"].all()):
        raise ValueError(f"{path}: its codebooks were never filled; every code would be 0")
    return ours, statistics


def write(config: CodecConfig, ours: dict[str, Tensor], statistics: dict[str, Tensor], folder: Path) -> Path:
    """Write config.json and SpeechTokenizer.pt as the official package loads them; returns the latter's path.

    ours: a state dict with weight norm. statistics: as `read_weights` gives them; empty for a codec of another origin.
    """
    values = write_config(config)
    if config.dimension == config.semantic_dimension and not torch.equal(
        ours["transform.weight"], torch.eye(config.dimension, device="cpu")
    ):
        raise ValueError("the official package has no map to a teacher of as many channels as the latents have")
    if not statistics:  # as if each entry had been used once a step, were they to train on
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
    """Pairs of names, ours and theirs, of every tensor but those of the codebooks.

    Theirs number the layers through, activations included: a stage is its residual blocks, an activation and a
    convolution, the decoder's the other way round.
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
