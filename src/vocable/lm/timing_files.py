"""Files of word times: subtitles (SRT, WebVTT), JSON, and TextGrid of Praat."""

# ruff: noqa: RUF001 (characters that look alike are intended)

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vocable.files import atomic_path
from vocable.lm.generated import Symbol, Word

LONGEST_CUE = 80  #: characters of one subtitle
LONGEST_GAP = 1.0  #: seconds between two words of one subtitle


def write_timings(
    path: str | os.PathLike[str], words: Sequence[Word], symbols: Sequence[Symbol], seconds: float
) -> None:
    """Write the times of words, and in JSON and TextGrid of symbols, in the format that the suffix names.

    seconds: duration of the speech. The file is written atomically. Raises ValueError for an unknown suffix.
    """
    path = Path(path)
    check_suffix(path)
    content = _WRITERS[path.suffix.lower()](words, symbols, seconds)
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def check_suffix(path: Path) -> None:
    """Raise ValueError unless the suffix of a path names a format of `write_timings`."""
    if path.suffix.lower() not in _WRITERS:
        raise ValueError(f"{path}: name the file of timings .srt, .vtt, .json or .TextGrid")


def _srt(words: Sequence[Word], symbols: Sequence[Symbol], seconds: float) -> str:
    cues = []
    for number, cue in enumerate(_cues(words), 1):
        start, end = (_clock(time).replace(".", ",") for time in (cue[0].start, cue[-1].end))
        cues.append(f"{number}\n{start} --> {end}\n{' '.join(word.text for word in cue)}\n")
    return "\n".join(cues)


def _vtt(words: Sequence[Word], symbols: Sequence[Symbol], seconds: float) -> str:
    """Return WebVTT. Within a cue, each word after the first has the time at which it starts."""
    cues = ["WEBVTT\n"]
    for cue in _cues(words):
        texts = [word.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for word in cue]
        timed = [texts[0], *(f"<{_clock(word.start)}>{text}" for word, text in zip(cue[1:], texts[1:], strict=True))]
        cues.append(f"{_clock(cue[0].start)} --> {_clock(cue[-1].end)}\n{' '.join(timed)}\n")
    return "\n".join(cues)


def _json(words: Sequence[Word], symbols: Sequence[Symbol], seconds: float) -> str:
    content = {
        "duration": round(seconds, 3),
        "words": [_rounded(word) for word in words],
        "symbols": [_rounded(symbol) for symbol in symbols],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _rounded(part: Word | Symbol) -> dict[str, str | float]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in dataclasses.asdict(part).items()}


def _text_grid(words: Sequence[Word], symbols: Sequence[Symbol], seconds: float) -> str:
    """Return a TextGrid with two tiers. Intervals without a text fill the gaps."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"xmin = 0\nxmax = {seconds:.6f}"]
    lines += ["tiers? <exists>", "size = 2", "item []:"]
    tiers: list[tuple[str, Sequence[Word | Symbol]]] = [("words", words), ("symbols", symbols)]
    for number, (name, parts) in enumerate(tiers, 1):
        intervals = _without_gaps(parts, seconds)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {seconds:.6f}", f"        intervals: size = {len(intervals)}"]
        for i, (start, end, text) in enumerate(intervals, 1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {start:.6f}", f"            xmax = {end:.6f}"]
            lines.append(f'            text = "{quoted}"')
    return "\n".join(lines) + "\n"


def _without_gaps(parts: Sequence[Word | Symbol], seconds: float) -> list[tuple[float, float, str]]:
    found: list[tuple[float, float, str]] = []
    end = 0.0
    for part in parts:
        if part.start > end:
            found.append((end, part.start, ""))
        found.append((part.start, part.end, part.text))
        end = part.end
    return [*found, (end, seconds, "")] if seconds > end else found


def _cues(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Divide words into subtitles: at ends of sentences and pauses, and before a subtitle becomes too long."""
    cue: list[Word] = []
    for word in words:
        length = sum(len(earlier.text) + 1 for earlier in cue) + len(word.text)
        if cue and (
            cue[-1].text.rstrip("\"'”’»)]").endswith((".", "!", "?", "…"))
            or word.start - cue[-1].end > LONGEST_GAP
            or length > LONGEST_CUE
        ):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _clock(seconds: float) -> str:
    """Return 3723.5 as 01:02:03.500."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


_WRITERS = {".srt": _srt, ".vtt": _vtt, ".json": _json, ".textgrid": _text_grid}
