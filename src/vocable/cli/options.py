"""Parsing and checks of option values: layers, a teacher's layers, durations, output files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from vocable.cli.pipes import is_pipe

#: Suffixes of audio files to write; the first is the format for pipes.
SPEECH_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def parse_layers(text: str | None) -> slice | None:
    """Parse `:1`, `1:4` or `2:` to a slice; None stays None (all layers). Raises ValueError for other text."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if not match:
        hint = f"--layers :{text} for the first {text}" if text.isdigit() else "--layers :2 or --layers 1:4"
        raise ValueError(f"layers are a slice: {hint}, not {text!r}")
    start, stop = match.groups()
    return slice(int(start) if start else 0, int(stop) if stop else None)


def parse_teacher_layer(text: str) -> int | Literal["avg"] | tuple[int, ...]:
    """Parse `9`, `avg`, or `2,4,6` for the mean of several layers. Raises ValueError for other text."""
    if text == "avg":
        return "avg"
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"--layer is a number, several numbers such as 2,4,6, or avg, not {text!r}")
    numbers = tuple(map(int, text.split(",")))
    return numbers if len(numbers) > 1 else numbers[0]


def parse_duration(text: str | None) -> float | None:
    """Parse `90s`, `110m`, `2h` or a number of seconds to seconds. Raises ValueError for other text."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ValueError(f"a duration is 90s, 110m or 2h, not {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def check_speech_output(out: Path, *inputs: Path | None) -> None:
    """Raise ValueError for an output that is one of the inputs, or whose suffix is not that of an audio format."""
    if is_pipe(out):
        return
    if out.resolve() in {path.resolve() for path in inputs if path}:
        raise ValueError(f"{out} is an input itself: name another output")
    if out.suffix.lower() not in SPEECH_SUFFIXES:
        raise ValueError(f"{out}: name the output .wav, .flac, .ogg or .mp3, or - for standard output")
