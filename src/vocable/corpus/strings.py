"""Codes as text: strings such as <s0_512>, of layer and code, which a text tokenizer can hold as one token each."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vocable.corpus.sequences import unflatten
from vocable.extras import need


def codes_to_text(codes: Tensor) -> str:
    """Write codes [K, T] as text, frame by frame: `<s0_512><s1_7>...`."""
    return "".join(f"<s{k}_{code}>" for frame in codes.T.tolist() for k, code in enumerate(frame))


def text_to_codes(text: str, *, num_layers: int | None = None) -> Tensor:
    """Read the codes [K, T] of a text. White space between codes is skipped, an incomplete last frame is dropped.

    num_layers: K; None: one more than the highest layer in the text, which must then hold a whole frame. Raises
    ValueError for other text between the codes, and for layers that do not follow in order.
    """
    found = re.findall(r"<s(\d+)_(\d+)>|(\S)", text)
    stray = next((other for _, _, other in found if other), None)
    if stray is not None:
        raise ValueError(f"{stray!r} is not part of a code: codes look like <s0_512>")
    layers = [int(layer) for layer, _, _ in found]
    num_layers = num_layers or max(layers, default=0) + 1
    for position, layer in enumerate(layers):
        if layer != position % num_layers:
            raise ValueError(f"code {position} is of layer {layer}, but layer {position % num_layers} comes here")
    codes = [int(code) for _, code, _ in found]
    whole_frames = codes[: len(codes) // num_layers * num_layers]
    return unflatten(torch.tensor(whole_frames, dtype=torch.int64), num_layers=num_layers)


def add_codes(tokenizer: Any, *, num_layers: int, codebook_size: int) -> int:
    """Add the strings of all codes of `num_layers` layers to a transformers tokenizer; return the id of `<s0_0>`.

    The ids are consecutive, so the tokenizer maps `codes_to_text(codes)` to `offset(codes, codebook_size, first)`,
    frame by frame. Resize the model's embeddings afterwards. Raises ValueError if the tokenizer has a code already.
    """
    added_token = need("tokenizers", "lm").AddedToken
    strings = [f"<s{k}_{code}>" for k in range(num_layers) for code in range(codebook_size)]
    present = tokenizer.get_vocab().keys() & set(strings)
    if present:
        raise ValueError(f"{len(present)} of {len(strings)} codes are in this tokenizer already")
    tokenizer.add_tokens([added_token(string, normalized=False) for string in strings])
    first: int = tokenizer.convert_tokens_to_ids(strings[0])
    return first
