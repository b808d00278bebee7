"""Both language models in a folder: config.json, ar.safetensors, nar.safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from vocable.codec import checkpoint
from vocable.codec.model import SpeechTokenizer
from vocable.files import atomic_path
from vocable.lm.ar import AR, ARConfig
from vocable.lm.nar import NAR, NARConfig
from vocable.lm.recipe import LMRecipe, ModelRecipe
from vocable.lm.text import SymbolTable
from vocable.lm.transformer import TransformerConfig

CONFIG = "config.json"


@dataclass
class Models:
    """AR and NAR, either of which may be missing, and what they were made for."""

    codec_id: str
    front_end: str
    language: str  #: of texts that do not say
    table: SymbolTable
    ar: AR | None
    nar: NAR | None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The models that are there, by name."""
        return {name: model for name, model in (("ar", self.ar), ("nar", self.nar)) if model is not None}

    def to(self, device: str) -> Models:
        """Moves the models."""
        for model in self.parts.values():
            model.to(device)
        return self


def build_models(recipe: LMRecipe, codec: SpeechTokenizer, table: SymbolTable) -> Models:
    """Random weights."""
    ar = nar = None
    if recipe.ar.train:
        transformer = _transformer(recipe.ar)
        dimension = codec.config.dimension if recipe.ar.all_layers else 0
        ar = AR(
            ARConfig(
                codec.codebook_size,
                len(table),
                transformer,
                recipe.ar.timed,
                recipe.ar.look_ahead and recipe.ar.timed,
                dimension,
            )
        )
    if recipe.nar.train:
        transformer = _transformer(recipe.nar, codec.num_quantizers - 1)
        sizes = codec.num_quantizers, codec.codebook_size, codec.config.dimension
        nar = NAR(NARConfig(*sizes, len(table), transformer), codec.quantizer.codebooks)
    return Models(codec.id, recipe.data.front_end, recipe.data.language, table, ar, nar)


def _transformer(recipe: ModelRecipe, stages: int = 0) -> TransformerConfig:
    return TransformerConfig(
        recipe.dim, recipe.layers, recipe.heads, recipe.hidden, dropout=recipe.dropout, stages=stages
    )


def save_models(models: Models, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write the files, each one atomically, the config last."""
    folder = Path(folder)
    for name, model in models.parts.items():
        tensors = {key: t.detach().to("cpu", dtype).contiguous() for key, t in model.state_dict().items()}
        with atomic_path(folder / f"{name}.safetensors") as temporary:
            safetensors.torch.save_file(tensors, temporary)
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(_values(models), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _values(models: Models) -> dict[str, Any]:
    """What stands in the config."""
    values = {
        "codec": models.codec_id,
        "front_end": models.front_end,
        "language": models.language,
        "symbols": list(models.table.symbols),
    }
    return values | {name: dataclasses.asdict(model.config) for name, model in models.parts.items()}  # type: ignore[call-overload]


def find_models(name: str | os.PathLike[str] | None = None) -> Path:
    """The folder of `name`, itself a folder or a hub id; None: the shipped models, of an installed vocable-uslm or a
    clone. Raises ValueError where there are none."""
    if name is not None:
        return checkpoint.locate(name, "ar.safetensors", "nar.safetensors")
    package = importlib.util.find_spec("vocable_uslm")
    places = [Path(package.origin).parent] if package and package.origin else []
    for place in (*places, Path(__file__).parents[3] / "models" / "uslm"):
        if (place / CONFIG).is_file():
            return place
    raise ValueError("no speech models here: pip install vocable-uslm, or name a folder of `vocable train lm`")


def load_models(name: str | os.PathLike[str] | None, codec: SpeechTokenizer) -> Models:
    """What `save_models` wrote, in float32 and eval mode. name: of `find_models`. Raises ValueError for a folder that
    holds none, is damaged, or was made for another codec."""
    folder = find_models(name)
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        models = Models(
            values["codec"], values["front_end"], values["language"], SymbolTable(values["symbols"]), None, None
        )
        if models.codec_id != codec.id:
            raise ValueError(f"made for codec {models.codec_id}, not for {codec.id}")
        if "ar" in values:
            models.ar = AR(ARConfig(**_config(values["ar"])))
        if "nar" in values:
            models.nar = NAR(NARConfig(**_config(values["nar"])), codec.quantizer.codebooks)
        for name, model in models.parts.items():
            tensors = safetensors.torch.load_file(folder / f"{name}.safetensors")
            model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
            model.eval()
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder}: no language models that can be used here ({error})") from error
    return models


def _config(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"transformer": TransformerConfig(**values["transformer"])}


def digest(models: Models) -> str:
    """The first ten digits of a SHA-256 of all that speech depends on: weights, sizes, symbols."""
    found = hashlib.sha256(json.dumps(_values(models), sort_keys=True).encode())
    for model in models.parts.values():
        for key, tensor in sorted(model.state_dict().items()):
            found.update(key.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:10]
