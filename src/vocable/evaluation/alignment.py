"""What a tokenizer's tokens tell of text and phones: SLMTokBench's text alignment, for one tokenizer."""

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
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer, whole_of
from vocable.extras import need

Counted = tuple[float, int]  #: a sum, and of how many: what figures are made of

WINDOW_SECONDS = 2.0
HELD_OUT_SHARE = 0.05  #: of the training speakers, to validate on
PHONE_CLIPS = 600  #: of the training clips, whose codes and phones are counted
READABLE = 0.9  #: the share of a text's letters that the probe must be able to write
PROBE_RATE = 50.0  #: frames a second that a probe has at least
CONTRAST = 512  #: pairs that each is told from, in InfoNCE


@dataclass(frozen=True)
class Budget:
    """What each system's probe is given."""

    seconds: float = 600.0  #: of CPU time
    hidden: int = 256  #: the paper's: 1024
    layers: int = 1  #: the paper's: 2


@dataclass(frozen=True)
class Speech:
    """The clips that all systems are measured on; all have text."""

    train: list[Utterance]
    valid: list[Utterance]  #: of speakers held out of the training clips
    test: list[Utterance]

    @classmethod
    def split(cls, train: Sequence[Utterance], test: Sequence[Utterance], seed: int) -> Speech:
        """Raises ValueError if a speaker or an id is in both, or one of them has no text that a probe can write."""
        if shared := {u.speaker for u in train} & {u.speaker for u in test} - {None}:
            raise ValueError(f"speakers {', '.join(sorted(map(str, shared)))} are in both manifests")
        train, test = ([u for u in split if u.text and probe.normalize(u.text)] for split in (train, test))
        if not train or not test:
            raise ValueError("both manifests need clips with text")
        if same := {u.id for u in train} & {u.id for u in test}:
            raise ValueError(f"the id {min(same)!r} is in both manifests: rename one")
        strange = [u for u in (*train, *test) if probe.readable(u.text or "") < READABLE]
        if strange:
            raise ValueError(f"{strange[0].id}, {len(strange)} texts in all: the probe writes no letters but a to z")
        speakers = sorted({u.speaker_key for u in train})
        count = max(1, round(HELD_OUT_SHARE * len(speakers)))
        held_out = set(np.random.default_rng(seed).permutation(speakers)[:count].tolist())
        inside, outside = ([u for u in train if (u.speaker_key in held_out) is held] for held in (False, True))
        if not inside:
            raise ValueError("the training clips are all of one speaker: two are needed, one to validate on")
        return cls(inside, outside, list(test))

    @property
    def all(self) -> list[Utterance]:
        return [*self.train, *self.valid, *self.test]

    @property
    def phone_clips(self) -> list[Utterance]:
        return spread(self.train, PHONE_CLIPS)


@dataclass(frozen=True)
class Window:
    """WINDOW_SECONDS of a clip from `start` on, and the words in it."""

    clip: str
    start: float
    text: str


@dataclass(frozen=True)
class Candidate:
    """An item of the runner: a tokenizer under test."""

    name: str
    made_by: str

    @property
    def id(self) -> str:
        return f"{self.name} {self.made_by}"


