"""Suite `disentanglement`: what linear maps can read from which layers.

The premise of SpeechTokenizer, measured. From RVQ-1 alone, RVQ-2, all layers but RVQ-1, and all layers, linear maps
read the speaker (from the mean vector of a clip) and the phone, the pitch and the loudness (frame by frame). Every map
is fitted on three quarters of the clips and tested on the last, in turn. Every speaker is in every quarter, because a
classifier cannot recognise a speaker that it was not trained on.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocable import audio
from vocable.codec.base import Codec
from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.linear import fit_labels, fit_speaker, fit_values, fold_by_speaker
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.pitch import HOP, PitchTracker
from vocable.evaluation.phones import PhoneRecogniser
from vocable.evaluation.pictures import scatter
from vocable.evaluation.runner import Outcome, Progress, Row, Task
from vocable.evaluation.suite import Suite
from vocable.evaluation.summary import exclusions, figure_cell
from vocable.evaluation.tokenizers import CodecTokenizer, load_available, makers
from vocable.extras import need
from vocable.page import Cell, Page, Table, to_png

LAYER_CHOICES = {":1": slice(0, 1), "1:2": slice(1, 2), "1:8": slice(1, 8), ":8": slice(0, 8)}
#: The labels that are read, and their headings in tables.
READINGS = {
    "speaker": "speaker accuracy %",
    "phone": "phone accuracy %",
    "pitch": "pitch R² %",
    "energy": "energy R² %",
}
FOLDS = 4
FRAME_RATE = SAMPLE_RATE / HOP  #: of the labels, per second
FLOOR = 1e-4  #: added to a frame's root mean square before the logarithm: -80 dB of full scale
PACKAGES = ("hama", "librosa")  #: which make the labels


@dataclass(frozen=True)
class LabelledClip:
    """A clip and the labels to be read from its vectors, FRAME_RATE frames a second."""

    id: str
    speaker: str
    frames: np.ndarray  #: int64 [N], the frames with a phone
    phones: np.ndarray  #: int64 [N], their phones
    pitch: np.ndarray  #: float64 [T], log Hz; NaN where unvoiced
    energy: np.ndarray  #: float64 [T], log root mean square
    waveform: np.ndarray  #: float32 [L] at 16 kHz


@dataclass(frozen=True)
class LabelFrames:
    """Task: an utterance -> its labels."""

    made_with: Mapping[str, str]  #: versions of PACKAGES

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        return {"made_with": dict(self.made_with)}

    def start(self) -> Callable[[Utterance], list[Row]]:
        """Load the recognisers and return the function that labels a clip."""
        track, recognise = PitchTracker(), PhoneRecogniser()

        def work(u: Utterance) -> list[Row]:
            waveform = audio.read(u.path, SAMPLE_RATE)[0]
            frames = -(-len(waveform) // HOP)
            padded = np.pad(waveform, (0, frames * HOP - len(waveform))).reshape(frames, HOP)
            phones = recognise(waveform)
            pitch = np.log(track(waveform))
            pitch = np.pad(pitch, (0, max(0, frames - len(pitch))), constant_values=np.nan)[:frames]
            row = {
                "clip": u.id,
                "speaker_id": u.speaker_key,
                "frames": phones.frames(FRAME_RATE, frames).tolist(),
                "phones": phones.phones.tolist(),
                "pitch": [None if np.isnan(value) else round(value, 5) for value in pitch.tolist()],
                "energy": np.log(np.sqrt(np.square(padded, dtype=np.float64).mean(1)) + FLOOR).round(5).tolist(),
            }
            return [row]

        return work


class Disentanglement(Suite):
    """Suite: speaker, phone, pitch and loudness, read from some layers of codecs."""

    name, title = "disentanglement", "Disentanglement"

    def __init__(self, clips: Sequence[Utterance], *, systems: Sequence[str], seed: int = 0) -> None:
        """systems: names of codecs, without layers."""
        super().__init__(clips, seed=seed)
        if sliced := [name for name in systems if "@" in name]:
            raise ValueError(f"{sliced[0]}: name the codec alone, all choices of layers are measured")
        found, self.missing = load_available(systems, with_codes=True)
        self.codecs: dict[str, Codec] = {}
        for name, tokenizer in found.items():
            if not isinstance(tokenizer, CodecTokenizer):
                raise ValueError(f"{name}: only the layers of a codec can be measured one by one")
            self.codecs[name] = tokenizer.codec
        for package in PACKAGES:
            need(package, "eval")
        self.labels_made_with = {package: importlib.metadata.version(package) for package in PACKAGES}
        self.made_with = self.labels_made_with | makers(found)
        self.labelled: list[LabelledClip] = []
        self.figures: dict[str, dict[str, Any]] = {}  #: system -> layers -> reading -> figure
        self.planes: dict[str, dict[str, np.ndarray]] = {}  #: system -> layers -> float [clips, 2]

    def task(self) -> Task[Utterance]:
        """Return the task that labels a clip."""
        return LabelFrames(self.labels_made_with)

    def measure(self, out: Path, *, jobs: int, progress: Progress) -> Outcome:
        """Label the clips in worker processes; then read the labels from each codec's layers, in this process."""
        outcome = super().measure(out, jobs=jobs, progress=progress)
        self.labelled = usable_clips(outcome.rows, {clip.id: clip for clip in self.clips})
        num_phones = 1 + max(int(clip.phones.max(initial=0)) for clip in self.labelled)
        for i, (name, codec) in enumerate(self.codecs.items()):
            self.figures[name], self.planes[name] = {}, {}
            for layers, vectors in embed(codec, self.labelled):
                self.figures[name][layers] = read(vectors, self.labelled, num_phones, seed=self.seed)
                self.planes[name][layers] = principal_plane(vectors)
            progress("reading layers", (i + 1) / len(self.codecs))
        return outcome

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each system and choice of layers."""
        return {
            "too_few_clips": len(rows) - len(self.labelled),
            "made_with": self.made_with,
            "not_available": self.missing,
            "chance": {reading: round(value, 2) for reading, value in chance(self.labelled).items()},
            "systems": self.figures,
        }

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{len(self.labelled)} clips of {len({clip.speaker for clip in self.labelled})} speakers"

    def draw(self, page: Page, clips: Sequence[Utterance]) -> None:
        """Add a scatter plot of the clips' mean vectors for each system."""
        speakers = [clip.speaker for clip in self.labelled]
        for name, planes in self.planes.items():
            caption = f"{name}: mean vectors of clips, by layers, on their first two principal axes; a colour a speaker"
            page.picture(to_png(scatter(planes, speakers)), caption=caption)

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return one table: a row for each system and choice of layers, and one for chance."""
        rows: list[list[Cell]] = []
        for system, choices in summary["systems"].items():
            for layers, readings in choices.items():
                cells: list[Cell] = [(layers, system)]
                rows.append(cells + [figure_cell(readings[reading], 1) for reading in READINGS])
        rows.append(["chance", *(f"{summary['chance'][reading]:.1f}" for reading in READINGS)])
        return {"Linear readings, by layers": (["layers", *READINGS.values()], rows)}

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on the linear maps and on exclusions."""
        few = summary["too_few_clips"]
        return [
            f"Linear maps, each fitted on {FOLDS - 1} of {FOLDS} parts of the clips and tested on the last, in turn. "
            "Under the figures, 95 % intervals by resampling speakers.",
            *[f"{few} clips are of speakers with fewer than {FOLDS} clips, and were not used."] * (few > 0),
            *exclusions(summary),
        ]


