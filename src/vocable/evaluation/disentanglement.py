"""The premise of SpeechTokenizer, measured: what can be read, by linear maps, from which layers.

For RVQ-1 alone, RVQ-2, all but RVQ-1, and all: who speaks (from the mean vector of a clip), the phone, the pitch and
the loudness (frame by frame). Every map is fitted on three quarters of the clips and read on the last, in turn; every
speaker is in every quarter, because a classifier cannot know a speaker whom it never heard.
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
from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.pitch import HOP, PitchTracker
from vocable.evaluation.page import Cell, Page, Table, scatter
from vocable.evaluation.phones import PhoneRecogniser, softmax_regression
from vocable.evaluation.reconstruction import available, figure_cell, makers
from vocable.evaluation.runner import Progress, Row, describe, exclusions, run, write_json
from vocable.evaluation.tokenizers import Ours
from vocable.extras import need

LAYERS = {":1": slice(0, 1), "1:2": slice(1, 2), "1:8": slice(1, 8), ":8": slice(0, 8)}
READINGS = {  #: and how a table heads them
    "speaker": "speaker accuracy %",
    "phone": "phone accuracy %",
    "pitch": "pitch R² %",
    "energy": "energy R² %",
}
FOLDS = 4
RIDGE = 1e-3  #: as a share of the inputs' mean variance
FLOOR = 1e-4  #: under a frame's root mean square, before the logarithm: 80 dB under full scale


@dataclass(frozen=True)
class Clip:
    """What is to be read from one clip's vectors."""

    id: str
    speaker: str
    frames: np.ndarray  #: int64 [N], where a phone was heard
    phones: np.ndarray  #: int64 [N]
    pitch: np.ndarray  #: float64 [T], log Hz; NaN where unvoiced
    energy: np.ndarray  #: float64 [T], log root mean square
    waveform: np.ndarray


