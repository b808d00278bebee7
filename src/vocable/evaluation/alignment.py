"""Text alignment of SLMTokBench for one tokenizer: the information between its tokens, text, and phones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import information, probe
from vocable.evaluation.phones import Phones
from vocable.evaluation.runner import Row
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer, split_spec
from vocable.evaluation.windows import WINDOW_SECONDS, Window
from vocable.extras import need

Counted = tuple[float, int]  #: a sum and the number of its terms

HELD_OUT = 0.05  #: fraction of the training speakers for validation
PHONE_CLIPS = 600  #: the number of training clips whose codes and phones are counted
READABLE = 0.9  #: the fraction of a text's letters that must be in the probe's alphabet
PROBE_RATE = 50.0  #: the lowest frame rate of a probe; tokens of lower rates are repeated
CONTRAST = 512  #: the number of pairs in each batch of InfoNCE


@dataclass(frozen=True)
class Budget:
    """Size and training time of each system's probe."""

    seconds: float = 600.0  #: of CPU time
    hidden: int = 256  #: units of each direction of the BiLSTM; 1024 in the paper
    layers: int = 1  #: layers of the BiLSTM; 2 in the paper


@dataclass(frozen=True)
class ClipSplit:
    """The clips of all systems, split for the probe; all have text."""

    train: list[Utterance]  #: to train the probe
    valid: list[Utterance]  #: of speakers held out of the training clips
    test: list[Utterance]  #: of other speakers

    @classmethod
    def split(cls, train: Sequence[Utterance], test: Sequence[Utterance], *, seed: int) -> ClipSplit:
        """Split the training clips, and leave out clips without text.

        Raises ValueError if a speaker or an id is in both lists, or one of them has no text in the probe's alphabet.
        """
        if shared := {u.speaker for u in train} & {u.speaker for u in test} - {None}:
            raise ValueError(f"speakers {', '.join(sorted(map(str, shared)))} are in both manifests")
        train, test = ([u for u in split if u.text and probe.normalize(u.text)] for split in (train, test))
        if not train or not test:
            raise ValueError("both manifests need clips with text")
        if same := {u.id for u in train} & {u.id for u in test}:
            raise ValueError(f"the id {min(same)!r} is in both manifests: rename one")
        unreadable = [u for u in (*train, *test) if probe.readable(u.text or "") < READABLE]
        if unreadable:
            raise ValueError(
                f"{unreadable[0].id}, {len(unreadable)} texts in all: the probe writes no letters but a to z"
            )
        speakers = sorted({u.speaker_key for u in train})
        count = max(1, round(HELD_OUT * len(speakers)))
        held_out = set(np.random.default_rng(seed).permutation(speakers)[:count].tolist())
        inside, outside = ([u for u in train if (u.speaker_key in held_out) is held] for held in (False, True))
        if not inside:
            raise ValueError("the training clips are all of one speaker: two are needed, one to validate on")
        return cls(inside, outside, list(test))

    @property
    def all(self) -> list[Utterance]:
        """All clips."""
        return [*self.train, *self.valid, *self.test]

    @property
    def phone_clips(self) -> list[Utterance]:
        """The training clips whose codes and phones are counted."""
        return spread(self.train, PHONE_CLIPS)


@dataclass(frozen=True)
class Candidate:
    """Item of the runner: a tokenizer under test."""

    name: str  #: for `load_tokenizer`
    made_by: str  #: codec id, version

    @property
    def id(self) -> str:
        """The name and what made it."""
        return f"{self.name} {self.made_by}"


