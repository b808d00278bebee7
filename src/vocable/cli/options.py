"""Values that users type: layers, a teacher's layers, durations, outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from vocable.cli.pipes import is_pipe

#: Of files that speech is written into; the first is what goes into pipes.
SPEECH_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


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


def parse_teacher_layer(text: str) -> int | Literal["avg"] | tuple[int, ...]:
    """`9`, `avg`, or `2,4,6` for the mean of several."""
    if text == "avg":
        return "avg"
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"--layer is a number, several as 2,4,6, or avg, not {text!r}")
    numbers = tuple(map(int, text.split(",")))
    return numbers if len(numbers) > 1 else numbers[0]


def parse_duration(text: str | None) -> float | None:
    """`90s`, `110m`, `2h` or plain seconds, in seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ValueError(f"a duration is 90s, 110m or 2h, not {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def check_speech_output(out: Path, *inputs: Path | None) -> None:
    """Before any work: ValueError for an output that is an input, or that no audio format is named by."""
    if is_pipe(out):
        return
    if out.resolve() in {path.resolve() for path in inputs if path}:
        raise ValueError(f"{out} is an input itself: name another output")
    if out.suffix.lower() not in SPEECH_SUFFIXES:
        raise ValueError(f"{out}: name the output .wav, .flac, .ogg or .mp3, or - for standard output")
