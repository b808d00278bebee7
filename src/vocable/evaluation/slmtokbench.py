"""SLMTokBench (SpeechTokenizer, arXiv 2308.16692, section 3): is a tokenizer fit for language models of speech?

Text alignment: the error of a small recogniser on its vectors (`probe.py`), and how much they tell of the text.
Information preservation: words and voice of speech that went through it (`reconstruction.py`).

The paper gives vCLUB without saying what its pairs are; no code for it is public. Here q is the probe, and pairs are
windows of equal length of held-out speech, each beginning with a word, with the words that end inside: as Whisper times
them, and only where what it hears is what the text says. Beside it stands what needs no probe: the information between
codes and phones, frame by frame.

OUT/codes          of every tokenizer, all layers, clip by clip
OUT/listening      phones and timed words, clip by clip
OUT/alignment      figures, system by system
OUT/preservation   reconstruction's own rows
OUT/summary.json, index.html
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import probe, reconstruction, statistics
from vocable.evaluation.alignment import WINDOW_SECONDS, Alignment, Budget, Candidate, Speech, Window
from vocable.evaluation.codes import Codes, unpack
from vocable.evaluation.metrics import METRICS, Models, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import TimedWord, recogniser
from vocable.evaluation.page import Cell, Page, Table
from vocable.evaluation.phones import PhoneRecogniser, Phones
from vocable.evaluation.reconstruction import available, figure_cell, makers
from vocable.evaluation.runner import Outcome, Progress, Row, describe, exclusions, language_of, run, write_json
from vocable.evaluation.tokenizers import whole_of

SYSTEMS = ("fast@:1", "fast@:8")
INFORMATION = {"vclub": "vCLUB, nats,", "bits": "I(code; phone), bits,", "info_nce": "InfoNCE, nats,"}
WINDOWS = 200
PRESERVED_CLIPS = 300  #: of the test clips


@dataclass(frozen=True)
class Listening:
    """A task of the runner: a clip -> the phones in it and, if it is to be tested on, the windows over its words."""

    timed: frozenset[str]  #: ids of the clips to test on
    models: Models
    made_with: Mapping[str, str]  #: versions and weights of the recognisers

    def plan(self) -> dict[str, Any]:
        timed = hashlib.sha256(repr(sorted(self.timed)).encode()).hexdigest()[:10]
        return {"made_with": dict(self.made_with), "window": WINDOW_SECONDS, "test clips": timed}

    def start(self) -> Callable[[Utterance], list[Row]]:
        hear, read = PhoneRecogniser(), recogniser(self.models)

        def work(clip: Utterance) -> list[Row]:
            waveform = audio.read(clip.path, SAMPLE_RATE)[0]
            heard = hear(waveform)
            row: Row = {"clip": clip.id, "seconds": heard.seconds.tolist(), "phones": heard.phones.tolist()}
            row |= {"num_phones": hear.num_phones, "windows": []}
            if clip.id in self.timed:
                words = read.timed_words(waveform, language_of(clip))
                row["windows"] = [vars(w) for w in windows_of(clip, words, len(waveform) / SAMPLE_RATE)]
            return [row]

        return work


def windows_of(clip: Utterance, heard: Sequence[TimedWord], duration: float) -> list[Window]:
    """Windows of a clip that do not overlap, each from the start of a word; only where the text has the same words."""
    said = probe.normalize(clip.text or "").split()
    words = [probe.normalize(w.text).replace(" ", "") for w in heard]
    place: dict[int, int] = {len(heard): len(said)}  # of each word that was heard, in the text
    for block in difflib.SequenceMatcher(None, words, said, autojunk=False).get_matching_blocks():
        place |= {block.a + k: block.b + k for k in range(block.size)}
    found: list[Window] = []
    free = 0.0
    for i, word in enumerate(heard):
        stop = word.start + WINDOW_SECONDS
        inside = [k for k in range(i, len(heard)) if heard[k].end <= stop]
        if word.start < free or stop > duration or not inside:
            continue
        # One word after another, up to the one that the window cuts off: none was misheard, and none not heard at all.
        run = [place.get(k, -1) - k for k in range(i, inside[-1] + 2)]
        if i in place and len(set(run)) == 1:
            found.append(Window(clip.id, word.start, " ".join(words[k] for k in inside)))
            free = stop
    return found


def evaluate(
    train: Sequence[Utterance],
    test: Sequence[Utterance],
    out: Path,
    *,
    systems: Sequence[str] = SYSTEMS,
    twin: str | None = None,
    models: Models,
    similarity: str = "speaker",
    budget: Budget = Budget(),
    jobs: int = 1,
    seed: int = 0,
    listen: int = 4,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT; returns the summary.

    Systems without tokens stand under preservation alone. twin: the codec among `systems` that was trained without a
    teacher, for the paper's claims. similarity: the metric that judges voices. listen: clips to hear on the page.
    """
    versions = made_with(("wer", similarity, "per"), models)
    found, missing = available(systems)
    if twin and twin not in {whole_of(name)[0] for name in systems}:
        raise ValueError(f"{twin} is not among the systems: name it there too, as {twin}@:1")
    speech = Speech.split(train, test, seed)

    def stage(name: str) -> Progress:
        return lambda _, share: progress(name, share)

    listening = Listening(frozenset(u.id for u in speech.test), models, versions)
    clips = [*speech.phone_clips, *speech.test]
    heard = run(listening, clips, out / "listening", jobs, stage("listening"))
    phones = {row["clip"]: Phones(np.array(row["seconds"]), np.array(row["phones"], np.int64)) for row in heard.rows}
    windows = _choose_windows([[Window(**w) for w in row["windows"]] for row in heard.rows])
    candidates = [Candidate(name, system.made_by) for name, system in found.items() if system.codebook_size]
    encoded, aligned = Outcome(), Outcome()
    if candidates:
        wholes = makers({whole_of(c.name)[0]: found[c.name] for c in candidates})
        encoded = run(Codes(wholes), speech.all, out / "codes", jobs, stage("codes"))
        codes: dict[str, dict[str, np.ndarray]] = {whole: {} for whole in wholes}
        for row in encoded.rows:
            codes[row["system"]][row["clip"]] = unpack(row["codes"])
        task = Alignment(speech, codes, phones, heard.rows[0]["num_phones"], windows, budget, seed)
        aligned = run(task, candidates, out / "alignment", jobs, stage("alignment"))
    preserved, preserved_rows, _ = reconstruction.measure(
        spread(speech.test, PRESERVED_CLIPS),
        out / "preservation",
        systems=["recording", *found],
        metrics=("wer", similarity),
        models=models,
        jobs=jobs,
        seed=seed,
        listen=0,
        progress=stage("preservation"),
    )
    of_systems = [row for row in aligned.rows if "clip" not in row]
    left_out = preserved["left_out"] | heard.left_out | encoded.left_out
    summary = {
        "suite": "slmtokbench",
        **describe(speech.all, Outcome(left_out=left_out)),
        "unjudged": preserved["unjudged"],
        "test_clips": len(speech.test),
        "train_clips": len(speech.train),
        "valid_clips": len(speech.valid),
        "windows": len(windows),
        "phone_labels": sum(len(p.phones) for p in phones.values()),
        "budget": asdict(budget),
        "seed": seed,
        "similarity": similarity,
        "made_with": versions,
        "not_available": missing,
        "failed": {c.name: aligned.left_out[c.id] for c in candidates if c.id in aligned.left_out},
        "systems": {name: {"made_by": figures["made_by"]} for name, figures in preserved["systems"].items()},
    }
    for name, figures in preserved["systems"].items():
        summary["systems"][name]["preservation"] = {"wer": figures["wer"], "similarity": figures[similarity]}
    for row in of_systems:
        of_clips = [r for r in aligned.rows if "clip" in r and r["system"] == row["system"]]
        summary["systems"][row["system"]] |= _summarize(row, of_clips, seed)
    summary["orders"] = orders(aligned.rows, preserved_rows, list(found), twin, similarity, seed)
    write_json(out / "summary.json", summary)
    page = Page(
        "SLMTokBench", f"{summary['test_clips']} test clips of {len({u.speaker_key for u in speech.test})} speakers"
    )
    page.tables(tables(summary))
    page.notes(notes(summary))
    reconstruction.draw(page, [u for u in spread(speech.test, listen) if u.id not in left_out], found)
    page.write(out)
    return summary


