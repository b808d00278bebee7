"""Values that users type: layers, durations."""

from __future__ import annotations

import re


def parse_layers(text: str | None) -> slice | None:
    """`:1`, `1:4`, `2:` as a slice; None for all layers."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if not match:
        hint = f"--layers :{text} for the first {text}" if text.isdigit() else "--layers :2 or --layers 1:4"
        raise ValueError(f"layers are a slice: {hint}, not {text!r}")
    start, stop = match.groups()
    return slice(int(start) if start else 0, int(stop) if stop else None)


def parse_duration(text: str | None) -> float | None:
    """`90s`, `110m`, `2h` or plain seconds, in seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ValueError(f"a duration is 90s, 110m or 2h, not {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
