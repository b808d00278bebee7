"""Suite `speakers`: reconstruction by groups of speakers.

The groups are the thirds of pitch and of speaking rate, and the values of every other column of the manifest: corpora,
accents, sexes.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation.grouped import GroupedReconstruction
from vocable.evaluation.metrics import Judges
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.pitch import PitchTracker
from vocable.evaluation.runner import Outcome, Progress, Row, as_stage, run
from vocable.extras import need


@dataclass(frozen=True)
class MeasurePitch:
    """Task: an utterance -> its median F0 in Hz, None if no frame is voiced."""

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        return {"made_with": {"librosa": importlib.metadata.version("librosa")}}

    def start(self) -> Callable[[Utterance], list[Row]]:
        """Load the tracker and return the function that measures a clip."""
        track = PitchTracker()

        def work(clip: Utterance) -> list[Row]:
            pitch = track(audio.read(clip.path, SAMPLE_RATE)[0])
            voiced = pitch[np.isfinite(pitch)]
            return [{"clip": clip.id, "pitch": float(np.median(voiced)) if len(voiced) else None}]

        return work


class Speakers(GroupedReconstruction):
    """Suite: reconstruction by groups of speakers. OUT/pitch holds the pitch of each clip."""

    name, title = "speakers", "Speakers"

    def __init__(
        self,
        clips: Sequence[Utterance],
        *,
        columns: Mapping[str, Mapping[str, str]],
        systems: Sequence[str],
        judges: Judges,
        seed: int = 0,
    ) -> None:
        """columns: of `read_columns`."""
        need("librosa", "eval")
        super().__init__(clips, systems=systems, judges=judges, seed=seed)
        self._given, self._pitch = columns, Outcome()

    def measure(self, out: Path, *, jobs: int, progress: Progress) -> Outcome:
        """Measure the pitch, and then reconstruction."""
        self._pitch = run(MeasurePitch(), self.clips, out / "pitch", jobs=jobs, progress=as_stage(progress, "pitch"))
        return super().measure(out, jobs=jobs, progress=progress)

    def columns(self) -> dict[str, dict[str, str]]:
        """Return the manifest's columns, and the thirds of pitch and rate."""
        speaker = {clip.id: clip.speaker_key for clip in self.clips}
        by_speaker: dict[str, list[float]] = {}
        for row in self._pitch.rows:
            by_speaker.setdefault(speaker[row["clip"]], []).append(row["pitch"] or np.nan)
        medians = {name: float(np.nanmedian(values)) for name, values in by_speaker.items()}
        pitch = {clip: medians[name] for clip, name in speaker.items() if name in medians}
        rate = {clip.id: len(clip.text) / clip.duration for clip in self.clips if clip.text}
        measured = {"pitch": thirds(pitch, unit="Hz"), "rate": thirds(rate, unit="characters/s")}
        return {
            clip: {**self._given[clip], **{column: found[clip] for column, found in measured.items() if clip in found}}
            for clip in speaker
        }

    def remarks(self) -> list[str]:
        """Return a note on the speakers of a manifest."""
        return [
            "A manifest tells of its own speakers alone. The data that vocable was measured on has no child, elderly "
            "or impaired speech."
        ]


def read_columns(manifest: Path) -> dict[str, dict[str, str]]:
    """Read the columns of a manifest that not every manifest has: id -> column -> value."""
    own = {"id", "path", "duration", "text", "speaker"}
    found = {}
    for line in manifest.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            row = json.loads(line)
            found[str(row["id"])] = {
                key: str(value) for key, value in row.items() if key not in own and value is not None
            }
    return found


def thirds(values: Mapping[str, float], *, unit: str) -> dict[str, str]:
    """Return for each finite value the name of the third that it belongs to, such as "under 120 Hz"."""
    known = {key: value for key, value in values.items() if np.isfinite(value)}
    if not known:
        return {}
    low, high = np.quantile(list(known.values()), [1 / 3, 2 / 3])
    names = (f"under {low:.0f} {unit}", f"{low:.0f} to {high:.0f} {unit}", f"over {high:.0f} {unit}")
    return {key: names[int(value > low) + int(value > high)] for key, value in known.items()}
