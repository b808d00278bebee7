"""The transformer of both language models, in Llama's form (arXiv 2302.13971). Activations are [B, S, D].

AR uses it causally, position by position with a cache. NAR uses it bidirectionally, with stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.lm.cache import Caches, KVCache
from vocable.training.recipe_file import BelowOne, Bound, Positive, Section

NORM_EPSILON = 1e-5
IGNORED = -100  #: a target that no loss is computed for
LARGEST = 1 << 20  #: the largest size in a config: no real model has more of anything
Size = Annotated[int, Bound(f"1 to {LARGEST}", lambda n: 1 <= n <= LARGEST)]
SizeOrNone = Annotated[int, Bound(f"0 to {LARGEST}", lambda n: 0 <= n <= LARGEST)]


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats per token, a scalar: scores [B, S, V], targets int64 [B, S], IGNORED ones not
    counted."""
    return F.cross_entropy(scores.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@dataclass(frozen=True)
class TransformerConfig(Section):
    """Sizes of a transformer. Raises ValueError for impossible ones."""

    dim: Size  #: channels D of an activation
    layers: Size  #: number of blocks
    heads: Size  #: attention heads of a block
    hidden: Size  #: channels within the feed-forward network
    dropout: BelowOne = 0.0  #: of the outputs of attention and feed-forward network, in training
    rope_theta: Positive = 10_000.0  #: base of the rotary frequencies
    stages: SizeOrNone = 0  #: number of stages: every norm has one gain vector per stage; 0: no stages, one gain vector

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads or self.dim // self.heads % 2:
            raise ValueError(f"dim must be heads times an even number, not {self.dim} for {self.heads} heads")


class Norm(nn.RMSNorm):
    """RMSNorm (arXiv 1910.07467), with one gain vector per stage if the config has stages.

    That is the adaptive norm of VALL-E (arXiv 2301.02111).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config.dim, eps=NORM_EPSILON, elementwise_affine=not config.stages)
        self.gains = nn.Embedding(config.stages, config.dim) if config.stages else None
        if self.gains is not None:
            nn.init.ones_(self.gains.weight)

    def forward(self, x: Tensor, stage: Tensor | None) -> Tensor:  # type: ignore[override]
        """Normalize [B, S, D]. stage: int64 [B], or None without stages."""
        y = super().forward(x)
        return y if self.gains is None else y * self.gains(stage)[:, None]


class Block(nn.Module):
    """Self-attention and a SwiGLU feed-forward network (arXiv 2002.05202), both with pre-norm and a residual
    connection."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.heads
        # Layers whose outputs are added to the residual start smaller, by the number of additions, as in Megatron-LM
        # (arXiv 1909.08053).
        residual_std = 0.02 / math.sqrt(2 * config.layers)
        self.attention_norm = Norm(config)
        self.qkv = _linear(config.dim, 3 * config.dim, 0.02)  # one product is faster than three
        self.out = _linear(config.dim, config.dim, residual_std)
        self.feed_forward_norm = Norm(config)
        self.gate_up = _linear(config.dim, 2 * config.hidden, 0.02)
        self.down = _linear(config.hidden, config.dim, residual_std)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        is_causal: bool,
        stage: Tensor | None,
        cache: KVCache | Caches | None,
    ) -> Tensor:
        """Run the block: [B, S, D] -> [B, S, D].

        rotary: cosines and sines, of `_rotary`. mask, is_causal: as scaled_dot_product_attention takes them. stage,
        cache: as in `Transformer.forward`.
        """
        qkv = self.qkv(self.attention_norm(x, stage)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each [B, heads, S, head size]
        q, k = _rotate(q, rotary), _rotate(k, rotary)
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
        else:
            y = cache.attend(self.layer, q, k, v, mask, is_causal)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        gate, up = self.gate_up(self.feed_forward_norm(x, stage)).chunk(2, -1)
        x = x + self.dropout(self.down(F.silu(gate) * up))
        return x


class Transformer(nn.Module):
    """Blocks and a final norm. The language models have their own embeddings and output layers."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = Norm(config)

    def cache(self, batch: int, length: int) -> KVCache:
        """Return an empty cache for `batch` rows of at most `length` positions, in the weights' dtype and device."""
        weight = next(self.parameters())
        shape = (self.config.layers, batch, self.config.heads, length, self.config.dim // self.config.heads)
        return KVCache(weight.new_empty(shape), weight.new_empty(shape))

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool,
        num_valid: Tensor | None = None,
        stage: Tensor | None = None,
        cache: KVCache | Caches | None = None,
    ) -> Tensor:
        """Run all blocks and the final norm: [B, S, D] -> [B, S, D].

        causal: each position attends to itself and earlier ones; else to all.
        num_valid: int64 [B], at least 1: the number of positions of each row that may be attended to (None: all). For
        bidirectional passes only: in a causal one, padding on the right is never attended to.
        stage: int64 [B], if and only if the config has stages.
        cache: holds the earlier positions, and x are the S >= 1 next ones; they are added to it. While all positions of
        the cache are shared, x may be one row that counts for all. `Caches`: x are the next positions of several texts.
        For causal passes without gradients only.

        Raises ValueError if these do not go together, or if the cache has no room for S positions.
        """
        if (stage is None) != (self.config.stages == 0):
            raise ValueError(
                f"stage must be given if and only if the config has stages; this one has {self.config.stages}"
            )
        if causal and num_valid is not None:
            raise ValueError("a causal pass takes no num_valid: it never attends to padding on the right")
        length = x.shape[1]
        mask, is_causal = None, causal
        if cache is None:
            positions = torch.arange(length, dtype=torch.float32, device=x.device)
        else:
            if not causal or torch.is_grad_enabled():
                raise ValueError("a cache is for causal passes without gradients: use torch.inference_mode")
            cache.check(len(x), length)
            positions = cache.positions(length)
            mask, is_causal = cache.causal_mask(length)
        if num_valid is not None:
            mask = (positions < num_valid[:, None])[:, None, None]  # [B, 1, 1, S]
        rotary = _rotary(self.config, positions)
        for block in self.blocks:
            x = block(x, rotary, mask, is_causal, stage, cache)
        if cache is not None:
            cache.advance(len(x), length)
        y: Tensor = self.norm(x, stage)
        return y


def _linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    """Return a linear layer without bias, of normally distributed weights."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


def _rotary(config: TransformerConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotary cosines and sines (RoPE, arXiv 2104.09864) of positions, float32 [..., S]: two tensors float32
    [..., S, head size / 2]."""
    size = config.dim // config.heads
    channels = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device)
    angles = positions[..., None] * (1.0 / config.rope_theta ** (channels / size))
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate [..., S, head size]; channel i of the first half is paired with channel i of the second, as in
    transformers."""
    (cos, sin), (a, b) = rotary, x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)
