"""A vocoder for units, which have no codec of their own: an embedding of each unit, and the decoder of `fast`.

SLMTokBench (arXiv 2308.16692, section 3) resynthesises HuBERT units with a HiFi-GAN. Here it is the same decoder as in
all other comparisons, trained with the codec's spectral losses by `vocable train vocoder`.

    UNITS/vocoder.safetensors, vocoder.json    in the folder of the units that it decodes
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vocable.codec.config import PRESETS, CodecConfig
from vocable.codec.spectral import SpectralDecoder
from vocable.files import atomic_path

WEIGHTS, ABOUT = "vocoder.safetensors", "vocoder.json"


class Vocoder(nn.Module):
    """Decoder from units to speech. config: of the codec whose decoder, sample rate and hop it has."""

    def __init__(self, num_units: int, config: CodecConfig = PRESETS["fast"]) -> None:
        super().__init__()
        self.num_units, self.config, self.hash = num_units, config, ""
        self.embedding = nn.Embedding(num_units, config.dimension)
        self.decoder = SpectralDecoder(config)

    def forward(self, units: Tensor) -> Tensor:
        """Decode units, int64 [B, T], to speech, float32 [B, T * hop_length]."""
        speech: Tensor = self.decoder(self.embedding(units))
        return speech

    @torch.inference_mode()
    def decode(self, units: Tensor) -> np.ndarray:
        """Decode one clip: int64 [T] -> float32 [T * hop_length] at `config.sample_rate`."""
        waveform: np.ndarray = self(units[None])[0].numpy()
        return waveform

    def save(self, folder: str | os.PathLike[str], **about: Any) -> None:
        """Write the vocoder to the folder of its units. about: what vocoder.json says besides the number of units."""
        with atomic_path(Path(folder) / ABOUT) as temporary:
            temporary.write_text(json.dumps({"num_units": self.num_units, **about}, indent=2) + "\n")
        tensors = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        with atomic_path(Path(folder) / WEIGHTS) as temporary:
            safetensors.torch.save_file(tensors, temporary)

    @staticmethod
    def is_trained(folder: str | os.PathLike[str]) -> bool:
        """Return whether a folder of units has a vocoder."""
        return (Path(folder) / WEIGHTS).is_file()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Vocoder:
        """Return the vocoder of a folder of units, in eval mode. Raises ValueError if it is missing or damaged."""
        path = Path(folder) / WEIGHTS
        try:
            vocoder = cls(json.loads((Path(folder) / ABOUT).read_text())["num_units"])
            vocoder.load_state_dict(safetensors.torch.load_file(path))
        except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path}: missing or damaged; run `vocable train vocoder` again") from error
        vocoder.hash = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
        return vocoder.eval()