@dataclass(frozen=True)
class Alignment:
    """A task of the runner: a tokenizer -> a row of all that its tokens tell of text and phones."""

    speech: Speech
    codes: Mapping[str, Mapping[str, np.ndarray]]  #: of whole tokenizers, by clip, int64 [K, T]
    phones: Mapping[str, Phones]
    num_phones: int
    windows: Sequence[Window]
    budget: Budget
    seed: int

    def plan(self) -> dict[str, Any]:
        heard = [(clip, p.seconds.tolist(), p.phones.tolist()) for clip, p in self.phones.items()]
        given = {"clips": self.speech.all, "windows": list(self.windows), "phones": heard}
        digests = {key: hashlib.sha256(repr(value).encode()).hexdigest()[:12] for key, value in given.items()}
        return digests | {"budget": asdict(self.budget), "seed": self.seed}

    def start(self) -> Callable[[Candidate], list[Row]]:
        return self._measure

    def _measure(self, candidate: Candidate) -> list[Row]:
        """A row of the system, and one for each test clip, of its probe's errors."""
        system = load_tokenizer(candidate.name)
        whole, layers = whole_of(candidate.name)
        codes = {clip: found[layers] for clip, found in self.codes[whole].items()}
        # A character needs a frame: slow tokens are repeated, so that all probes can write the same texts.
        repeats = max(1, math.ceil(PROBE_RATE / system.frame_rate))
        frames = {clip: torch.from_numpy(c).repeat_interleave(repeats, 1) for clip, c in codes.items()}
        examples = [
            probe.Example(frames[u.id], probe.normalize(u.text or "")) for u in self.speech.train if u.id in frames
        ]
        trained, steps = probe.train_probe(
            examples,
            system.embed,
            seconds=self.budget.seconds,
            hidden=self.budget.hidden,
            layers=self.budget.layers,
            seed=self.seed,
        )
        valid, test = (_errors(trained, system, frames, clips) for clips in (self.speech.valid, self.speech.test))
        edits, length = np.array([row["probe_cer"] for row in valid], float).reshape(-1, 2).sum(0)
        row: Row = {
            "system": candidate.name,
            "probe_steps": steps,
            "train_without_path": sum(probe.frames_needed(e.text) > e.codes.shape[1] for e in examples),
            "valid_cer": round(100 * edits / max(length, 1), 2),
        }
        of_windows = _variational(system, repeats, trained, self.windows, frames)
        of_frames = self._informative(system, codes)
        by_clip = [{"system": candidate.name, **clip} for clip in test]
        for figures, told in (of_windows, of_frames):
            row |= figures
            for clip in by_clip:
                clip |= told.get(clip["clip"], {})
        return [row, *by_clip]

    def _informative(
        self, system: Tokenizer, codes: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Counted]]]:
        """Codes against phones, frame by frame: bits where there is one code a frame, InfoNCE for any."""
        splits: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {"train": {}, "test": {}}
        for split, clips in (("train", self.speech.phone_clips), ("test", self.speech.test)):
            for clip in clips:
                if clip.id in codes and clip.id in self.phones:
                    heard = self.phones[clip.id]
                    frames = heard.frames(system.frame_rate, codes[clip.id].shape[1])
                    splits[split][clip.id] = codes[clip.id][:, frames], heard.phones
        return _information(system, splits["train"], splits["test"], self.num_phones, self.seed)


def _errors(
    trained: probe.TextProbe, system: Tokenizer, frames: Mapping[str, Tensor], clips: Sequence[Utterance]
) -> list[Row]:
    """Of each clip that has codes: its words and characters, as edits and length."""
    jiwer = need("jiwer", "eval")
    rows = []
    for clip in clips:
        if clip.id in frames:
            said, heard = probe.normalize(clip.text or ""), probe.read(trained, system.embed(frames[clip.id]))
            row: Row = {"clip": clip.id, "speaker_id": clip.speaker_key}
            for name, process in (("probe_wer", jiwer.process_words), ("probe_cer", jiwer.process_characters)):
                found = process(said, heard)
                edits = found.substitutions + found.deletions + found.insertions
                row[name] = [edits, found.hits + found.substitutions + found.deletions]
            rows.append(row)
    return rows


