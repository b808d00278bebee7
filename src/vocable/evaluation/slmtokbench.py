"""SLMTokBench (SpeechTokenizer, arXiv 2308.16692, section 3): is a tokenizer fit for language models of speech?

Text alignment: the error of a small recogniser on its vectors (`probe.py`), and how much they tell of the text.
Information preservation: words and voice of speech that went through it (`reconstruction.py`).

The paper gives vCLUB without saying what its pairs are; no code for it is public. Here q is the probe, and pairs are
windows of equal length of held-out speech, each beginning with a word, with the words that end inside: as Whisper times
them, and only where what it hears is what the text says. Beside it stands what needs no probe: the information between
codes and phones, frame by frame.

OUT/listening      phones and timed words, clip by clip
OUT/alignment      figures, system by system
OUT/preservation   reconstruction's own rows
OUT/summary.json, index.html
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import probe, reconstruction, statistics
from vocable.evaluation.alignment import WINDOW_SECONDS, Alignment, Budget, Candidate, Speech, Window
from vocable.evaluation.metrics import Models, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import TimedWord, normalizer, recogniser
from vocable.evaluation.page import Cell, Page, Table
from vocable.evaluation.phones import PhoneRecogniser, Phones
from vocable.evaluation.reconstruction import available, figure_cell
from vocable.evaluation.runner import Outcome, Progress, Row, describe, exclusions, run, write_json

SYSTEMS = ("fast@:1", "fast@:8")
WINDOWS = 200
PRESERVED_CLIPS = 300  #: of the test clips


@dataclass(frozen=True)
class Listening:
    """A task of the runner: a clip -> the phones in it and, if it is to be tested on, the windows over its words."""

    timed: frozenset[str]  #: ids of the clips to test on
    models: Models

    def plan(self) -> dict[str, Any]:
        return {"models": self.models.plan(), "window": WINDOW_SECONDS}

    def start(self) -> Callable[[Utterance], list[Row]]:
        hear, read = PhoneRecogniser(), recogniser(self.models)

        def work(clip: Utterance) -> list[Row]:
            waveform = audio.read(clip.path, SAMPLE_RATE)[0]
            heard = hear(waveform)
            row: Row = {"clip": clip.id, "seconds": heard.seconds.tolist(), "phones": heard.phones.tolist()}
            row |= {"num_phones": hear.num_phones, "windows": []}
            if clip.id in self.timed:
                words = read.timed_words(waveform, clip.language or "en")
                row["windows"] = [vars(w) for w in windows_of(clip, words, len(waveform) / SAMPLE_RATE)]
            return [row]

        return work


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
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT; returns the summary. Systems without tokens stand under preservation alone."""
    versions = made_with(("wer", "speaker", "per"), models)
    found, missing = available(systems)
    speech = Speech.split(train, test, seed)

    def stage(name: str) -> Progress:
        return lambda _, share: progress(name, share)

    listening = Listening(frozenset(u.id for u in speech.test), models)
    clips = [*speech.phone_clips, *speech.test]
    heard = run(listening, clips, out / "listening", jobs, stage("listening"))
    phones = {row["clip"]: Phones(np.array(row["seconds"]), np.array(row["phones"], np.int64)) for row in heard.rows}
    windows = _choose_windows([[Window(**w) for w in row["windows"]] for row in heard.rows])
    task = Alignment(speech, phones, heard.rows[0]["num_phones"], windows, budget, seed)
    candidates = [Candidate(name, system.made_by) for name, system in found.items() if system.frame_rate]
    aligned = run(task, candidates, out / "alignment", jobs, stage("alignment"))
    if aligned.left_out:
        raise ValueError("; ".join(f"{system}: {why}" for system, why in aligned.left_out.items()))
    preservation = reconstruction.evaluate(
        spread(speech.test, PRESERVED_CLIPS),
        out / "preservation",
        systems=["recording", *found],
        metrics=("wer", "speaker"),
        models=models,
        jobs=jobs,
        seed=seed,
        progress=stage("preservation"),
    )
    left_out = {clip: why for row in aligned.rows for clip, why in row["left_out"].items()}
    summary = {
        "suite": "slmtokbench",
        **describe(speech.test, Outcome(left_out={u.id: left_out[u.id] for u in speech.test if u.id in left_out})),
        "train_clips": len(speech.train),
        "valid_clips": len(speech.valid),
        "windows": len(windows),
        "phone_labels": sum(len(p.phones) for p in phones.values()),
        "budget": asdict(budget),
        "seed": seed,
        "made_with": versions,
        "not_available": missing,
        "systems": {name: {"made_by": system.made_by} for name, system in found.items()},
    }
    speakers = {u.id: u.speaker_key for u in speech.test}
    for row in aligned.rows:
        summary["systems"][row["system"]] |= _summarize(row, speakers, seed)
    for name, figures in preservation["systems"].items():
        summary["systems"].setdefault(name, {})["preservation"] = {k: figures[k] for k in ("wer", "speaker")}
    write_json(out / "summary.json", summary)
    page = Page("SLMTokBench", f"{summary['clips']} test clips of {summary['speakers']} speakers")
    page.tables(tables(summary))
    page.notes(notes(summary))
    page.write(out)
    return summary


def _choose_windows(by_clip: Sequence[Sequence[Window]]) -> list[Window]:
    """At most WINDOWS: the first of every clip, then the second of every clip, and so on."""
    turns = range(max(map(len, by_clip), default=0))
    return [windows[turn] for turn in turns for windows in by_clip if len(windows) > turn][:WINDOWS]


def _summarize(row: Mapping[str, Any], speakers: Mapping[str, str], seed: int) -> dict[str, Any]:
    """One system's figures, with intervals of the probe's errors."""
    kept = {key: value for key, value in row.items() if key not in ("system", "left_out", "valid", "test")}
    of = [speakers[clip] for clip in row["test"]]
    for i, error in enumerate(("wer", "cer")):
        scores = [errors[i] for errors in row["test"].values()]
        kept[error] = statistics.figure(scores, of, seed).scaled(100.0)
    edits, length = np.array([errors[1] for errors in row["valid"].values()], float).reshape(-1, 2).sum(0)
    kept["valid_cer"] = round(100 * edits / max(length, 1), 2)
    return kept


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """The paper's table, and the frame-level figures under it."""
    first: list[list[Cell]] = []
    second: list[list[Cell]] = []
    for name, row in summary["systems"].items():
        kept = row.get("preservation", {})
        preserved = [figure_cell(kept.get("wer", {}), 1), figure_cell(kept.get("speaker", {}), 3)]
        if "vclub" not in row:  # no tokens
            first.append([(name, row.get("made_by", "")), "", "", "", *preserved])
            continue
        vclub = f"{row['vclub']['value']:.2f}" if "value" in row["vclub"] else "-"
        probed = [figure_cell(row["wer"], 1), figure_cell(row["cer"], 1)]
        first.append([(name, row["made_by"]), vclub, *probed, *preserved])
        contrast = (f"{row['info_nce']['value']:.3f}", f"at most {row['info_nce']['ceiling']:.3f}")
        if "bits" in row:
            bits = (f"{row['bits']['value']:.3f}", f"shuffled {row['bits']['shuffled']:.3f}")
            shares = [f"{100 * row[key]:.1f}" for key in ("pnmi", "phone_purity", "code_purity")]
            second.append([name, bits, *shares, contrast])
        else:
            second.append([name, "-", "-", "-", "-", contrast])
    first += [[name, "weights not available", "", "", "", ""] for name in summary["not_available"]]
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
        v = row.get("vclub", {})
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
    return lines + exclusions(summary)