@dataclass(frozen=True)
class Listening:
    """A task of the runner: an utterance -> what there is to be read in it, 50 frames a second."""

    made_with: Mapping[str, str]  #: versions of the judges

    def plan(self) -> dict[str, Any]:
        return {"made_with": dict(self.made_with)}

    def start(self) -> Callable[[Utterance], list[Row]]:
        track, recognise = PitchTracker(), PhoneRecogniser()

        def work(u: Utterance) -> list[Row]:
            waveform = audio.read(u.path, SAMPLE_RATE)[0]
            frames = -(-len(waveform) // HOP)
            padded = np.pad(waveform, (0, frames * HOP - len(waveform))).reshape(frames, HOP)
            heard = recognise(waveform)
            pitch = np.log(track(waveform))
            pitch = np.pad(pitch, (0, max(0, frames - len(pitch))), constant_values=np.nan)[:frames]
            row = {
                "clip": u.id,
                "speaker_id": u.speaker_key,
                "frames": heard.frames(50.0, frames).tolist(),
                "phones": heard.phones.tolist(),
                "pitch": [None if np.isnan(value) else round(value, 5) for value in pitch.tolist()],
                "energy": np.log(np.sqrt(np.square(padded, dtype=np.float64).mean(1)) + FLOOR).round(5).tolist(),
            }
            return [row]

        return work


def clips_of(rows: Sequence[Row], utterances: Mapping[str, Utterance]) -> list[Clip]:
    """The clips of speakers with at least FOLDS clips."""
    counts = Counter(row["speaker_id"] for row in rows)
    usable = [row for row in rows if counts[row["speaker_id"]] >= FOLDS]
    if len({row["speaker_id"] for row in usable}) < 2:
        raise ValueError(f"at least two speakers with {FOLDS} clips each are needed")
    return [
        Clip(
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


def embed(system: Ours, clips: Sequence[Clip]) -> Iterator[tuple[str, list[Tensor]]]:
    """Vectors of all clips, float64 [T, D], for one choice of layers after another, of those that the codec has."""
    codes = [system.model.encode(clip.waveform, sample_rate=SAMPLE_RATE).codes for clip in clips]
    for name, layers in LAYERS.items():
        if layers.stop <= system.model.num_quantizers:
            yield name, [system.model.embed(c[:, layers], layers=layers)[0].T.double() for c in codes]


def measure(vectors: Sequence[Tensor], clips: Sequence[Clip], num_phones: int, seed: int = 0) -> dict[str, Any]:
    """Speaker and phone accuracy, and R2 of pitch and energy, with 95 % intervals."""
    fold = _folds(clips)
    speakers = [clip.speaker for clip in clips]
    scores: dict[str, list[tuple[float, float]]] = {
        "speaker": read_speaker(vectors, speakers, fold),
        "phone": read_phones(vectors, clips, num_phones, fold),
        "pitch": read_values(vectors, [clip.pitch for clip in clips], fold),
        "energy": read_values(vectors, [clip.energy for clip in clips], fold),
    }
    figures = {}
    for reading, counted in scores.items():
        valid = [i for i, (_, count) in enumerate(counted) if count > 0]
        found = statistics.figure([counted[i] for i in valid], [speakers[i] for i in valid], seed)
        figures[reading] = found.scaled(100.0)
    return figures


def chance(clips: Sequence[Clip]) -> dict[str, float]:
    """What knowing nothing earns, in percent: the commonest answer every time."""
    phones = np.concatenate([clip.phones for clip in clips])
    _, spoken = np.unique([clip.speaker for clip in clips], return_counts=True)
    return {
        "speaker": 100 * float(spoken.max() / spoken.sum()),
        "phone": 100 * float(np.bincount(phones).max() / len(phones)),
        "pitch": 0.0,
        "energy": 0.0,
    }


def _folds(clips: Sequence[Clip]) -> np.ndarray:
    """int64 [N]: a speaker's clips dealt out over the folds."""
    dealt: dict[str, int] = {}
    fold = []
    for clip in clips:
        dealt[clip.speaker] = dealt.get(clip.speaker, -1) + 1
        fold.append(dealt[clip.speaker] % FOLDS)
    return np.array(fold)


def read_speaker(vectors: Sequence[Tensor], speakers: Sequence[str], fold: np.ndarray) -> list[tuple[float, float]]:
    """(right, 1) for each clip: logistic regression of the speaker on the mean vector."""
    known = {speaker: i for i, speaker in enumerate(sorted(set(speakers)))}
    means = torch.stack([v.mean(0) for v in vectors])
    labels = torch.tensor([known[speaker] for speaker in speakers])
    scores: list[tuple[float, float]] = [(0.0, 0.0)] * len(speakers)
    for k in range(FOLDS):
        inside = torch.from_numpy(fold != k)
        # A few hundred clips against a hundred numbers each: a firmer hand than with frames.
        weight = softmax_regression(means[inside], torch.nn.functional.one_hot(labels[inside], len(known)), decay=1e-2)
        right = (_affine(means, weight).argmax(1) == labels).tolist()
        for i in np.flatnonzero(fold == k).tolist():
            scores[i] = (float(right[i]), 1.0)
    return scores


def read_phones(
    vectors: Sequence[Tensor], clips: Sequence[Clip], num_phones: int, fold: np.ndarray
) -> list[tuple[float, float]]:
    """(right, phones) for each clip."""
    inputs = [v[torch.from_numpy(clip.frames)] for v, clip in zip(vectors, clips, strict=True)]
    scores: list[tuple[float, float]] = [(0.0, 0.0)] * len(clips)
    for k in range(FOLDS):
        inside = np.flatnonzero(fold != k).tolist()
        labels = torch.from_numpy(np.concatenate([clips[i].phones for i in inside]))
        one_hot = torch.nn.functional.one_hot(labels, num_phones)
        weight = softmax_regression(torch.cat([inputs[i] for i in inside]), one_hot)
        for i in np.flatnonzero(fold == k).tolist():
            best = _affine(inputs[i], weight).argmax(1).numpy()
            scores[i] = float((best == clips[i].phones).sum()), float(len(best))
    return scores


def read_values(vectors: Sequence[Tensor], values: Sequence[np.ndarray], fold: np.ndarray) -> list[tuple[float, float]]:
    """(explained, total) squares for each clip, whose ratio over clips is R2: ridge regression, frames that are NaN
    left out."""
    inputs, targets = [], []
    for v, value in zip(vectors, values, strict=True):
        known = np.flatnonzero(np.isfinite(value[: len(v)]))
        inputs.append(v[torch.from_numpy(known)])
        targets.append(torch.from_numpy(value[known]))
    scores: list[tuple[float, float]] = [(0.0, 0.0)] * len(values)
    for k in range(FOLDS):
        inside = np.flatnonzero(fold != k).tolist()
        x, y = torch.cat([inputs[i] for i in inside]), torch.cat([targets[i] for i in inside])
        mean_x, mean_y = x.mean(0), y.mean()
        gram = (x - mean_x).T @ (x - mean_x)
        penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + penalty, (x - mean_x).T @ (y - mean_y))
        for i in np.flatnonzero(fold == k).tolist():
            predicted = (inputs[i] - mean_x) @ weight + mean_y
            total = float((targets[i] - mean_y).square().sum())
            scores[i] = total - float((targets[i] - predicted).square().sum()), total
    return scores


def _affine(inputs: Tensor, weight: Tensor) -> Tensor:
    """weight [D + 1, C], the bias last."""
    return inputs @ weight[:-1] + weight[-1]


def evaluate(
    clips: Sequence[Utterance],
    out: Path,
    *,
    systems: Sequence[str],
    jobs: int = 1,
    seed: int = 0,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json, index.html and tables.md, with pictures of clips by speaker."""
    if sliced := [name for name in systems if "@" in name]:
        raise ValueError(f"{sliced[0]}: name the codec alone, all choices of layers are measured")
    found, missing = available(systems, tokens=True)
    codecs: dict[str, Ours] = {}
    for name, system in found.items():
        if not isinstance(system, Ours) or system.frame_rate != 50.0:
            raise ValueError(f"{name}: layers can be told apart in a SpeechTokenizer of 50 frames a second alone")
        codecs[name] = system
    for package in ("hama", "librosa"):
        need(package, "eval")
    made_with = {package: importlib.metadata.version(package) for package in ("hama", "librosa")}
    outcome = run(Listening(made_with), clips, out, jobs, progress)
    described = describe(clips, outcome)
    heard = clips_of(outcome.rows, {clip.id: clip for clip in clips})
    num_phones = 1 + max(int(clip.phones.max(initial=0)) for clip in heard)
    measured: dict[str, Any] = {}
    speakers = [clip.speaker for clip in heard]
    page = Page("Disentanglement", f"{len(heard)} clips of {len(set(speakers))} speakers")
    pictures = {}
    for i, (name, system) in enumerate(codecs.items()):
        measured[name], planes = {}, {}
        for layers, vectors in embed(system, heard):
            measured[name][layers] = measure(vectors, heard, num_phones, seed)
            planes[layers] = _plane(vectors)
        pictures[name] = scatter(planes, speakers)
        progress("reading layers", (i + 1) / len(codecs))
    summary = {
        "suite": "disentanglement",
        **described,
        "too_few_clips": described["clips"] - len(heard),
        "made_with": made_with | makers(found),
        "not_available": missing,
        "seed": seed,
        "chance": {reading: round(value, 2) for reading, value in chance(heard).items()},
        "systems": measured,
    }
    write_json(out / "summary.json", summary)
    page.tables(tables(summary))
    page.notes(notes(summary))
    for name, picture in pictures.items():
        page.picture(
            picture, f"{name}: mean vectors of clips, by layers, on their first two principal axes; a colour a speaker"
        )
    page.write(out)
    return summary


def _plane(vectors: Sequence[Tensor]) -> np.ndarray:
    """Mean vectors of clips on their first two principal axes: float [N, 2]."""
    means = torch.stack([v.mean(0) for v in vectors])
    centred = means - means.mean(0)
    points: np.ndarray = (centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T).numpy()
    return points


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """A row for each system and choice of layers, and what knowing nothing earns."""
    rows: list[list[Cell]] = []
    for system, conditions in summary["systems"].items():
        for layers, readings in conditions.items():
            cells: list[Cell] = [(layers, system)]
            rows.append(cells + [figure_cell(readings[reading], 1) for reading in READINGS])
    rows.append(["knowing nothing", *(f"{summary['chance'][reading]:.1f}" for reading in READINGS)])
    return {"What can be read from which layers": (["layers", *READINGS.values()], rows)}


def notes(summary: Mapping[str, Any]) -> list[str]:
    few = summary["too_few_clips"]
    return [
        f"Linear maps, each fitted on {FOLDS - 1} of {FOLDS} parts of the clips and read on the last, in turn. Under "
        "the figures, 95 % intervals by resampling speakers.",
        *[f"{few} clips are of speakers with fewer than {FOLDS} clips, and were not used."] * (few > 0),
        *exclusions(summary),
    ]
