"""The number format of matrix products and convolutions in training."""

from __future__ import annotations

import torch

FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: str, precision: str = "bfloat16") -> torch.autocast:
    """Return a context in which products have `precision`: "float32", "bfloat16" or "float16".

    device: "cpu" or "cuda". A CPU without bfloat16 instructions emulates them forty times slower than float32, so on
    such a CPU products stay float32.
    """
    reduced = FORMATS.get(precision)
    if device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        reduced = None
    return torch.autocast(device, reduced, enabled=reduced is not None)