@dataclass(frozen=True)
class MeasureAlignment:
    """Task: a tokenizer -> a row of its figures, and a row for each test clip."""

    split: ClipSplit
    codes: Mapping[str, Mapping[str, np.ndarray]]  #: tokenizer with all layers -> clip -> int64 [K, T]
    phones: Mapping[str, Phones]  #: clip -> its phones
    num_phones: int  #: symbols of the phone recogniser
    windows: Sequence[Window]  #: of test clips
    budget: Budget
    seed: int

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        phones = [(clip, p.seconds.tolist(), p.phones.tolist()) for clip, p in self.phones.items()]
        given = {"clips": self.split.all, "windows": list(self.windows), "phones": phones}
        digests = {key: hashlib.sha256(repr(value).encode()).hexdigest()[:12] for key, value in given.items()}
        return digests | {"budget": asdict(self.budget), "seed": self.seed}

    def start(self) -> Callable[[Candidate], list[Row]]:
        """Return the function that measures a tokenizer."""
        return self._measure

    def _measure(self, candidate: Candidate) -> list[Row]:
        """Return a row of the tokenizer, and one for each test clip."""
        tokenizer = load_tokenizer(candidate.name)
        whole, layers = split_spec(candidate.name)
        codes = {clip: found[layers] for clip, found in self.codes[whole].items()}
        # CTC needs a frame for each character: tokens of low rates are repeated, so that they can spell the same texts.
        repeats = max(1, math.ceil(PROBE_RATE / tokenizer.frame_rate))
        frames = {clip: torch.from_numpy(c).repeat_interleave(repeats, 1) for clip, c in codes.items()}
        examples = [
            probe.Example(frames[u.id], probe.normalize(u.text or "")) for u in self.split.train if u.id in frames
        ]
        trained, steps = probe.train_probe(
            examples,
            tokenizer.embed,
            seconds=self.budget.seconds,
            hidden=self.budget.hidden,
            layers=self.budget.layers,
            seed=self.seed,
        )
        valid, test = (_errors(trained, tokenizer, frames, clips) for clips in (self.split.valid, self.split.test))
        edits, length = np.array([row["probe_cer"] for row in valid], float).reshape(-1, 2).sum(0)
        row: Row = {
            "system": candidate.name,
            "probe_steps": steps,
            "train_without_path": sum(probe.frames_needed(e.text) > e.codes.shape[1] for e in examples),
            "valid_cer": round(100 * edits / max(length, 1), 2),
        }
        of_windows = _variational(tokenizer, repeats, trained, self.windows, frames)
        of_frames = self._phone_information(tokenizer, codes)
        by_clip = [{"system": candidate.name, **clip} for clip in test]
        for figures, of_clips in (of_windows, of_frames):
            row |= figures
            for clip in by_clip:
                clip |= of_clips.get(clip["clip"], {})
        return [row, *by_clip]

    def _phone_information(
        self, tokenizer: Tokenizer, codes: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Counted]]]:
        """Measure the information between codes and phones: bits for one code per frame, InfoNCE for any number."""
        splits: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {"train": {}, "test": {}}
        for split, clips in (("train", self.split.phone_clips), ("test", self.split.test)):
            for clip in clips:
                if clip.id in codes and clip.id in self.phones:
                    phones = self.phones[clip.id]
                    frames = phones.frames(tokenizer.frame_rate, codes[clip.id].shape[1])
                    splits[split][clip.id] = codes[clip.id][:, frames], phones.phones
        return _information(tokenizer, splits["train"], splits["test"], self.num_phones, self.seed)


def _errors(
    trained: probe.TextProbe, tokenizer: Tokenizer, frames: Mapping[str, Tensor], clips: Sequence[Utterance]
) -> list[Row]:
    """Return a row for each clip that has codes: the probe's word and character errors as [edits, length]."""
    jiwer = need("jiwer", "eval")
    rows = []
    for clip in clips:
        if clip.id in frames:
            text, output = probe.normalize(clip.text or ""), probe.decode(trained, tokenizer.embed(frames[clip.id]))
            row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key}
            for name, process in (("probe_wer", jiwer.process_words), ("probe_cer", jiwer.process_characters)):
                found = process(text, output)
                edits = found.substitutions + found.deletions + found.insertions
                row[name] = [edits, found.hits + found.substitutions + found.deletions]
            rows.append(row)
    return rows


