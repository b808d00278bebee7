"""SLMTokBench (SpeechTokenizer, arXiv 2308.16692, section 3): is a tokenizer fit for language models of speech?

Text alignment: the error of a small recogniser on its vectors (`probe.py`), and how much they tell of the text.
Information preservation: words and voice of speech that went through it (`reconstruction.py`).

The paper gives vCLUB without saying what its pairs are; no code for it is public. Here q is the probe, and pairs are
windows of equal length of held-out speech, each beginning with a word, with the words that end inside: as Whisper times
them, and only where what it hears is what the text says. Beside it stands what needs no probe: the information between
codes and phones, frame by frame.

OUT/codes, OUT/stages     tokens, and each system's figures, as soon as they are there: an interrupted run goes on
OUT/preservation          reconstruction's own rows
OUT/summary.json, index.html
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import information, probe, reconstruction, statistics
from vocable.evaluation.metrics import METRICS, Models
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import TimedWord, normalizer, recogniser
from vocable.evaluation.page import Page
from vocable.evaluation.phones import PhoneRecogniser, Phones
from vocable.evaluation.reconstruction import available, figure_cell
from vocable.evaluation.runner import Outcome, describe, write_json
from vocable.evaluation.tokenizers import Tokenizer, load_tokenizer
from vocable.extras import need
from vocable.files import atomic_path

SYSTEMS = ("fast@:1", "fast@:8")
WINDOW_SECONDS = 2.0
WINDOWS = 200
HELD_OUT_SHARE = 0.05  #: of the training speakers, to validate on
PHONE_CLIPS = 600  #: of the training clips, whose codes and phones are counted
CONTRAST = 512  #: pairs that each is told from, in InfoNCE


@dataclass(frozen=True)
class Budget:
    """What each system's probe is given."""

    seconds: float = 600.0  #: of CPU time
    hidden: int = 256  #: the paper's: 1024
    layers: int = 1  #: the paper's: 2


@dataclass(frozen=True)
class Window:
    """WINDOW_SECONDS of a clip from `start` on, and the words in it."""

    clip: str
    start: float
    text: str


