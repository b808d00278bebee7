"""The transformer of both language models, in Llama's form (arXiv 2302.13971). Activations are [B, S, D].

One is causal and writes position by position, with a cache. The other sees all positions and has stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.extras import need

NORM_EPSILON = 1e-5
IGNORED = -100  #: in targets: not learned from


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Nats a token, a scalar: scores [B, S, V], targets int64 [B, S], IGNORED where nothing is learned."""
    return F.cross_entropy(scores.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@dataclass(frozen=True)
class TransformerConfig:
    dim: int  #: D, channels of an activation
    layers: int
    heads: int
    hidden: int  #: channels within the feed-forward
    dropout: float = 0.0  #: of what attention and feed-forward add, in training
    rope_theta: float = 10_000.0  #: the base of the rotary frequencies
    stages: int = 0  #: norms have one gain for each; 0: one gain, and passes have no stage

    def __post_init__(self) -> None:
        if min(self.dim, self.layers, self.heads, self.hidden) < 1 or self.stages < 0:
            raise ValueError(f"dim, layers, heads and hidden must be at least 1, and stages at least 0: {self}")
        if self.dim % self.heads or self.dim // self.heads % 2:
            raise ValueError(f"dim must be an even number for each head, not {self.dim} for {self.heads} heads")


class KVCache:
    """Keys and values of the positions so far, for inference. All clips of a batch are equally far.

    What all clips have in common is kept once, and read once for all: what one clip is given in the place of B, and
    what is common after `select`. Memory is taken once, by `Transformer.cache`. keys, values: [layers, B, heads, N,
    head size], where the first clip's hold what is common.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0  #: positions that are taken, of N
        self.common = 0  #: of which so many, from the first, are the same in all clips
        #: What is behind them in stretches: the end of each, and of each clip the one that it has this stretch from.
        self._stretches: list[tuple[int, list[int]]] = []

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        """Write S positions of one layer, and attend to all so far: [B, heads, S, head size], or [1, ...] for all."""
        clips, end = len(keys), self.length + keys.shape[2]
        self.keys[layer, :clips, :, self.length : end] = keys
        self.values[layer, :clips, :, self.length : end] = values
        keys, values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        if clips == 1 or not self.common:
            return F.scaled_dot_product_attention(queries, keys[:clips], values[:clips], mask, is_causal=is_causal)
        common, own = slice(0, self.common), slice(self.common, end)
        queries = queries / math.sqrt(queries.shape[3])
        scores = queries @ keys[:, :, own].mT
        if mask is not None:
            scores = scores.masked_fill(~mask[:, own], -torch.inf)
        scores = torch.cat([_of_common(queries, keys[0, :, common].mT), scores], 3)
        weights = scores.float().softmax(3).to(values.dtype)
        of_own = weights[..., own] @ values[:, :, own]
        return _of_common(weights[..., common], values[0, :, common]) + of_own

    def advance(self, clips: int, positions: int) -> None:
        """A pass of so many clips is through all layers."""
        self.length += positions
        if clips == 1:
            self.common = self.length

    def select(self, rows: list[int]) -> None:
        """Put the clips `rows`, perhaps some of them twice, in the place of all B."""
        assert len(rows) == self.keys.shape[1]
        own = slice(self.common, self.length)
        for memory in (self.keys, self.values):
            memory[:, :, :, own] = memory[:, rows, :, own]
        stretches = [*self._stretches, (self.length, list(range(len(rows))))]
        self._stretches = [(end, [origins[row] for row in rows]) for end, origins in stretches]
        while self._stretches and len(set(self._stretches[0][1])) == 1:
            self.common, _ = self._stretches.pop(0)


def _of_common(x: Tensor, matrix: Tensor) -> Tensor:
    """x [B, heads, S, I] @ what all clips have in common, [heads, I, O]: one product for all of them."""
    together = x.transpose(0, 1)
    return (together.flatten(1, 2) @ matrix).reshape(*together.shape[:3], -1).transpose(0, 1)


class Norm(nn.RMSNorm):
    """RMSNorm (arXiv 1910.07467). With stages its gain is the stage's, as in VALL-E's adaptive norm (2301.02111)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config.dim, eps=NORM_EPSILON, elementwise_affine=not config.stages)
        self.gains = nn.Embedding(config.stages, config.dim) if config.stages else None
        if self.gains is not None:
            nn.init.ones_(self.gains.weight)

    def forward(self, x: Tensor, stage: Tensor | None) -> Tensor:  # type: ignore[override]
        y = super().forward(x)
        return y if self.gains is None else y * self.gains(stage)[:, None]