def orders(
    aligned: Sequence[Row],
    preserved: Sequence[Row],
    systems: Sequence[str],
    twin: str | None,
    similarity: str,
    seed: int,
) -> list[str]:
    """Whether the paper's order holds, clip by clip: of information, probe error and similarity."""
    lines = []
    clips = [row for row in aligned if "clip" in row]
    for name in systems:
        codec, layers = whole_of(name)
        if codec == twin:
            continue
        bare = f"{twin}@:1"
        if layers == slice(0, 1) and bare in systems:
            for figure, label in INFORMATION.items():
                claim = f"{label} of {codec}'s RVQ-1 above that of one without a teacher ({twin})"
                lines.append(statistics.order(claim, clips, name, bare, figure, 1.0, seed))
            for figure, label in (("probe_wer", "probe WER %"), ("probe_cer", "probe CER %")):
                claim = f"{label} of RVQ-1 without a teacher ({twin}) above {codec}'s"
                lines.append(statistics.order(claim, clips, bare, name, figure, 100.0, seed))
        if layers in (slice(None), slice(0, 8)) and f"{codec}@:1" in systems:
            for other in systems:
                if whole_of(other)[0] != twin and other != name:
                    claim = f"{METRICS[similarity].label} of {name} above {other}'s"
                    lines.append(statistics.order(claim, preserved, name, other, similarity, 1.0, seed))
    return lines


