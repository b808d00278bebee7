"""Suite `slmtokbench`: is a tokenizer suitable for speech language models?

SLMTokBench (SpeechTokenizer, arXiv 2308.16692, section 3) has two parts. Text alignment: the error of a small
recogniser on a tokenizer's vectors (`probe.py`), and their information about the text. Information preservation: words
and voice of the decoded speech (`reconstruction.py`).

The paper gives vCLUB without saying what its pairs are, and no code for it is public. Here q is the probe, and the
pairs are windows of equal length of held-out speech with the words in them. Each window begins with a word. Whisper
gives the times of words, and only windows are used in which it recognises the words of the text. The information
between codes and phones, frame by frame, needs no probe.

OUT/codes          codes of all clips and all layers
OUT/listening      phones and timed words of all clips
OUT/alignment      figures of each tokenizer
OUT/preservation   rows of reconstruction
OUT/summary.json, index.html, tables.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import reconstruction, statistics
from vocable.evaluation.alignment import Budget, Candidate, ClipSplit, MeasureAlignment
from vocable.evaluation.codes import EncodeClip, unpack
from vocable.evaluation.metrics import METRICS, Judges, made_with
from vocable.evaluation.phones import Phones
from vocable.evaluation.reconstruction import Reconstruction
from vocable.evaluation.runner import Outcome, Progress, Row, Task, as_stage, run
from vocable.evaluation.suite import Suite, Waveforms
from vocable.evaluation.summary import exclusions, figure_cell
from vocable.evaluation.tokenizers import makers, split_spec
from vocable.evaluation.windows import WINDOW_SECONDS, RecogniseClip, Window, choose_windows
from vocable.page import Cell, Page, Table

SYSTEMS = ("fast@:1", "fast@:8")
#: Figures of information, and their labels in sentences.
INFORMATION = {"vclub": "vCLUB, nats,", "bits": "I(code; phone), bits,", "info_nce": "InfoNCE, nats,"}
PRESERVED_CLIPS = 300  #: test clips that are reconstructed, at most


class SLMTokBench(Suite):
    """Suite: text alignment and information preservation."""

    name, title = "slmtokbench", "SLMTokBench"

    def __init__(
        self,
        train: Sequence[Utterance],
        test: Sequence[Utterance],
        *,
        systems: Sequence[str] = SYSTEMS,
        twin: str | None = None,
        judges: Judges,
        similarity: str = "speaker",
        budget: Budget = Budget(),
        listen: int = 4,
        seed: int = 0,
    ) -> None:
        """train: clips to train the probe. test: clips of other speakers. Of systems without tokens, only preservation
        is measured. twin: the codec among `systems` that was trained without a teacher, for the paper's claims.
        similarity: the metric that judges voices. listen: the number of clips that the page plays."""
        if twin and twin not in {split_spec(name)[0] for name in systems}:
            raise ValueError(f"{twin} is not among the systems: name it there too, as {twin}@:1")
        self.split = ClipSplit.split(train, test, seed=seed)
        super().__init__(self.split.all, seed=seed)
        self.twin, self.judges, self.similarity = twin, judges, similarity
        self.budget, self.listen = budget, listen
        self.made_with = made_with(("wer", similarity, "per"), judges)
        self.preservation = Reconstruction(
            spread(self.split.test, PRESERVED_CLIPS),
            systems=["recording", *systems],
            metrics=("wer", similarity),
            judges=judges,
            listen=0,
            seed=seed,
        )
        self.missing = self.preservation.missing
        found = self.preservation.tokenizers
        self.tokenizers = {name: found[name] for name in systems if name in found}
        if not self.tokenizers:
            raise ValueError("; ".join(self.missing.values()))
        self.candidates = [Candidate(name, tok.made_by) for name, tok in self.tokenizers.items() if tok.codebook_sizes]
        self.phones: dict[str, Phones] = {}
        self.windows: list[Window] = []
        self.aligned = Outcome()

    def task(self) -> Task[Utterance]:
        """Return the task that recognises phones and words."""
        return RecogniseClip(frozenset(u.id for u in self.split.test), self.judges, self.made_with)

    def measure(self, out: Path, *, jobs: int, progress: Progress) -> Outcome:
        """Recognise phones and words, encode all clips, measure alignment and then preservation.

        Returns the rows of preservation.
        """

        def stage(task: Task[Any], items: Sequence[Any], name: str) -> Outcome:
            return run(task, items, out / name, jobs=jobs, progress=as_stage(progress, name))

        recognised = stage(self.task(), [*self.split.phone_clips, *self.split.test], "listening")
        for row in recognised.rows:
            self.phones[row["clip"]] = Phones(np.array(row["seconds"]), np.array(row["phones"], np.int64))
        self.windows = choose_windows([[Window(**w) for w in row["windows"]] for row in recognised.rows])
        encoded = Outcome()
        if self.candidates:
            wholes = makers({split_spec(c.name)[0]: self.tokenizers[c.name] for c in self.candidates})
            encoded = stage(EncodeClip(wholes), self.clips, "codes")
            codes: dict[str, dict[str, np.ndarray]] = {whole: {} for whole in wholes}
            for row in encoded.rows:
                codes[row["system"]][row["clip"]] = unpack(row["codes"])
            num_phones = recognised.rows[0]["num_phones"]
            task = MeasureAlignment(self.split, codes, self.phones, num_phones, self.windows, self.budget, self.seed)
            self.aligned = stage(task, self.candidates, "alignment")
        preserved = self.preservation.measure(
            out / "preservation", jobs=jobs, progress=as_stage(progress, "preservation")
        )
        return Outcome(preserved.rows, preserved.left_out | recognised.left_out | encoded.left_out)

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each system, and whether the paper's claims hold. rows: of preservation."""
        systems: dict[str, Any] = {}
        for name, figures in self.preservation.summarize(rows)["systems"].items():
            preserved = {"wer": figures["wer"], "similarity": figures[self.similarity]}
            systems[name] = {"made_by": figures["made_by"], "preservation": preserved}
        for row in self.aligned.rows:
            if "clip" not in row:
                of_clips = [r for r in self.aligned.rows if "clip" in r and r["system"] == row["system"]]
                systems[row["system"]] |= alignment_figures(row, of_clips, seed=self.seed)
        failed = {c.name: self.aligned.left_out[c.id] for c in self.candidates if c.id in self.aligned.left_out}
        return {
            "test_clips": len(self.split.test),
            "train_clips": len(self.split.train),
            "valid_clips": len(self.split.valid),
            "windows": len(self.windows),
            "phone_labels": sum(len(p.phones) for p in self.phones.values()),
            "budget": asdict(self.budget),
            "similarity": self.similarity,
            "made_with": self.made_with,
            "not_available": self.missing,
            "failed": failed,
            "systems": systems,
            "orders": orders(
                self.aligned.rows, rows, list(self.tokenizers), self.twin, similarity=self.similarity, seed=self.seed
            ),
        }

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{summary['test_clips']} test clips of {len({u.speaker_key for u in self.split.test})} speakers"

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        """Return some test clips, decoded by every system."""
        return reconstruction.players(self._shown(clips), self.tokenizers)

    def draw(self, page: Page, clips: Sequence[Utterance]) -> None:
        """Add the pictures of the first test clip."""
        reconstruction.draw(page, self._shown(clips)[:1], self.tokenizers)

    def _shown(self, clips: Sequence[Utterance]) -> list[Utterance]:
        kept = {clip.id for clip in clips}
        return [clip for clip in spread(self.split.test, self.listen) if clip.id in kept]

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return the paper's table, and the table of codes and phones."""
        first: list[list[Cell]] = []
        second: list[list[Cell]] = []
        for name, system in summary["systems"].items():
            kept = system.get("preservation", {})
            preserved = [figure_cell(kept.get("wer", {}), 1), figure_cell(kept.get("similarity", {}), 3)]
            if "vclub" not in system:  # it has no tokens
                first.append([(name, system.get("made_by", "")), "", "", "", *preserved])
                continue
            probed = [figure_cell(system["wer"], 1), figure_cell(system["cer"], 1)]
            first.append([(name, system["made_by"]), figure_cell(system["vclub"], 2), *probed, *preserved])
            contrast = figure_cell(system["info_nce"], 3)
            if "bits" in system:
                bits = (f"{system['bits']['value']:.3f}", f"shuffled {system['bits']['shuffled']:.3f}")
                percent = [f"{100 * system[key]:.1f}" for key in ("pnmi", "phone_purity", "code_purity")]
                second.append([name, bits, *percent, contrast])
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
                [
                    *("tokens", "I(code; phone), bits ↑", "PNMI % ↑", "phone purity % ↑", "code purity %"),
                    "InfoNCE, nats ↑",
                ],
                second,
            ),
        }

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on the probe, the estimators, the paper's claims and exclusions."""
        budget, lines = summary["budget"], []
        probes = "; ".join(
            f"{n} {r['probe_steps']}, {r['valid_cer']}" for n, r in summary["systems"].items() if "vclub" in r
        )
        lines.append(
            f"Probe: {budget['layers']} BiLSTM layer(s) of {budget['hidden']}, {budget['seconds']:.0f} s of CPU time, "
            f"{summary['train_clips']} training clips, {summary['valid_clips']} of other speakers to validate, tested "
            f"once. Steps in that time, and validation CER %: {probes}."
        )
        lines.append(
            f"vCLUB: {summary['windows']} windows of {WINDOW_SECONDS:g} s. Its level depends on q: compare rows."
        )
        for name, system in summary["systems"].items():
            v = system.get("vclub", {})
            if v.get("infeasible") or v.get("windows_left_out") or system.get("train_without_path"):
                lines.append(
                    f"{name}: left out because they have no CTC path: {v.get('infeasible', 0)} of {v.get('pairs', 0)} "
                    f"pairs, {v['windows_left_out']} windows, {system['train_without_path']} training clips."
                )
            if "info_nce" in system:
                lines.append(f"{name}: InfoNCE cannot exceed log N, {system['info_nce']['ceiling']:.3f} nats.")
        lines.append(
            f"Phones are those that hama recognises, {summary['phone_labels']} labels; bits with Miller and Madow's "
            "correction. Bits cannot be estimated for several codes per frame: for them, see InfoNCE, which is bounded."
        )
        lines.append(
            "95 % intervals by resampling speakers; for vCLUB and InfoNCE with a fixed probe, critic and set of other "
            "pairs. The probe's error rates are not those of a speech recogniser: compare rows."
        )
        lines += [f"{name}: text alignment was not measured: {why}." for name, why in summary["failed"].items()]
        return [*lines, *summary["orders"], *exclusions(summary)]