def usable_clips(rows: Sequence[Row], utterances: Mapping[str, Utterance]) -> list[LabelledClip]:
    """Return the clips of speakers with at least FOLDS clips. Raises ValueError if there are not two such speakers."""
    counts = Counter(row["speaker_id"] for row in rows)
    usable = [row for row in rows if counts[row["speaker_id"]] >= FOLDS]
    if len({row["speaker_id"] for row in usable}) < 2:
        raise ValueError(f"at least two speakers with {FOLDS} clips each are needed")
    return [
        LabelledClip(
            row["clip"],
            row["speaker_id"],
            np.array(row["frames"], np.int64),
            np.array(row["phones"], np.int64),
            np.array([np.nan if value is None else value for value in row["pitch"]]),
            np.array(row["energy"]),
            audio.read(utterances[row["clip"]].path, SAMPLE_RATE)[0],
        )
        for row in usable
    ]


def embed(codec: Codec, clips: Sequence[LabelledClip]) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield each choice of layers that the codec has, with the vectors of all clips: float64 [T, D].

    The vectors are at the frame rate of the labels: of a codec with another rate, each label takes the frame that
    contains the middle of its own.
    """
    codes = [codec.encode(clip.waveform, sample_rate=SAMPLE_RATE).codes for clip in clips]
    frames = []
    for clip, code in zip(clips, codes, strict=True):
        middles = (np.arange(len(clip.energy)) + 0.5) / FRAME_RATE
        frames.append(torch.from_numpy((middles * codec.frame_rate).astype(np.int64)).clamp_max(code.shape[2] - 1))
    for name, layers in LAYER_CHOICES.items():
        if layers.stop <= codec.num_quantizers:
            vectors = (codec.embed(code[:, layers], layers=layers)[0].T.double() for code in codes)
            yield name, [v[index] for v, index in zip(vectors, frames, strict=True)]


def read(vectors: Sequence[Tensor], clips: Sequence[LabelledClip], num_phones: int, *, seed: int = 0) -> dict[str, Any]:
    """Return speaker and phone accuracy, and R2 of pitch and energy, in percent, with 95 % intervals."""
    speakers = [clip.speaker for clip in clips]
    fold = fold_by_speaker(speakers, FOLDS)
    scores: dict[str, list[tuple[float, float]]] = {
        "speaker": fit_speaker(vectors, speakers, fold),
        "phone": fit_labels(
            [v[torch.from_numpy(clip.frames)] for v, clip in zip(vectors, clips, strict=True)],
            [clip.phones for clip in clips],
            num_phones,
            fold,
        ),
        "pitch": fit_values(vectors, [clip.pitch for clip in clips], fold),
        "energy": fit_values(vectors, [clip.energy for clip in clips], fold),
    }
    figures = {}
    for reading, counted in scores.items():
        valid = [i for i, (_, count) in enumerate(counted) if count > 0]
        found = statistics.figure([counted[i] for i in valid], [speakers[i] for i in valid], seed=seed)
        figures[reading] = found.scaled(100.0)
    return figures


def chance(clips: Sequence[LabelledClip]) -> dict[str, float]:
    """Return the figures, in percent, of always answering the most frequent label."""
    phones = np.concatenate([clip.phones for clip in clips])
    _, counts = np.unique([clip.speaker for clip in clips], return_counts=True)
    return {
        "speaker": 100 * float(counts.max() / counts.sum()),
        "phone": 100 * float(np.bincount(phones).max() / len(phones)),
        "pitch": 0.0,
        "energy": 0.0,
    }


def principal_plane(vectors: Sequence[Tensor]) -> np.ndarray:
    """Project the mean vectors of clips on their first two principal axes: float [N, 2]."""
    means = torch.stack([v.mean(0) for v in vectors])
    centred = means - means.mean(0)
    points: np.ndarray = (centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T).numpy()
    return points