class Block(nn.Module):
    """Attention and SwiGLU feed-forward (arXiv 2002.05202), each on the norm of x and added to x."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.heads
        # What is added to x is scaled down by the number of additions, as in Megatron-LM (arXiv 1909.08053).
        added = 0.02 / math.sqrt(2 * config.layers)
        self.attention_norm = Norm(config)
        self.qkv = _linear(config.dim, 3 * config.dim, 0.02)  # one product is faster than three
        self.out = _linear(config.dim, config.dim, added)
        self.feed_forward_norm = Norm(config)
        self.gate_up = _linear(config.dim, 2 * config.hidden, 0.02)
        self.down = _linear(config.hidden, config.dim, added)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        turns: tuple[Tensor, Tensor],
        mask: Tensor | None,
        is_causal: bool,
        stage: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        """[B, S, D] -> [B, S, D]. turns: of `_turns`. mask, is_causal: as scaled_dot_product_attention takes them."""
        qkv = self.qkv(self.attention_norm(x, stage)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each [B, heads, S, head size]
        q, k = _rotate(q, turns), _rotate(k, turns)
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
        else:
            y = cache.attend(self.layer, q, k, v, mask, is_causal)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        gate, up = self.gate_up(self.feed_forward_norm(x, stage)).chunk(2, -1)
        x = x + self.dropout(self.down(F.silu(gate) * up))
        return x


class Transformer(nn.Module):
    """Blocks and a last norm, from vectors to vectors: embeddings and heads belong to the language models."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = Norm(config)

    def cache(self, batch: int, length: int) -> KVCache:
        """An empty cache for `batch` clips of at most `length` positions, of the weights' dtype and device."""
        like = next(self.parameters())
        shape = (self.config.layers, batch, self.config.heads, length, self.config.dim // self.config.heads)
        return KVCache(like.new_empty(shape), like.new_empty(shape))

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool,
        num_valid: Tensor | None = None,
        stage: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """[B, S, D] -> [B, S, D], after the last norm.

        num_valid: int64 [B], at least 1, positions of each clip that others may attend to (None: all). Causal passes
        take none: what pads a clip on the right is in the future already.
        stage: int64 [B], given if and only if the config has stages.
        cache: x are the S >= 1 positions that follow those in it, and are added to it; one clip, while its clips do
        not differ, stands for all. Causal passes without gradients alone.

        ValueError if these do not go together, or if the cache has no room for S more.
        """
        if (stage is None) != (self.config.stages == 0):
            raise ValueError(f"a pass has a stage if and only if there are stages: here are {self.config.stages}")
        if causal and num_valid is not None:
            raise ValueError("a causal pass takes no num_valid: padding on the right is in the future")
        start, length = 0, x.shape[1]
        if cache is not None:
            if not causal or torch.is_grad_enabled():
                raise ValueError("a cache is for causal passes without gradients: see torch.inference_mode")
            start, room = cache.length, cache.keys.shape[3]
            if len(x) != cache.keys.shape[1] and (len(x) > 1 or cache.common < start):
                raise ValueError(f"{len(x)} clips cannot go on with a cache of {cache.keys.shape[1]}")
            if start + length > room:
                raise ValueError(f"the cache overflows: {start} of its {room} positions are taken, {length} more come")

        mask = None
        if num_valid is not None:
            mask = (torch.arange(length, device=x.device) < num_valid[:, None])[:, None, None]  # [B, 1, 1, S]
        elif start and length > 1:  # torch's own causal mask lets the first query see the first key alone
            mask = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(start)
        turns = _turns(self.config, start, length, x.device)
        for block in self.blocks:
            x = block(x, turns, mask, causal and start == 0, stage, cache)
        if cache is not None:
            cache.advance(len(x), length)
        y: Tensor = self.norm(x, stage)
        return y


def export_llama(transformer: Transformer, embedding: Tensor, head: Tensor, folder: Path, max_positions: int) -> None:
    """Write a folder that transformers loads as LlamaForCausalLM, in the transformer's dtype.

    embedding: [V, D], of tokens. head: [V, D], logits are its products with the transformer's output; where it is the
    same memory as the embedding the two are tied. max_positions is noted in the config. No token begins or ends a text
    there: that is the user's to say. ValueError if the transformer has stages, which Llama has not.
    """
    config, weights = transformer.config, transformer.state_dict()
    if config.stages:
        raise ValueError("a transformer with stages cannot be exported: Llama has none")
    transformers: Any = need("transformers", "train")
    llama_config = transformers.LlamaConfig(
        vocab_size=len(embedding),
        hidden_size=config.dim,
        intermediate_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        rms_norm_eps=NORM_EPSILON,
        rope_theta=config.rope_theta,
        max_position_embeddings=max_positions,
        tie_word_embeddings=head.is_set_to(embedding),
        bos_token_id=None,
        eos_token_id=None,
    )
    llama_config.rope_theta = config.rope_theta  # transformers 5 has moved it to where 4 does not look
    theirs = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": weights["norm.weight"],
        "lm_head.weight": head,
    }
    for i in range(config.layers):
        own, its = f"blocks.{i}", f"model.layers.{i}"
        theirs[f"{its}.input_layernorm.weight"] = weights[f"{own}.attention_norm.weight"]
        for name, weight in zip("qkv", weights[f"{own}.qkv.weight"].chunk(3), strict=True):
            theirs[f"{its}.self_attn.{name}_proj.weight"] = weight
        theirs[f"{its}.self_attn.o_proj.weight"] = weights[f"{own}.out.weight"]
        theirs[f"{its}.post_attention_layernorm.weight"] = weights[f"{own}.feed_forward_norm.weight"]
        for name, weight in zip(("gate", "up"), weights[f"{own}.gate_up.weight"].chunk(2), strict=True):
            theirs[f"{its}.mlp.{name}_proj.weight"] = weight
        theirs[f"{its}.mlp.down_proj.weight"] = weights[f"{own}.down.weight"]
    model = transformers.LlamaForCausalLM(llama_config).to(weights["norm.weight"].dtype)
    model.load_state_dict(theirs)
    model.save_pretrained(folder)


def _linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


def _turns(config: TransformerConfig, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions start, start + 1, ...: float32 [S, head size / 2] (RoPE, arXiv 2104.09864)."""
    size = config.dim // config.heads
    frequencies = 1.0 / config.rope_theta ** (torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)
    angles = torch.arange(start, start + length, dtype=torch.float32, device=device)[:, None] * frequencies
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each channel of the first half with its fellow of the second, as transformers does: [..., S, head size]."""
    (cos, sin), (a, b) = turns, x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)