def _choose_windows(by_clip: Sequence[Sequence[Window]]) -> list[Window]:
    """At most WINDOWS: the first of every clip, then the second of every clip, and so on; where not all of a turn fit,
    those at even distances, because manifests are sorted by speaker."""
    chosen: list[Window] = []
    for turn in range(max(map(len, by_clip), default=0)):
        chosen += spread([windows[turn] for windows in by_clip if len(windows) > turn], WINDOWS - len(chosen))
    return chosen


def _summarize(row: Mapping[str, Any], clips: Sequence[Row], seed: int) -> dict[str, Any]:
    """One system's figures, with intervals of the probe's errors."""
    kept = {key: value for key, value in row.items() if key != "system"}
    of = [clip["speaker_id"] for clip in clips]
    for error in ("wer", "cer"):
        kept[error] = statistics.figure([clip[f"probe_{error}"] for clip in clips], of, seed).scaled(100.0)
    for told in INFORMATION:
        valid = [clip for clip in clips if told in clip]
        if valid:
            found = statistics.figure([clip[told] for clip in valid], [clip["speaker_id"] for clip in valid], seed)
            kept[told] |= {key: value for key, value in found.scaled(1.0).items() if key in ("low", "high", "speakers")}
    return kept


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """The paper's table, and the frame-level figures under it."""
    first: list[list[Cell]] = []
    second: list[list[Cell]] = []
    for name, row in summary["systems"].items():
        kept = row.get("preservation", {})
        preserved = [figure_cell(kept.get("wer", {}), 1), figure_cell(kept.get("similarity", {}), 3)]
        if "vclub" not in row:  # no tokens
            first.append([(name, row.get("made_by", "")), "", "", "", *preserved])
            continue
        vclub = figure_cell(row["vclub"], 2)
        probed = [figure_cell(row["wer"], 1), figure_cell(row["cer"], 1)]
        first.append([(name, row["made_by"]), vclub, *probed, *preserved])
        contrast = figure_cell(row["info_nce"], 3)
        if "bits" in row:
            bits = (f"{row['bits']['value']:.3f}", f"shuffled {row['bits']['shuffled']:.3f}")
            shares = [f"{100 * row[key]:.1f}" for key in ("pnmi", "phone_purity", "code_purity")]
            second.append([name, bits, *shares, contrast])
        else:
            second.append([name, "-", "-", "-", "-", contrast])
    first += [[name, "weights not available", "", "", "", ""] for name in summary["not_available"]]
    return {
        "Text alignment and information preservation": (
            [
                *("tokens", "vCLUB, nats ↑", "probe WER % ↓", "probe CER % ↓", "resynthesis WER % ↓"),
                METRICS[summary["similarity"]].heading(),
            ],
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
        f"{summary['train_clips']} training clips, {summary['valid_clips']} of other speakers to validate, tested "
        "once. Steps in that time, and validation CER %: "
        + "; ".join(f"{n} {r['probe_steps']}, {r['valid_cer']}" for n, r in summary["systems"].items() if "vclub" in r)
        + "."
    )
    lines.append(f"vCLUB: {summary['windows']} windows of {WINDOW_SECONDS:g} s. Its level depends on q: compare rows.")
    for name, row in summary["systems"].items():
        v = row.get("vclub", {})
        if v.get("infeasible") or v.get("windows_left_out") or row.get("train_without_path"):
            lines.append(
                f"{name}: without a CTC path, and so left out: {v.get('infeasible', 0)} of {v.get('pairs', 0)} pairs, "
                f"{v['windows_left_out']} windows, {row['train_without_path']} training clips."
            )
        if "info_nce" in row:
            lines.append(f"{name}: InfoNCE cannot pass log N, {row['info_nce']['ceiling']:.3f} nats.")
    lines.append(
        f"Phones are what hama hears, {summary['phone_labels']} labels; bits with Miller and Madow's correction. "
        "Information of several codes a frame cannot be counted: InfoNCE, under its ceiling, stands for it."
    )
    lines.append(
        "95 % intervals by resampling speakers, of vCLUB and InfoNCE with the probe, the critic and the other pairs "
        "held as they are. Figures of the probe are no recogniser's: compare rows."
    )
    lines += [f"{name}: text alignment was not measured: {why}." for name, why in summary["failed"].items()]
    return [*lines, *summary["orders"], *exclusions(summary)]