class Bench:
    """The speech that all systems are measured on, and what is known of it."""

    def __init__(
        self, train: Sequence[Utterance], test: Sequence[Utterance], out: Path, models: Models, seed: int
    ) -> None:
        if shared := {u.speaker for u in train} & {u.speaker for u in test} - {None}:
            raise ValueError(f"speakers {', '.join(sorted(map(str, shared)))} are in both manifests")
        self.out, self.models, self.seed = out, models, seed
        self.left_out: dict[str, str] = {}
        train, test = ([u for u in split if u.text and probe.normalize(u.text)] for split in (train, test))
        if not train or not test:
            raise ValueError("both manifests need clips with text")
        speakers = sorted({u.speaker or u.id for u in train})
        rng = np.random.default_rng(seed)
        held_out = set(rng.permutation(speakers)[: max(1, round(HELD_OUT_SHARE * len(speakers)))].tolist())
        self.train = [u for u in train if (u.speaker or u.id) not in held_out]
        self.valid = [u for u in train if (u.speaker or u.id) in held_out]
        self.test = list(test)
        step = max(1, len(self.train) // PHONE_CLIPS)
        self.phone_clips = self.train[::step][:PHONE_CLIPS]

    def codes(self, system: Tokenizer, progress: Callable[[float], None]) -> dict[str, np.ndarray]:
        """Codes int64 [K', T] of every clip that can be read; progress: seconds of speech, as they are encoded."""
        path = self.out / "codes" / f"{_safe(system.name)}-{_hash(system.made_by)}.npz"
        clips = [*self.train, *self.valid, *self.test]
        if not path.is_file():
            found: dict[str, np.ndarray] = {}
            for clip in clips:
                try:
                    codes = system.encode(audio.read(clip.path, SAMPLE_RATE)[0]).codes
                except (ValueError, OSError) as error:
                    self.left_out[clip.id] = " ".join(str(error).split())
                    continue
                assert codes is not None
                found[clip.id] = codes.numpy().astype(np.uint16 if int(codes.max()) < 2**16 else np.int32)
                progress(clip.duration)
            with atomic_path(path) as temporary:
                np.savez(temporary, **{f"k{clip}": codes for clip, codes in found.items()})  # type: ignore[arg-type]
        with np.load(path, allow_pickle=False) as stored:
            return {name[1:]: stored[name].astype(np.int64) for name in stored.files}

    def phones(self, progress: Callable[[], None]) -> dict[str, Phones]:
        """What the recogniser hears in the clips to count, and in the test clips."""

        def make() -> dict[str, Any]:
            hear, found = PhoneRecogniser(), {}
            for clip in [*self.phone_clips, *self.test]:
                try:
                    heard = hear(audio.read(clip.path, SAMPLE_RATE)[0])
                except (ValueError, OSError):  # named where it is encoded
                    continue
                found[clip.id] = [heard.seconds.tolist(), heard.phones.tolist()]
                progress()
            return {"clips": found, "num_phones": hear.num_phones}

        stored = self._cached("phones", make)
        self.num_phones = int(stored["num_phones"])
        return {k: Phones(np.array(s), np.array(p, np.int64)) for k, (s, p) in stored["clips"].items()}

    def windows(self, progress: Callable[[], None]) -> list[Window]:
        """At most WINDOWS, spread over the test clips."""

        def make() -> dict[str, Any]:
            hear = recogniser(self.models)
            found: list[list[dict[str, Any]]] = []
            for clip in self.test:
                try:
                    waveform = audio.read(clip.path, SAMPLE_RATE)[0]
                except (ValueError, OSError):
                    continue
                words = hear.timed_words(waveform, clip.language or "en")
                found.append([vars(w) for w in windows_of(clip, words, len(waveform) / SAMPLE_RATE)])
                progress()
            # The first of every clip, then the second of every clip, and so on.
            turns = [
                w for turn in range(max(map(len, found), default=0)) for w in (c[turn] for c in found if len(c) > turn)
            ]
            return {"windows": turns[:WINDOWS]}

        return [Window(**w) for w in self._cached("windows", make)["windows"]]

    def _cached(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.out / f"{name}.json"
        if not path.is_file():
            write_json(path, make())
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value


def windows_of(clip: Utterance, heard: Sequence[TimedWord], duration: float) -> list[Window]:
    """Windows of a clip that do not overlap, each from the start of a word; only over words that the text has too."""
    said = probe.normalize(normalizer(clip.language or "en")(clip.text or "")).split()
    words = [probe.normalize(w.text).replace(" ", "") for w in heard]
    matched: set[int] = set()
    for block in difflib.SequenceMatcher(None, words, said, autojunk=False).get_matching_blocks():
        matched.update(range(block.a, block.a + block.size))
    found: list[Window] = []
    free = 0.0
    for i, word in enumerate(heard):
        stop = word.start + WINDOW_SECONDS
        inside = [k for k in range(i, len(heard)) if heard[k].end <= stop]
        # The word that the window cuts off must be known too: else more than a part of a word may be in its end.
        if word.start >= free and stop <= duration and inside and all(k in matched for k in range(i, inside[-1] + 1)):
            found.append(Window(clip.id, word.start, " ".join(words[k] for k in inside)))
            free = stop
    return found


def evaluate(
    train: Sequence[Utterance],
    test: Sequence[Utterance],
    out: Path,
    *,
    systems: Sequence[str] = SYSTEMS,
    models: Models,
    budget: Budget = Budget(),
    jobs: int = 1,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT; returns the summary. progress: called with the stage, and the share of it that is done."""
    found, missing = available(systems)
    bench = Bench(train, test, out, models, seed)
    phones = bench.phones(_counter(progress, "hearing phones", len(bench.phone_clips) + len(bench.test)))
    windows = bench.windows(_counter(progress, "timing words", len(bench.test)))
    speakers = {u.id: u.speaker or u.id for u in [*bench.train, *bench.valid, *bench.test]}
    for name, row in found.items():
        stage = out / "stages" / f"{_safe(name)}-{_hash(row['made_by'], budget, seed)}.json"
        if not stage.is_file():
            write_json(stage, _measure(bench, name, phones, windows, budget, progress))
        measured = json.loads(stage.read_text(encoding="utf-8"))
        row |= measured | {
            error: statistics.figure([s for _, s in rows], [speakers[clip] for clip, _ in rows], seed).scaled(100.0)
            for error, rows in (("wer", measured.pop("words")), ("cer", measured.pop("characters")))
        }
    preservation = reconstruction.evaluate(
        bench.test[:: max(1, len(bench.test) // 300)][:300],
        out / "preservation",
        systems=["recording", *found],
        metrics=("wer", "speaker"),
        models=models,
        jobs=jobs,
        seed=seed,
        listen=4,
        progress=lambda error: None,
    )
    summary = {
        "suite": "slmtokbench",
        **describe(bench.test, Outcome(left_out=bench.left_out)),
        "train_clips": len(bench.train),
        "valid_clips": len(bench.valid),
        "windows": len(windows),
        "phone_labels": int(sum(len(p.phones) for p in phones.values())),
        "budget": vars(budget),
        "seed": seed,
        "made_with": preservation["made_with"] | METRICS["per"](models).made_with(),
        "not_available": missing,
        "systems": found,
        "preservation": preservation["systems"],
    }
    write_json(out / "summary.json", summary)
    page = Page("SLMTokBench", f"{summary['clips']} test clips of {summary['speakers']} speakers")
    for heading, table in tables(summary).items():
        page.heading(heading)
        page.table(*table)
    for line in notes(summary):
        page.paragraph(line)
    page.write(out / "index.html")
    return summary


def _measure(
    bench: Bench,
    name: str,
    phones: Mapping[str, Phones],
    windows: Sequence[Window],
    budget: Budget,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """One system: its probe's error, clip by clip, and its information."""
    system = load_tokenizer(name)
    total, done = sum(u.duration for u in [*bench.train, *bench.valid, *bench.test]), [0.0]

    def encoded(seconds: float) -> None:
        done[0] += seconds
        progress(f"{name}: encoding", done[0] / total)

    codes = bench.codes(system, encoded)
    if system.frame_rate <= 0:
        raise ValueError(f"{name} has no tokens: it can be listed under preservation alone")
    examples = [
        probe.Example(torch.from_numpy(codes[u.id]), probe.normalize(u.text or ""))
        for u in bench.train
        if u.id in codes
    ]
    trained = probe.train_probe(
        examples,
        system.embed,
        seconds=budget.seconds,
        hidden=budget.hidden,
        layers=budget.layers,
        seed=bench.seed,
        progress=lambda share: progress(f"{name}: probe", share),
    )
    jiwer = need("jiwer", "eval")
    errors: dict[str, dict[str, list[Any]]] = {"valid": {"words": [], "characters": []}, "test": {}}
    errors["test"] = {"words": [], "characters": []}
    for split, clips in (("valid", bench.valid), ("test", bench.test)):
        for clip in clips:
            if clip.id not in codes:
                continue
            said = probe.normalize(clip.text or "")
            heard = probe.read(trained, system.embed(torch.from_numpy(codes[clip.id])))
            for unit, process in (("words", jiwer.process_words), ("characters", jiwer.process_characters)):
                found = process(said, heard)
                edits = found.substitutions + found.deletions + found.insertions
                length = found.hits + found.substitutions + found.deletions
                errors[split][unit].append([clip.id, [edits, length]])
    valid = np.array([score for _, score in errors["valid"]["characters"]], float).reshape(-1, 2).sum(0)
    return {
        **errors["test"],
        "valid_cer": round(100 * float(valid[0] / max(valid[1], 1)), 2),
        "vclub": _variational(system, trained, windows, codes),
        **_informative(bench, system, codes, phones),
    }


def _variational(
    system: Tokenizer, trained: probe.TextProbe, windows: Sequence[Window], codes: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """vCLUB over windows: nats, and pairs left out."""
    length = round(WINDOW_SECONDS * system.frame_rate)
    vectors, texts, left_out = [], [], 0
    for window in windows:
        start = round(window.start * system.frame_rate)
        cut = codes.get(window.clip, np.zeros((1, 0), np.int64))[:, start : start + length]
        if cut.shape[1] < length or probe.frames_needed(window.text) > length:
            left_out += 1
            continue
        vectors.append(system.embed(torch.from_numpy(cut)))
        texts.append(window.text)
    if len(texts) < 2:
        return {"windows": len(texts), "windows_left_out": left_out}
    found = information.vclub(probe.log_likelihoods(trained, vectors, texts))
    return {
        "value": round(found.value, 3),
        "infeasible": found.infeasible,
        "pairs": found.pairs,
        "windows": len(texts),
        "windows_left_out": left_out,
    }


def _informative(
    bench: Bench, system: Tokenizer, codes: Mapping[str, np.ndarray], phones: Mapping[str, Phones]
) -> dict[str, Any]:
    """Codes against phones, frame by frame: bits where there is one code a frame, InfoNCE for any."""
    splits: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for split, clips in (("train", bench.phone_clips), ("test", bench.test)):
        for clip in clips:
            if clip.id in codes and clip.id in phones:
                frames = phones[clip.id].frames(system.frame_rate, codes[clip.id].shape[1])
                splits[split].append((codes[clip.id][:, frames], phones[clip.id].phones))
    figures: dict[str, Any] = {}
    (train_codes, train_phones), (test_codes, test_phones) = (
        (np.concatenate([c for c, _ in parts], 1), np.concatenate([p for _, p in parts])) for parts in splits.values()
    )
    if len(train_codes) == 1:
        every = np.concatenate([train_codes[0], test_codes[0]]), np.concatenate([train_phones, test_phones])
        size = int(every[0].max()) + 1
        table = information.count_table(*every, size, bench.num_phones)
        figures["bits"] = {
            "value": round(information.mutual_information(table), 4),
            "plug_in": round(information.mutual_information(table, corrected=False), 4),
            "shuffled": round(information.shuffled_information(*every, size, bench.num_phones, bench.seed), 4),
            "phone_entropy": round(information.entropy(table.sum(0), corrected=True), 4),
            "frames": int(table.sum()),
        }
        figures["phone_purity"] = round(information.phone_purity(table), 4)
        figures["code_purity"] = round(information.code_purity(table), 4)
        figures["pnmi"] = round(information.phone_normalized_information(table), 4)
    vectors = [system.embed(torch.from_numpy(np.ascontiguousarray(c))) for c in (train_codes, test_codes)]
    labels = [torch.from_numpy(p) for p in (train_phones, test_phones)]
    critic = information.fit_critic(vectors[0], labels[0], bench.num_phones, seed=bench.seed)
    order = torch.randperm(len(vectors[1]), generator=torch.Generator().manual_seed(bench.seed))
    size = min(CONTRAST, len(order))
    order = order[: len(order) // size * size].view(-1, size)
    with torch.inference_mode():
        found = information.info_nce(torch.stack([critic(vectors[1][i], labels[1][i]) for i in order]))
    figures["info_nce"] = {"value": round(found.value, 4), "ceiling": round(found.ceiling, 4)}
    return figures


def tables(summary: Mapping[str, Any]) -> dict[str, tuple[list[str], list[list[str | tuple[str, str]]]]]:
    """The paper's table, and the frame-level figures under it."""
    first: list[list[str | tuple[str, str]]] = []
    second: list[list[str | tuple[str, str]]] = []
    for name, row in summary["systems"].items():
        kept = summary["preservation"].get(name, {})
        first.append(
            [
                (name, row["made_by"]),
                _number(row["vclub"], 2),
                figure_cell(row["wer"], 1),
                figure_cell(row["cer"], 1),
                figure_cell(kept.get("wer", {}), 1),
                figure_cell(kept.get("speaker", {}), 3),
            ]
        )
        bits = row.get("bits", {})
        second.append(
            [
                name,
                (f"{bits['value']:.3f}", f"shuffled {bits['shuffled']:.3f}") if bits else "-",
                f"{100 * row['pnmi']:.1f}" if bits else "-",
                f"{100 * row['phone_purity']:.1f}" if bits else "-",
                f"{100 * row['code_purity']:.1f}" if bits else "-",
                (f"{row['info_nce']['value']:.3f}", f"at most {row['info_nce']['ceiling']:.3f}"),
            ]
        )
    for name in summary["not_available"]:
        first.append([name, "weights not available", "", "", "", ""])
    recording = summary["preservation"].get("recording", {})
    first.append(["recording", "", "", "", figure_cell(recording.get("wer", {}), 1), ""])
    return {
        "Text alignment and information preservation": (
            ["tokens", "vCLUB, nats ↑", "probe WER % ↓", "probe CER % ↓", "resynthesis WER % ↓", "speaker cosine ↑"],
            first,
        ),
        "Codes and phones, frame by frame": (
            ["tokens", "I(code; phone), bits ↑", "PNMI % ↑", "phone purity % ↑", "code purity %", "InfoNCE, nats ↑"],
            second,
        ),
    }


def notes(summary: Mapping[str, Any]) -> list[str]:
    budget, lines = summary["budget"], []
    lines.append(
        f"Probe: {budget['layers']} BiLSTM layer(s) of {budget['hidden']}, {budget['seconds']:.0f} s of CPU time, "
        f"{summary['train_clips']} training clips, {summary['valid_clips']} of other speakers to validate, tested once."
    )
    lines.append(f"vCLUB: {summary['windows']} windows of {WINDOW_SECONDS:g} s. Its level depends on q: compare rows.")
    for name, row in summary["systems"].items():
        v = row["vclub"]
        if v.get("infeasible") or v.get("windows_left_out"):
            lines.append(
                f"{name}: {v.get('infeasible', 0)} of {v.get('pairs', 0)} pairs have no CTC path and are left out, "
                f"and {v['windows_left_out']} windows."
            )
    lines.append(
        f"Phones are what hama hears, {summary['phone_labels']} labels; bits with Miller and Madow's correction. "
        "Information of several codes a frame cannot be counted: InfoNCE, under its ceiling, stands for it."
    )
    lines.append("95 % intervals by resampling speakers. Figures of the probe are no recogniser's: compare rows.")
    if summary["left_out"]:
        lines.append("Left out: " + "; ".join(f"{clip} ({why})" for clip, why in summary["left_out"].items()) + ".")
    return [*lines, *(f"{name}: {why}" for name, why in summary["not_available"].items())]


def _number(figure: Mapping[str, Any], digits: int) -> str:
    return f"{figure['value']:.{digits}f}" if "value" in figure else "-"


def _counter(progress: Callable[[str, float], None], stage: str, total: int) -> Callable[[], None]:
    done = iter(range(1, total + 1))
    return lambda: progress(stage, next(done) / total)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.@" else "_" for c in name)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]
