"""The models of speech in a folder: config.json, ar.safetensors, nar.safetensors, aligner.safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vocable.codec import checkpoint
from vocable.codec.base import Codec
from vocable.files import atomic_path
from vocable.lm.aligner import Aligner, AlignerConfig
from vocable.lm.ar import AR, ARConfig
from vocable.lm.nar import NAR, NARConfig, codebooks_of
from vocable.lm.recipe import LMRecipe, ModelRecipe
from vocable.lm.text import FRONT_ENDS, SymbolTable, read_text
from vocable.lm.transformer import TransformerConfig

CONFIG = "config.json"


@dataclass
class Models:
    """AR, NAR, and the aligner that timed what they learned from; any may be missing. And what they were made for."""

    token_id: str  #: of the codec; of vocable 0.1, the codec's own id
    front_end: str
    language: str  #: of texts that do not say
    table: SymbolTable
    ar: AR | None = None
    nar: NAR | None = None
    aligner: Aligner | None = None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The models that are there, by name."""
        every = {"ar": self.ar, "nar": self.nar, "aligner": self.aligner}
        return {name: model for name, model in every.items() if model is not None}

    def to(self, device: str) -> Models:
        """Moves the models."""
        for model in self.parts.values():
            model.to(device)
        return self

    def symbols_of(self, text: str, language: str | None = None) -> list[int]:
        """The symbols of a text. Raises ValueError for one that says nothing, or holds what the models do not know."""
        return self.table.encode(read_text(text, language or self.language, self.front_end))

    def align(self, codec: Codec, codes: Tensor, text: str, language: str | None = None) -> list[int]:
        """Which symbol of `text` each frame speaks, PAUSE among them: codes of all layers, int64 [K, T] -> T symbols.

        Raises ValueError for a text that the models cannot read, or that is too long for the clip, and where they have
        no aligner.
        """
        if self.aligner is None:
            raise ValueError("these models have no aligner, which a text needs: leave the text out")
        return self.aligner.align(codec.embed(codes[None])[0].T, self.symbols_of(text, language)).by_frame()


def build_models(recipe: LMRecipe, codec: Codec, table: SymbolTable, language: str) -> Models:
    """Random weights. table and language: of the corpus."""
    ar = nar = None
    if recipe.ar.train:
        transformer = _transformer(recipe.ar)
        dimension = codec.dimension if recipe.ar.all_layers else 0
        ar = AR(
            ARConfig(
                codec.codebook_sizes[0],
                len(table),
                transformer,
                recipe.ar.timed,
                recipe.ar.look_ahead and recipe.ar.timed,
                dimension,
                codec.frame_rate,
            )
        )
    if recipe.nar.train:
        transformer = _transformer(recipe.nar, codec.num_quantizers - 1)
        books = codebooks_of(codec)
        layers, size, dimension = books.shape
        nar = NAR(NARConfig(layers, size, dimension, len(table), transformer), books)
    return Models(codec.token_id, recipe.data.front_end, language, table, ar, nar)


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
        "codec": models.token_id,
        "front_end": models.front_end,
        "language": models.language,
        "symbols": list(models.table.symbols),
    }
    configs = {name: dataclasses.asdict(model.config) for name, model in models.parts.items()}  # type: ignore[call-overload]
    if configs.get("ar", {}).get("frame_rate") == 50.0:  # as in files of 0.1, whose digests stay
        del configs["ar"]["frame_rate"]
    return values | configs


def find_models(name: str | os.PathLike[str] | None = None) -> Path:
    """The folder of `name`, itself a folder or a hub id; None: the shipped models, of an installed models/uslm or a
    clone. Raises ValueError where there are none."""
    if name is not None:
        return checkpoint.locate(name, "ar.safetensors", "nar.safetensors", "aligner.safetensors")
    package = importlib.util.find_spec("vocable_uslm")
    places = [Path(package.origin).parent] if package and package.origin else []
    for place in (*places, Path(__file__).parents[3] / "models" / "uslm"):
        if (place / CONFIG).is_file():
            return place
    raise ValueError(
        "no speech models here: pip install ./models/uslm in a clone, or name a folder of `vocable train lm`"
    )


def load_models(name: str | os.PathLike[str] | None, codec: Codec) -> Models:
    """What `save_models` wrote, in float32 and eval mode. name: of `find_models`. Raises ValueError for a folder that
    holds none, is damaged, or was made for another codec."""
    folder = find_models(name)
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        models = Models(values["codec"], values["front_end"], values["language"], SymbolTable(values["symbols"]))
        codec.check_token_id(models.token_id, "models")
        if models.front_end not in FRONT_ENDS or not isinstance(models.language, str):
            raise ValueError("its front_end or language is none")
        for name in ("ar", "nar", "aligner"):
            if name in values and values[name]["num_symbols"] != len(models.table):
                raise ValueError(f"its {name} is not for the {len(models.table)} symbols")
        if "ar" in values:
            ar = ARConfig(**_config(values["ar"]))
            models.ar = _load(folder / "ar.safetensors", ar.transformer, lambda: AR(ar))
        if "nar" in values:
            nar, books = NARConfig(**_config(values["nar"])), codebooks_of(codec)
            if books.shape != (nar.num_quantizers, nar.codebook_size, nar.dimension):
                raise ValueError(f"its NAR is for codebooks {nar.num_quantizers, nar.codebook_size, nar.dimension}")
            models.nar = _load(folder / "nar.safetensors", nar.transformer, lambda: NAR(nar, books.to("meta")))
            models.nar.set_codebooks(books)
        if "aligner" in values:
            aligner = AlignerConfig(**values["aligner"])
            models.aligner = _load(folder / "aligner.safetensors", None, lambda: Aligner(aligner))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder}: no language models that can be used here ({error})") from error
    return models


Model = TypeVar("Model", bound=nn.Module)


def _load(path: Path, transformer: TransformerConfig | None, build: Callable[[], Model]) -> Model:
    """A model of the file's weights, in float32 and eval mode.

    Before anything is built, the layers that the config asks for are counted in the file, and the model is built
    without memory: a config alone can claim any size. Nor does it draw random numbers.
    """
    with safetensors.safe_open(path, "pt") as file:
        names = set(file.keys())
    if transformer is not None:
        blocks = {name.split(".")[2] for name in names if name.startswith("transformer.blocks.")}
        if len(blocks) != transformer.layers:
            raise ValueError(f"{path.name} holds {len(blocks)} layers, where the config has {transformer.layers}")
    with torch.device("meta"):
        model = build()
    tensors = safetensors.torch.load_file(path)
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    return model.eval()


def _config(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"transformer": TransformerConfig(**values["transformer"])}


def digest(models: Models) -> str:
    """The first ten digits of a SHA-256 of all that speech depends on: weights, sizes, symbols."""
    found = hashlib.sha256(json.dumps(_values(models), sort_keys=True).encode())
    for model in models.parts.values():
        for key, tensor in sorted(model.state_dict().items()):
            found.update(key.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:10]
