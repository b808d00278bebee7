"""Tiny models, and the real recordings where they are at hand."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from vocable.cli.main import main
from vocable.codec.config import CodecConfig, SEANetConfig, SpectralConfig
from vocable.codec.model import SpeechTokenizer
from vocable.codec.rvq import ResidualVectorQuantizer
from vocable.lm.aligner import Aligner, AlignerConfig
from vocable.lm.ar import AR, ARConfig
from vocable.lm.model import LanguageModels, save_models
from vocable.lm.nar import NAR, NARConfig
from vocable.lm.symbols import SymbolTable
from vocable.lm.transformer import TransformerConfig
from vocable.lm.uslm import USLM
from vocable.training.codebooks import CodebookEMA

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "examples" / "speech.flac"

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def run_command(*arguments: object) -> int:
    """`vocable ARGUMENTS` in this process; returns its exit code and leaves signals as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def tiny_config(**changes: object) -> CodecConfig:
    blocks = {f"{side}_{rate}_blocks": 1 for side in ("encoder", "decoder") for rate in ("fine", "frame")}
    spectral = SpectralConfig(fine_dim=16, frame_dim=24, expansion=2, **blocks)
    fields = {"name": "tiny", "codebook_size": 32, "dimension": 8, "semantic_dimension": 12, "spectral": spectral}
    return CodecConfig(**{**fields, **changes})


@pytest.fixture
def quantizer() -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(4, 32, 8)


def make_tiny(seed: int = 0, **changes: object) -> SpeechTokenizer:
    torch.manual_seed(seed)
    return SpeechTokenizer(tiny_config(**changes)).eval()


def tiny_paper_config(**changes: object) -> CodecConfig:
    """The paper's architecture with 4 filters."""
    seanet = {"n_filters": 4} | {key: changes.pop(key) for key in list(changes) if hasattr(SEANetConfig(), key)}
    fields = {"name": "tiny-paper", "codebook_size": 32, "dimension": 16, "semantic_dimension": 12}
    return CodecConfig(**{**fields, **changes}, architecture="seanet", seanet=SEANetConfig(**seanet))


def make_tiny_paper(seed: int = 0, **changes: object) -> SpeechTokenizer:
    torch.manual_seed(seed)
    tokenizer = SpeechTokenizer(tiny_paper_config(**changes)).eval()
    tell_apart(tokenizer, 0.2 * torch.randn(4, 32_000))
    return tokenizer


def tell_apart(tokenizer: SpeechTokenizer, waveforms: torch.Tensor) -> None:
    """Make random weights of the paper's architecture tell sounds apart: as they come, they shrink a sound until random
    biases drown it, and all latents are near ties. Then k-means on latents."""
    for name, parameter in tokenizer.named_parameters():
        parameter.data *= 0.05 if "bias" in name else 2 if name.endswith("original0") else 1
    latents = tokenizer.latents(waveforms).transpose(1, 2).flatten(0, 1)
    CodebookEMA(tokenizer.quantizer).kmeans_start(latents, 5, torch.Generator().manual_seed(0))


def near_ties(tokenizer: SpeechTokenizer, clip: torch.Tensor, layer: int) -> torch.Tensor:
    """Frames whose nearest and second-nearest entry of `layer` differ by less than 1e-4 relative."""
    latents = tokenizer.latents(clip)[0].T
    residual = latents
    if layer:
        codes = tokenizer.encode(clip, layers=slice(0, layer)).codes
        residual = latents - tokenizer.embed(codes, layers=slice(0, layer))[0].T
    distance = torch.cdist(residual[None], tokenizer.quantizer.codebooks[layer][None])[0].square()
    nearest = distance.topk(2, largest=False).values
    return (nearest[:, 1] - nearest[:, 0]) / nearest[:, 1] < 1e-4


def differing_frames(tokenizer: SpeechTokenizer, clip: torch.Tensor, alone: torch.Tensor, other: torch.Tensor) -> int:
    """Frames whose codes differ after a near tie; a difference without one is a failure.

    Behind the first layer that differs, the residuals differ, so later rows may too.
    """
    differ = (alone != other).any(0)
    for frame in differ.nonzero().flatten().tolist():
        layer = int((alone[:, frame] != other[:, frame]).nonzero()[0])
        assert near_ties(tokenizer, clip, layer)[frame], f"frame {frame} differs in layer {layer} without a near tie"
    return int(differ.sum())


@pytest.fixture(scope="session")
def tiny() -> SpeechTokenizer:
    return make_tiny()


@pytest.fixture(scope="session")
def tiny_paper() -> SpeechTokenizer:
    return make_tiny_paper()


@pytest.fixture(scope="session")
def tiny_folder(tiny: SpeechTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fast() -> SpeechTokenizer:
    """The embedded model."""
    return SpeechTokenizer.from_pretrained()


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("VOCABLE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "eval.jsonl").is_file():
        pytest.skip("the real recordings are not here: set VOCABLE_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def real_clips(shared: Path) -> list[Path]:
    """Eval recordings, spread over corpora and speakers."""
    rows = [json.loads(line) for line in (shared / "data" / "eval.jsonl").read_text().splitlines()]
    return [shared / "data" / row["path"] for row in rows]


LETTERS = [*"abcdefghijklmnopqrstuvwxyz", ".", ","]


def make_tiny_uslm(timed: bool = True) -> USLM:
    """A tiny codec of four layers and language models that read characters, all of random weights."""
    codec = make_tiny(num_quantizers=4)
    codec.quantizer.codebooks.copy_(torch.randn(4, 32, 8, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    sizes = {"dim": 16, "layers": 1, "heads": 2, "hidden": 16}
    ar = AR(ARConfig(32, len(LETTERS), TransformerConfig(**sizes), timed=timed))
    nar = NAR(NARConfig(4, 32, 8, len(LETTERS), TransformerConfig(**sizes, stages=3)), codec.quantizer.codebooks)
    aligner = Aligner(AlignerConfig(8, len(LETTERS), 16)).eval()
    for parameter in (*ar.parameters(), *nar.parameters()):
        parameter.data *= 8  # as they come, they hardly tell one input from another
    return USLM(codec, LanguageModels(codec.token_id, "characters", "en", SymbolTable(LETTERS), ar, nar, aligner))


@pytest.fixture(scope="session")
def uslm() -> USLM:
    return make_tiny_uslm()


@pytest.fixture(scope="session")
def uslm_folders(uslm: USLM, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The language models', and their codec's."""
    folder = tmp_path_factory.mktemp("uslm")
    uslm.codec.save_pretrained(folder / "codec")
    save_models(uslm.models, folder / "lm")
    return folder / "lm", folder / "codec"