def _variational(
    system: Tokenizer,
    repeats: int,
    trained: probe.TextProbe,
    windows: Sequence[Window],
    frames: Mapping[str, Tensor],
) -> tuple[dict[str, Any], dict[str, dict[str, Counted]]]:
    """vCLUB over windows, nats: of all with what was left out, and of each clip's."""
    rate = system.frame_rate * repeats
    length = round(WINDOW_SECONDS * rate)
    vectors, texts, clips, left_out = [], [], [], 0
    for window in windows:
        start = round(window.start * rate)
        cut = frames[window.clip][:, start : start + length] if window.clip in frames else torch.zeros(1, 0)
        if cut.shape[1] < length or probe.frames_needed(window.text) > length:
            left_out += 1
            continue
        vectors.append(system.embed(cut))
        texts.append(window.text)
        clips.append(window.clip)
    counts = {"windows": len(texts), "windows_left_out": left_out}
    if len(texts) < 2:
        return {"vclub": counts}, {}
    found = information.vclub(probe.log_likelihoods(trained, vectors, texts))
    figures = {"value": round(found.value, 3), "infeasible": found.infeasible, "pairs": found.pairs}
    return {"vclub": figures | counts}, _by_clip("vclub", clips, found.by_pair.tolist())


def _by_clip(name: str, clips: Sequence[str], values: Sequence[float]) -> dict[str, dict[str, Counted]]:
    """The sum and the count of each clip's values."""
    found: dict[str, dict[str, Counted]] = {}
    for clip, value in zip(clips, values, strict=True):
        total, count = found.setdefault(clip, {name: (0.0, 0)})[name]
        found[clip][name] = total + value, count + 1
    return found


def _information(
    system: Tokenizer,
    train: Mapping[str, tuple[np.ndarray, np.ndarray]],
    test: Mapping[str, tuple[np.ndarray, np.ndarray]],
    num_phones: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[str, Counted]]]:
    """Of each clip's codes [K', N] and phones [N], counted on all, the critic trained on one split and read on the
    other: of all, and of each test clip."""
    figures: dict[str, Any] = {}
    (train_codes, train_phones), (test_codes, test_phones) = (
        (np.concatenate([c for c, _ in split.values()], 1), np.concatenate([p for _, p in split.values()]))
        for split in (train, test)
    )
    clips = [clip for clip, (_, phones) in test.items() for _ in phones]
    by_clip: dict[str, dict[str, Counted]] = {}
    if len(train_codes) == 1:
        every = np.concatenate([train_codes[0], test_codes[0]]), np.concatenate([train_phones, test_phones])
        size = int(every[0].max()) + 1
        table = information.count_table(*every, size, num_phones)
        figures["bits"] = {
            "value": round(information.mutual_information(table), 4),
            "plug_in": round(information.mutual_information(table, corrected=False), 4),
            "shuffled": round(information.shuffled_information(*every, size, num_phones, seed), 4),
            "phone_entropy": round(information.entropy(table.sum(0), corrected=True), 4),
            "frames": int(table.sum()),
        }
        figures["phone_purity"] = round(information.phone_purity(table), 4)
        figures["code_purity"] = round(information.code_purity(table), 4)
        figures["pnmi"] = round(information.phone_normalized_information(table), 4)
        by_clip = _by_clip("bits", clips, information.pointwise_information(table, test_codes[0], test_phones).tolist())
    vectors = [system.embed(torch.from_numpy(np.ascontiguousarray(c))) for c in (train_codes, test_codes)]
    labels = [torch.from_numpy(p) for p in (train_phones, test_phones)]
    critic = information.fit_critic(vectors[0], labels[0], num_phones, seed=seed)
    order = torch.randperm(len(vectors[1]), generator=torch.Generator().manual_seed(seed))
    size = min(CONTRAST, len(order))
    order = order[: len(order) // size * size].view(-1, size)
    with torch.inference_mode():
        found = information.info_nce(torch.stack([critic(vectors[1][i], labels[1][i]) for i in order]))
    figures["info_nce"] = {"value": round(found.value, 4), "ceiling": round(found.ceiling, 4)}
    told = _by_clip("info_nce", [clips[i] for i in order.flatten().tolist()], found.by_pair.flatten().tolist())
    return figures, {clip: by_clip.get(clip, {}) | told.get(clip, {}) for clip in by_clip | told}
