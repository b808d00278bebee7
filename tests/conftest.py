"""Tiny models, and the real recordings where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from vocable.codec.config import CodecConfig, SpectralConfig
from vocable.codec.model import SpeechTokenizer

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "examples" / "speech.flac"

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def tiny_config(**changes: object) -> CodecConfig:
    blocks = {f"{side}_{rate}_blocks": 1 for side in ("encoder", "decoder") for rate in ("fine", "frame")}
    spectral = SpectralConfig(fine_dim=16, frame_dim=24, expansion=2, **blocks)
    fields = {"name": "tiny", "codebook_size": 32, "dimension": 8, "semantic_dimension": 12, "spectral": spectral}
    return CodecConfig(**{**fields, **changes})


def make_tiny(seed: int = 0, **changes: object) -> SpeechTokenizer:
    torch.manual_seed(seed)
    return SpeechTokenizer(tiny_config(**changes)).eval()


@pytest.fixture(scope="session")
def tiny() -> SpeechTokenizer:
    return make_tiny()


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