def alignment_figures(row: Mapping[str, Any], clips: Sequence[Row], *, seed: int) -> dict[str, Any]:
    """Return one system's figures, with intervals. row: of the system. clips: its rows of test clips."""
    kept = {key: value for key, value in row.items() if key != "system"}
    speakers = [clip["speaker_id"] for clip in clips]
    for error in ("wer", "cer"):
        kept[error] = statistics.figure([clip[f"probe_{error}"] for clip in clips], speakers, seed=seed).scaled(100.0)
    for name in INFORMATION:
        valid = [clip for clip in clips if name in clip]
        if valid:
            found = statistics.figure(
                [clip[name] for clip in valid], [clip["speaker_id"] for clip in valid], seed=seed
            ).scaled(1.0)
            kept[name] |= {key: value for key, value in found.items() if key in ("low", "high", "speakers")}
    return kept


def orders(
    aligned: Sequence[Row],
    preserved: Sequence[Row],
    systems: Sequence[str],
    twin: str | None,
    *,
    similarity: str,
    seed: int,
) -> list[str]:
    """Return sentences on whether the paper's claims hold: on information, probe error and similarity."""
    lines = []
    clips = [row for row in aligned if "clip" in row]
    for name in systems:
        codec, layers = split_spec(name)
        if codec == twin:
            continue
        bare = f"{twin}@:1"
        if layers == slice(0, 1) and bare in systems:
            for figure, label in INFORMATION.items():
                claim = f"{label} of {codec}'s RVQ-1 above that of one without a teacher ({twin})"
                lines.append(statistics.verdict(claim, clips, name, bare, figure, scale=1.0, seed=seed))
            for figure, label in (("probe_wer", "probe WER %"), ("probe_cer", "probe CER %")):
                claim = f"{label} of RVQ-1 without a teacher ({twin}) above {codec}'s"
                lines.append(statistics.verdict(claim, clips, bare, name, figure, scale=100.0, seed=seed))
        if layers in (slice(None), slice(0, 8)) and f"{codec}@:1" in systems:
            for other in systems:
                if split_spec(other)[0] != twin and other != name:
                    claim = f"{METRICS[similarity].label} of {name} above {other}'s"
                    lines.append(statistics.verdict(claim, preserved, name, other, similarity, scale=1.0, seed=seed))
    return lines
