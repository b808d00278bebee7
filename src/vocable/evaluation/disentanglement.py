"""The premise of SpeechTokenizer, measured: what can be read, by linear maps, from which layers.

For RVQ-1 alone, RVQ-2, all but RVQ-1, and all: who speaks (from the mean vector of a clip), the phone, the pitch and
the loudness (frame by frame). Every map is fitted on three quarters of the clips and read on the last, in turn; every
speaker is in every quarter, because a classifier cannot know a speaker whom it never heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vocable.evaluation.metrics.pitch import PitchTracker
from vocable.evaluation.page import Cell, Page, Table, scatter
from vocable.evaluation.phones import PhoneRecogniser, softmax_regression
from vocable.evaluation.reconstruction import figure_cell
from vocable.evaluation.runner import Outcome, Progress, describe, exclusions, write_json
from vocable.evaluation.tokenizers import Ours, load_tokenizer

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


def listen(clips: Sequence[Utterance], progress: Progress = lambda stage, share: None) -> list[Clip]:
    """The clips of speakers with at least FOLDS clips, as the judges hear them: 50 frames a second."""
    counts: dict[str | None, int] = {}
    for clip in clips:
        counts[clip.speaker] = counts.get(clip.speaker, 0) + 1
    usable = [u for u in clips if u.speaker is not None and counts[u.speaker] >= FOLDS]
    if len({u.speaker for u in usable}) < 2:
        raise ValueError(f"at least two speakers with {FOLDS} clips each are needed")
    track, recognise = PitchTracker(), PhoneRecogniser()
    found = []
    for i, u in enumerate(usable):
        progress("listening", i / len(usable))
        waveform = audio.read(u.path, SAMPLE_RATE)[0]
        frames = -(-len(waveform) // 320)
        padded = np.pad(waveform, (0, frames * 320 - len(waveform))).reshape(frames, 320)
        heard = recognise(waveform)
        pitch = np.log(track(waveform))
        pitch = np.pad(pitch, (0, max(0, frames - len(pitch))), constant_values=np.nan)[:frames]
        energy = np.log(np.sqrt(np.square(padded, dtype=np.float64).mean(1)) + FLOOR)
        found.append(Clip(u.id, str(u.speaker), heard.frames(50.0, frames), heard.phones, pitch, energy, waveform))
    return found


def measure(system: Ours, clips: Sequence[Clip], num_phones: int, seed: int = 0) -> dict[str, Any]:
    """For each choice of layers: speaker and phone accuracy, and R2 of pitch and energy, with 95 % intervals."""
    if system.model.frame_rate != 50.0:
        raise ValueError(f"{system.name}: 50 frames a second are needed")
    fold = _folds(clips)
    codes = [system.model.encode(clip.waveform, SAMPLE_RATE).codes for clip in clips]
    speakers = [clip.speaker for clip in clips]
    figures: dict[str, Any] = {}
    for name, layers in LAYERS.items():
        if layers.stop > system.model.num_quantizers:
            continue
        vectors = [system.model.embed(c[:, layers], layers)[0].T.double() for c in codes]
        scores: dict[str, list[tuple[float, float]]] = {
            "speaker": read_speaker(vectors, speakers, fold),
            "phone": read_phones(vectors, clips, num_phones, fold),
            "pitch": read_values(vectors, [clip.pitch for clip in clips], fold),
            "energy": read_values(vectors, [clip.energy for clip in clips], fold),
        }
        figures[name] = {}
        for reading, counted in scores.items():
            valid = [i for i, (_, count) in enumerate(counted) if count > 0]
            found = statistics.figure([counted[i] for i in valid], [speakers[i] for i in valid], seed)
            figures[name][reading] = found.scaled(100.0)
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
    seed: int = 0,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT/summary.json, index.html and tables.md, with pictures of clips by speaker; returns the summary."""
    heard = listen(clips, progress)
    num_phones = 1 + max(int(clip.phones.max(initial=0)) for clip in heard)
    measured: dict[str, Any] = {}
    page = Page("Disentanglement", f"{len(heard)} clips of {len({clip.speaker for clip in heard})} speakers")
    pictures = {}
    for i, name in enumerate(systems):
        system = load_tokenizer(name)
        if not isinstance(system, Ours):
            raise ValueError(f"{name}: layers can be told apart in a SpeechTokenizer alone")
        measured[name] = measure(system, heard, num_phones, seed)
        pictures[name] = scatter(_plane(system, heard), [clip.speaker for clip in heard])
        progress("reading layers", (i + 1) / len(systems))
    used = {clip.id for clip in heard}
    summary = {
        "suite": "disentanglement",
        **describe([u for u in clips if u.id in used], Outcome()),
        "made_with": {name: load_tokenizer(name).made_by for name in systems},
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


def _plane(system: Ours, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """Mean vectors of clips on their first two principal axes, for each choice of layers: float [N, 2]."""
    found = {}
    codes = [system.model.encode(clip.waveform, SAMPLE_RATE).codes for clip in clips]
    for name, layers in LAYERS.items():
        if layers.stop <= system.model.num_quantizers:
            means = torch.stack([system.model.embed(c[:, layers], layers)[0].mean(1) for c in codes])
            centred = (means - means.mean(0)).double()
            found[name] = (centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T).numpy()
    return found


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
    return [
        f"Linear maps, each fitted on {FOLDS - 1} of {FOLDS} parts of the clips and read on the last, in turn. Under "
        "the figures, 95 % intervals by resampling speakers.",
        *exclusions(summary),
    ]
