"""Export of a transformer with embedding and output layer as transformers' LlamaForCausalLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from vocable.extras import need
from vocable.lm.transformer import NORM_EPSILON, Transformer


def export_llama(transformer: Transformer, embedding: Tensor, head: Tensor, folder: Path, max_positions: int) -> None:
    """Write a folder that transformers loads as LlamaForCausalLM, in the transformer's dtype.

    embedding: of the tokens, [V, D]. head: the output layer, [V, D]; if it is the same memory as the embedding, the two
    are tied in the export. max_positions: written into the config. The config names no token that begins or ends a
    text. Raises ValueError for a transformer with stages, which Llama does not have.
    """
    config, weights = transformer.config, transformer.state_dict()
    if config.stages:
        raise ValueError("a transformer with stages cannot be exported: Llama has no stages")
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
    llama_config.rope_theta = config.rope_theta  # version 5 of transformers reads it at another place than version 4
    exported = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": weights["norm.weight"],
        "lm_head.weight": head,
    }
    for i in range(config.layers):
        own, llama = f"blocks.{i}", f"model.layers.{i}"
        exported[f"{llama}.input_layernorm.weight"] = weights[f"{own}.attention_norm.weight"]
        for name, weight in zip("qkv", weights[f"{own}.qkv.weight"].chunk(3), strict=True):
            exported[f"{llama}.self_attn.{name}_proj.weight"] = weight
        exported[f"{llama}.self_attn.o_proj.weight"] = weights[f"{own}.out.weight"]
        exported[f"{llama}.post_attention_layernorm.weight"] = weights[f"{own}.feed_forward_norm.weight"]
        for name, weight in zip(("gate", "up"), weights[f"{own}.gate_up.weight"].chunk(2), strict=True):
            exported[f"{llama}.mlp.{name}_proj.weight"] = weight
        exported[f"{llama}.mlp.down_proj.weight"] = weights[f"{own}.down.weight"]
    model = transformers.LlamaForCausalLM(llama_config).to(weights["norm.weight"].dtype)
    model.load_state_dict(exported)
    model.save_pretrained(folder)