def _variational(
    tokenizer: Tokenizer,
    repeats: int,
    trained: probe.TextProbe,
    windows: Sequence[Window],
    frames: Mapping[str, Tensor],
) -> tuple[dict[str, Any], dict[str, dict[str, Counted]]]:
    """Estimate vCLUB over windows in nats; return the figures of all windows, and those of each clip."""
    rate = tokenizer.frame_rate * repeats
    length = round(WINDOW_SECONDS * rate)
    vectors, texts, clips, left_out = [], [], [], 0
    for window in windows:
        start = round(window.start * rate)
        cut = frames[window.clip][:, start : start + length] if window.clip in frames else torch.zeros(1, 0)
        if cut.shape[1] < length or probe.frames_needed(window.text) > length:
            left_out += 1
            continue
        vectors.append(tokenizer.embed(cut))
        texts.append(window.text)
        clips.append(window.clip)
    counts = {"windows": len(texts), "windows_left_out": left_out}
    if len(texts) < 2:
        return {"vclub": counts}, {}
    found = information.vclub(probe.log_likelihoods(trained, vectors, texts))
    figures = {"value": round(found.value, 3), "infeasible": found.infeasible, "pairs": found.pairs}
    return {"vclub": figures | counts}, _by_clip("vclub", clips, found.by_pair.tolist())


def _by_clip(name: str, clips: Sequence[str], values: Sequence[float]) -> dict[str, dict[str, Counted]]:
    """Return the sum and the number of each clip's values: clip -> name -> (sum, count)."""
    found: dict[str, dict[str, Counted]] = {}
    for clip, value in zip(clips, values, strict=True):
        total, count = found.setdefault(clip, {name: (0.0, 0)})[name]
        found[clip][name] = total + value, count + 1
    return found


def _information(
    tokenizer: Tokenizer,
    train: Mapping[str, tuple[np.ndarray, np.ndarray]],
    test: Mapping[str, tuple[np.ndarray, np.ndarray]],
    num_phones: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[str, Counted]]]:
    """Measure the information between codes and phones; return the figures of all clips, and those of each test clip.

    train, test: clip -> codes [K', N] and phones [N] of the frames that have a phone. Counts are of both; the critic of
    InfoNCE is trained on `train` and evaluated on `test`.
    """
    figures: dict[str, Any] = {}
    (train_codes, train_phones), (test_codes, test_phones) = (
        (np.concatenate([c for c, _ in split.values()], 1), np.concatenate([p for _, p in split.values()]))
        for split in (train, test)
    )
    clips = [clip for clip, (_, phones) in test.items() for _ in phones]
    by_clip: dict[str, dict[str, Counted]] = {}
    if len(train_codes) == 1:
        pooled = np.concatenate([train_codes[0], test_codes[0]]), np.concatenate([train_phones, test_phones])
        size = int(pooled[0].max()) + 1
        table = information.count_table(*pooled, size, num_phones)
        figures["bits"] = {
            "value": round(information.mutual_information(table), 4),
            "plug_in": round(information.mutual_information(table, corrected=False), 4),
            "shuffled": round(information.shuffled_information(*pooled, size, num_phones, seed=seed), 4),
            "phone_entropy": round(information.entropy(table.sum(0), corrected=True), 4),
            "frames": int(table.sum()),
        }
        figures["phone_purity"] = round(information.phone_purity(table), 4)
        figures["code_purity"] = round(information.code_purity(table), 4)
        figures["pnmi"] = round(information.phone_normalized_information(table), 4)
        by_clip = _by_clip("bits", clips, information.pointwise_information(table, test_codes[0], test_phones).tolist())
    vectors = [tokenizer.embed(torch.from_numpy(np.ascontiguousarray(c))) for c in (train_codes, test_codes)]
    labels = [torch.from_numpy(p) for p in (train_phones, test_phones)]
    critic = information.fit_critic(vectors[0], labels[0], num_phones, seed=seed)
    order = torch.randperm(len(vectors[1]), generator=torch.Generator().manual_seed(seed))
    size = min(CONTRAST, len(order))
    order = order[: len(order) // size * size].view(-1, size)
    with torch.inference_mode():
        found = information.info_nce(torch.stack([critic(vectors[1][i], labels[1][i]) for i in order]))
    figures["info_nce"] = {"value": round(found.value, 4), "ceiling": round(found.ceiling, 4)}
    contrasts = _by_clip("info_nce", [clips[i] for i in order.flatten().tolist()], found.by_pair.flatten().tolist())
    return figures, {clip: by_clip.get(clip, {}) | contrasts.get(clip, {}) for clip in by_clip | contrasts}
