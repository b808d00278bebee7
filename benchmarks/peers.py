"""Other people's codecs, as scripts and tests that compare with them need them. Nothing is downloaded."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from typing import Any

import torch

#: The model's part of the official config/spt_base_cfg.json.
OFFICIAL_CONFIG: dict[str, Any] = {
    "n_filters": 64,
    "strides": [8, 5, 4, 2],
    "dimension": 1024,
    "semantic_dimension": 768,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 2,
    "activation": "ELU",
    "codebook_size": 1024,
    "n_q": 8,
    "sample_rate": 16000,
}


@functools.cache
def official_class() -> type[torch.nn.Module]:
    """The SpeechTokenizer class of `pip install --no-deps speechtokenizer==1.0.1`; raises ImportError without it.

    Its package imports a trainer with needs that it does not declare, so the model's module is imported under an empty
    parent of the same name.
    """
    found = importlib.util.find_spec("speechtokenizer")
    if found is None or importlib.util.find_spec("einops") is None:
        raise ImportError("the official package is missing: pip install --no-deps speechtokenizer==1.0.1 einops")
    parent = types.ModuleType("speechtokenizer")
    parent.__path__ = list(found.submodule_search_locations or [])
    sys.modules["speechtokenizer"] = parent
    model: type[torch.nn.Module] = importlib.import_module("speechtokenizer.model").SpeechTokenizer
    return model


def official(config: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """An official codec with random weights, in eval mode; its codebooks are all zero: see `fill_official`."""
    torch.manual_seed(seed)
    codec = official_class()(config).eval()
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if name.endswith("alpha"):  # they start at 1, where Snake's division would go untested
                parameter.uniform_(0.5, 2.0)
            elif name.endswith("weight_g"):  # random weights shrink speech until random biases drown it,
                parameter *= 1.7
            elif "bias" in name:  # and then all latents are near ties
                parameter *= 0.05
    return codec


@torch.no_grad()
def fill_official(codec: Any, clips: list[torch.Tensor], iterations: int = 5) -> list[float]:
    """Fill its codebooks by k-means on its own latents of `clips` ([L] each); returns each layer's perplexity there.

    Codebooks of a fresh one are all zero: every code would be 0, and every comparison would pass.
    """
    latents = torch.cat([codec.encoder(clip[None, None])[0].T for clip in clips])
    generator = torch.Generator().manual_seed(0)
    perplexities = []
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook
        size = len(book.embed)
        if len(latents) < size:
            raise ValueError(f"{size} frames are needed to fill a codebook, the clips have {len(latents)}")
        book.embed.copy_(latents[torch.randperm(len(latents), generator=generator)[:size]])
        for _ in range(iterations):
            codes = book.quantize(latents)
            counts = torch.bincount(codes, minlength=size)
            means = torch.zeros_like(book.embed).index_add_(0, codes, latents) / counts.clamp_min(1)[:, None]
            book.embed.copy_(torch.where(counts[:, None] > 0, means, book.embed))
        codes = book.quantize(latents)
        counts = torch.bincount(codes, minlength=size)
        book.cluster_size.copy_(counts)
        book.embed_avg.copy_(book.embed * counts[:, None])
        book.inited.fill_(1)
        latents = latents - book.embed[codes]
        perplexities.append(float(torch.special.entr(counts / counts.sum()).sum().exp()))
    return perplexities
