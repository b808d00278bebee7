"""Evaluation of a codec on dev clips during a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vocable.codec.model import SpeechTokenizer
from vocable.training.log import Writer
from vocable.training.losses import SpectralLoss

AUDIO_CLIPS = 4  #: dev clips whose audio is written to TensorBoard


@torch.no_grad()
def evaluate_on_dev(
    model: SpeechTokenizer, clips: Sequence[Tensor], spectral_loss: SpectralLoss, *, writer: Writer, step: int
) -> dict[str, float]:
    """Return the spectral losses of dev clips decoded from the first 1, 2, 4 and all layers, and codebook perplexities.

    model: in eval mode. clips: float32 [L] on the model's device; the audio of the first ones goes to `writer`.
    """
    figures: dict[str, float] = {}
    for i, clip in enumerate(clips[:AUDIO_CLIPS]):
        writer.clip(f"dev{i}/recording", clip, model.sample_rate, step)
    encoded = model.encode(list(clips))
    for stop in sorted({s for s in (1, 2, 4, model.num_quantizers) if s <= model.num_quantizers}):
        decoded = model.decode(encoded, layers=slice(0, stop)).clips()
        losses = [spectral_loss(d[None], c[None]) for d, c in zip(decoded, clips, strict=True)]
        for name in ("mel", "spectrum"):
            figures[f"dev/{name}:{stop}"] = float(torch.stack([loss[name] for loss in losses]).mean())
        for i, clip in enumerate(decoded[:AUDIO_CLIPS]):
            writer.clip(f"dev{i}/:{stop}", clip, model.sample_rate, step)
    for layer, size in enumerate(model.codebook_sizes):
        codes = torch.cat([c[layer, :n] for c, n in zip(encoded.codes, encoded.num_frames, strict=True)])
        frequencies = torch.bincount(codes, minlength=size) / len(codes)
        figures[f"dev/perplexity{layer + 1}"] = float(torch.special.entr(frequencies).sum().exp())
    return figures
