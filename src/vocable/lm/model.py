"""The language models of speech and their folder: config.json, ar.safetensors, nar.safetensors, aligner.safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import warnings
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
from vocable.lm.front_ends import FRONT_ENDS, read_passage, read_text
from vocable.lm.nar import NAR, NARConfig, codebooks_of
from vocable.lm.passage import Passage
from vocable.lm.pronunciation import read_ipa
from vocable.lm.recipe import LMRecipe, ModelRecipe
from vocable.lm.symbols import SymbolTable
from vocable.lm.transformer import TransformerConfig

CONFIG = "config.json"
#: Files of 0.1 have no frame rate in their configs if it is this one; ours have none either, so digests are the same.
DEFAULT_FRAME_RATE = 50.0


@dataclass
class LanguageModels:
    """AR, NAR and the aligner that timed their corpus, each of them optional; and what they were trained for."""

    token_id: str  #: of the codec; in files of vocable 0.1, the codec's own id
    front_end: str  #: that reads texts: "phonemes" or "characters"
    language: str  #: of the training texts, ISO 639-1
    table: SymbolTable  #: the symbols of the training texts
    ar: AR | None = None
    nar: NAR | None = None
    aligner: Aligner | None = None

    def networks(self) -> dict[str, nn.Module]:
        """Return the models that are present: "ar", "nar" and "aligner"."""
        every = {"ar": self.ar, "nar": self.nar, "aligner": self.aligner}
        return {name: model for name, model in every.items() if model is not None}

    def to(self, device: str | torch.device) -> LanguageModels:
        """Move the models to a device; returns self."""
        for model in self.networks().values():
            model.to(device)
        return self

    def symbols_of(self, text: str, language: str | None = None) -> list[int]:
        """Convert a text to symbol ids. language: ISO 639-1; None: that of the training texts.

        Raises ValueError for a text without letters or digits, and for one without a symbol that the models know.
        """
        return self.table.encode(read_text(text, language or self.language, self.front_end))

    def passage_symbols(self, passage: Passage, language: str | None = None) -> list[int]:
        """Convert a passage to symbol ids; errors are those of `symbols_of`."""
        if not passage.pronounced:
            return self.symbols_of(passage.marked, language)
        return self.table.encode(read_passage(passage, language or self.language, self.front_end))

    def phones_of(self, ipa: str, language: str | None = None) -> list[str]:
        """Convert IPA to phones, as `read_ipa` does. Raises ValueError too if the models read characters."""
        if self.front_end != "phonemes":
            raise ValueError(f"these models read {self.front_end}, and pronunciations need models that read phonemes")
        return read_ipa(ipa, self.table.symbols, language or self.language)

    def warn_of_language(self, language: str | None) -> None:
        """Warn if `language` is not that of the training texts. Regions ("en-GB") are not compared."""
        if language is not None and language.lower().split("-")[0] != self.language.lower().split("-")[0]:
            warnings.warn(
                f"the models were trained on language {self.language!r}, and the text is in {language!r}: "
                "words may be lost or mispronounced",
                stacklevel=3,
            )

    def align(self, codec: Codec, codes: Tensor, text: str, language: str | None = None) -> list[int]:
        """Find the symbol that each frame of a clip speaks, PAUSE among them: codes int64 [K, T] -> T symbols.

        Raises ValueError for a text that the models cannot read or that is too long for the clip, and if there is no
        aligner.
        """
        if self.aligner is None:
            raise ValueError("these models have no aligner, so they cannot use a text: leave it out")
        vectors = codec.embed(codes[None])[0].T
        return self.aligner.align(vectors, self.symbols_of(text, language), codec.frame_rate).by_frame()


def build_models(recipe: LMRecipe, codec: Codec, table: SymbolTable, language: str) -> LanguageModels:
    """Build the models that a recipe trains, with random weights. table, language: of the corpus."""
    ar = nar = None
    if recipe.ar.train:
        ar = AR(
            ARConfig(
                codebook_size=codec.codebook_sizes[0],
                num_symbols=len(table),
                transformer=_transformer(recipe.ar),
                timed=recipe.ar.timed,
                look_ahead=recipe.ar.look_ahead and recipe.ar.timed,
                dimension=codec.dimension if recipe.ar.all_layers else 0,
                frame_rate=codec.frame_rate,
            )
        )
    if recipe.nar.train:
        codebooks = codebooks_of(codec)
        layers, size, dimension = codebooks.shape
        nar = NAR(
            NARConfig(
                num_quantizers=layers,
                codebook_size=size,
                dimension=dimension,
                num_symbols=len(table),
                transformer=_transformer(recipe.nar, stages=layers - 1),
                frame_rate=codec.frame_rate,
            ),
            codebooks,
        )
    return LanguageModels(codec.token_id, recipe.data.front_end, language, table, ar, nar)


def _transformer(recipe: ModelRecipe, stages: int = 0) -> TransformerConfig:
    return TransformerConfig(
        recipe.dim, recipe.layers, recipe.heads, recipe.hidden, dropout=recipe.dropout, stages=stages
    )


def save_models(models: LanguageModels, folder: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> None:
    """Write the models' files, each one atomically, the config last. dtype: of the weights in the files."""
    folder = Path(folder)
    for name, model in models.networks().items():
        tensors = {key: t.detach().to("cpu", dtype).contiguous() for key, t in model.state_dict().items()}
        with atomic_path(folder / f"{name}.safetensors") as temporary:
            safetensors.torch.save_file(tensors, temporary)
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(_config(models), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(models: LanguageModels) -> dict[str, Any]:
    """Return the content of config.json."""
    values = {
        "codec": models.token_id,
        "front_end": models.front_end,
        "language": models.language,
        "symbols": list(models.table.symbols),
    }
    for name, model in models.networks().items():
        config = dataclasses.asdict(model.config)  # type: ignore[call-overload]
        if config.get("frame_rate") == DEFAULT_FRAME_RATE:
            del config["frame_rate"]
        values[name] = config
    return values


def find_models(
    name: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder of language models.

    name: a folder or a hub id; None: the shipped models, of the installed package models/uslm or of a clone. revision,
    cache_dir, local_files_only: as in `load_models`. Raises ValueError if there are none.
    """
    if name is not None:
        return checkpoint.locate(
            name,
            "ar.safetensors",
            "nar.safetensors",
            "aligner.safetensors",
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    package = importlib.util.find_spec("vocable_uslm")
    folders = [Path(package.origin).parent] if package and package.origin else []
    for folder in (*folders, Path(__file__).parents[3] / "models" / "uslm"):
        if (folder / CONFIG).is_file():
            return folder
    raise ValueError(
        "the shipped language models are not installed: run `pip install ./models/uslm` in a clone, "
        "or name a folder of `vocable train lm`"
    )


def load_models(
    name: str | os.PathLike[str] | None,
    codec: Codec,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> LanguageModels:
    """Load what `save_models` wrote, in float32, on the CPU, in eval mode.

    name: as in `find_models`. codec: the one that the models were trained for. revision (branch, tag or commit),
    cache_dir and local_files_only: of a download from the hub, as in huggingface_hub. Raises ValueError for a folder
    without models, damaged models, and models for another codec.
    """
    folder = find_models(name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        table = SymbolTable(values["symbols"])
        models = LanguageModels(values["codec"], values["front_end"], values["language"], table)
        codec.check_token_id(models.token_id, "models")
        if models.front_end not in FRONT_ENDS or not isinstance(models.language, str):
            raise ValueError("its front_end or language is invalid")
        for network in ("ar", "nar", "aligner"):
            if network in values and values[network]["num_symbols"] != len(table):
                raise ValueError(f"its {network} is not for the {len(table)} symbols")
        if "ar" in values:
            ar = ARConfig(**values["ar"])
            _check_frame_rate(ar.frame_rate, codec)
            models.ar = _load(folder / "ar.safetensors", ar.transformer, lambda: AR(ar))
        if "nar" in values:
            nar, codebooks = NARConfig(**values["nar"]), codebooks_of(codec)
            _check_frame_rate(nar.frame_rate, codec)
            if codebooks.shape != (nar.num_quantizers, nar.codebook_size, nar.dimension):
                raise ValueError(f"its NAR is for codebooks {nar.num_quantizers, nar.codebook_size, nar.dimension}")
            models.nar = _load(folder / "nar.safetensors", nar.transformer, lambda: NAR(nar, codebooks.to("meta")))
            models.nar.set_codebooks(codebooks)
        if "aligner" in values:
            aligner = AlignerConfig(**values["aligner"])
            models.aligner = _load(folder / "aligner.safetensors", None, lambda: Aligner(aligner))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder}: no language models that can be used here ({error})") from error
    return models


Model = TypeVar("Model", bound=nn.Module)


def _load(path: Path, transformer: TransformerConfig | None, build: Callable[[], Model]) -> Model:
    """Build a model and load its weights from a file, in float32 and eval mode.

    A config may claim any size, so before the model is built, its number of blocks is compared with the file, and it is
    built on the meta device, without memory and without drawing random numbers.
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


def _check_frame_rate(frame_rate: float, codec: Codec) -> None:
    if frame_rate != codec.frame_rate:
        raise ValueError(f"its models have {frame_rate} frames per second, the codec has {codec.frame_rate}")


def digest(models: LanguageModels) -> str:
    """Return the first ten hex digits of the SHA-256 of everything that speech depends on: config and weights."""
    found = hashlib.sha256(json.dumps(_config(models), sort_keys=True).encode())
    for model in models.networks().values():
        for key, tensor in sorted(model.state_dict().items()):
            found.update(key.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:10]
