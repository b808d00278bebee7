"""A vocoder for units that have no codec of their own: an embedding of each unit, and the decoder of `fast`.

SLMTokBench (arXiv 2308.16692, section 3) resynthesises from HuBERT units with a HiFi-GAN; here it is the decoder that
all our figures stand on, trained on the codec's spectral losses.

UNITS/vocoder.safetensors, vocoder.json    beside the units that it speaks
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from vocable import audio
from vocable.codec.config import PRESETS, CodecConfig
from vocable.codec.spectral import SpectralDecoder
from vocable.corpus.manifest import read_manifest
from vocable.files import atomic_path
from vocable.semantic.units import UnitCache
from vocable.training.losses import SpectralLoss
from vocable.training.precision import autocast
from vocable.training.recipe import Losses
from vocable.training.torch_globals import seeded

WEIGHTS, ABOUT = "vocoder.safetensors", "vocoder.json"
CROP_FRAMES, BATCH_SIZE = 100, 6
LEARNING_RATE, WARM_UP, FINAL_SHARE, CLIP_NORM = 1e-3, 0.01, 0.01, 1.0


class Vocoder(nn.Module):
    """Units int64 [B, T] -> speech [B, T * 320]."""

    def __init__(self, num_units: int, config: CodecConfig = PRESETS["fast"]) -> None:
        super().__init__()
        self.config, self.hash = config, ""
        self.embedding = nn.Embedding(num_units, config.dimension)
        self.decoder = SpectralDecoder(config)

    def forward(self, units: Tensor) -> Tensor:
        speech: Tensor = self.decoder(self.embedding(units))
        return speech

    @torch.inference_mode()
    def decode(self, units: Tensor) -> np.ndarray:
        """One clip: int64 [T] -> float32 [T * 320] at 16 kHz."""
        waveform: np.ndarray = self(units[None])[0].numpy()
        return waveform

    @staticmethod
    def is_trained(folder: str | os.PathLike[str]) -> bool:
        return (Path(folder) / WEIGHTS).is_file()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Vocoder:
        """The vocoder of a folder of units, in eval mode. Raises ValueError where there is none, or it is damaged."""
        path = Path(folder) / WEIGHTS
        try:
            vocoder = cls(json.loads((Path(folder) / ABOUT).read_text())["num_units"])
            vocoder.load_state_dict(safetensors.torch.load_file(path))
        except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path}: missing or damaged; run `vocable train vocoder` again") from error
        vocoder.hash = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
        return vocoder.eval()


def train_vocoder(
    units_folder: str | os.PathLike[str],
    manifest: str | os.PathLike[str],
    *,
    max_time: float,
    seed: int = 0,
    on_step: Callable[[int, float, float], None] = lambda step, share, mel: None,
) -> Vocoder:
    """Train for `max_time` seconds on the units of a manifest's recordings, and leave the vocoder beside the units.

    on_step: called with the step, the share of the time that is over, and the mel loss. Raises ValueError for a
    max_time that is not positive, and where no recording has units.
    """
    if not 0 < max_time < math.inf:
        raise ValueError(f"the time to train for must be longer than 0 s, not {max_time:g} s")
    units = UnitCache(units_folder)
    clips = []
    for u in read_manifest(manifest):
        if u.id not in units:
            continue
        try:
            samples = audio.read(u.path, 16_000)[0]
        except (ValueError, OSError):  # `vocable prepare check` names it
            continue
        if len(samples) >= CROP_FRAMES * PRESETS["fast"].hop_length:
            clips.append((u.id, (samples.clip(-1.0, 1.0) * 32767).astype(np.int16)))
    if not clips:
        raise ValueError(f"{manifest}: none of its recordings, of two seconds or more, has units in {units_folder}")
    rng = np.random.default_rng(seed)
    with seeded(seed):
        vocoder = Vocoder(units.num_units)
    weights = Losses()
    spectral_loss = SpectralLoss(16_000, weights.resolutions)
    optimizer = torch.optim.AdamW(vocoder.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    hop = vocoder.config.hop_length
    begin, step, share = time.monotonic(), 0, 0.0
    while share < 1.0:
        rate = min(1.0, share / WARM_UP) * max(FINAL_SHARE, 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * max(rate, 1e-3)
        waveforms, codes = [], []
        for k in rng.integers(len(clips), size=BATCH_SIZE).tolist():
            name, samples = clips[k]
            start = int(rng.integers(len(samples) // hop - CROP_FRAMES + 1))
            crop = samples[start * hop : (start + CROP_FRAMES) * hop].astype(np.float32) / 32767
            waveforms.append(torch.from_numpy(crop))
            codes.append(torch.from_numpy(units(name, start, CROP_FRAMES)).clamp_min(0))
        original = torch.stack(waveforms)
        with autocast("cpu"):
            decoded = vocoder(torch.stack(codes))
        losses = spectral_loss(decoded, original)
        total = weights.mel * losses["mel"] + weights.spectrum * losses["spectrum"]
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(vocoder.parameters(), CLIP_NORM)
        optimizer.step()
        step += 1
        share = (time.monotonic() - begin) / max_time
        on_step(step, min(share, 1.0), float(losses["mel"].detach()))
    vocoder.eval()
    folder = Path(units_folder)
    with atomic_path(folder / ABOUT) as temporary:
        about = {"num_units": units.num_units, "steps": step, "seconds": round(max_time), "seed": seed}
        temporary.write_text(json.dumps(about, indent=2) + "\n")
    with atomic_path(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(vocoder.state_dict(), temporary)
    return vocoder
