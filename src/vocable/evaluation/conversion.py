"""The paper's conversion table: RVQ-1 of a source, later layers of a reference; judged for words and both voices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.conversion import MIN_SECONDS, swap_layers
from vocable.corpus.manifest import Utterance
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS, Models, Pair
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.page import Page
from vocable.evaluation.reconstruction import figure_cell, fit, keep, kept_path
from vocable.evaluation.runner import Row, describe, run, write_json
from vocable.evaluation.tokenizers import NotAvailable, Ours, load_tokenizer

LAYERS = (2, 4, 8)  #: the reference gives 1:2, 1:4, 1:8
FIGURES = {  #: of the table: how a figure is headed, and the metric that it is of
    "wer": ("WER % ↓", "wer"),
    "to_reference": ("similarity to the reference ↑", "speaker"),
    "to_source": ("similarity to the source", "speaker"),
    "mos": ("DistillMOS ↑", "mos"),
}


@dataclass(frozen=True)
class ClipPair:
    """A source and a reference of another speaker."""

    source: Utterance
    reference: Utterance

    @property
    def id(self) -> str:
        return f"{self.source.id} as {self.reference.id}"


@dataclass(frozen=True)
class Conversion:
    """A task of the runner: a pair -> a row for each number of reference layers, and for the recordings."""

    system: str
    made_by: str
    models: Models
    keep: tuple[str, ...] = ()
    audio: Path = Path("audio")

    def plan(self) -> dict[str, Any]:
        models = {key: str(value) for key, value in asdict(self.models).items()}
        return {"system": self.system, "made_by": self.made_by, "layers": list(LAYERS), "models": models}

    def start(self) -> Callable[[ClipPair], list[Row]]:
        tok = load_tokenizer(self.system)
        assert isinstance(tok, Ours)
        wer, speaker, mos = (METRICS[name](self.models) for name in ("wer", "speaker", "mos"))

        def work(pair: ClipPair) -> list[Row]:
            source, reference = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
            rows = []
            # The recording in place of its conversion: whom it resembles, and how well its words are heard.
            outputs = {"source": source, ":1": fit(_through(tok, source, 1), len(source))}
            for stop in LAYERS:
                converted = swap_layers(tok.model, source, reference, SAMPLE_RATE, SAMPLE_RATE, slice(1, stop))
                decoded = audio.resample(converted.waveform[0].numpy(), tok.model.sample_rate, SAMPLE_RATE)
                outputs[f"1:{stop}"] = fit(decoded, len(source))
            for name, decoded in outputs.items():
                if pair.id in self.keep:
                    keep(self.audio, pair.id, name, decoded)
                judged = Pair(source, decoded, pair.source.text, pair.source.language or "en", reference)
                rows.append(
                    {
                        "clip": pair.id,
                        "system": name,
                        "wer": wer(judged),
                        "to_reference": speaker(judged),
                        "to_source": speaker(Pair(source, decoded)),
                        "mos": mos(judged),
                    }
                )
            if pair.id in self.keep:
                keep(self.audio, pair.id, "reference", reference)
            return rows

        return work


def _through(tok: Ours, waveform: np.ndarray, layers: int) -> np.ndarray:
    decoded = tok.model.reconstruct(waveform, SAMPLE_RATE, layers=slice(0, layers)).waveform[0].numpy()
    return audio.resample(decoded, tok.model.sample_rate, SAMPLE_RATE)


def pair_up(sources: Sequence[Utterance], references: Sequence[Utterance], seed: int) -> list[ClipPair]:
    """Each source with a random reference of another speaker, a second or longer."""
    rng = np.random.default_rng(seed)
    pairs = []
    for source in sources:
        others = [r for r in references if r.speaker != source.speaker and r.duration >= MIN_SECONDS]
        if not others:
            raise ValueError(f"{source.id}: no clip of another speaker to take the voice from")
        pairs.append(ClipPair(source, others[rng.integers(len(others))]))
    return pairs


def evaluate(
    pairs: Sequence[ClipPair],
    out: Path,
    *,
    system: str = "fast",
    models: Models,
    jobs: int = 1,
    seed: int = 0,
    listen: int = 4,
    progress: Callable[[str | None], None] = lambda error: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json and index.html; returns the summary."""
    tok = load_tokenizer(system)
    if not isinstance(tok, Ours):
        raise NotAvailable(f"{system}: layers are swapped in a SpeechTokenizer")
    made_with: dict[str, str] = {}
    for _, metric in FIGURES.values():
        made_with |= METRICS[metric](models).made_with()
    heard = tuple(pairs[i * len(pairs) // min(listen, len(pairs))].id for i in range(min(listen, len(pairs))))
    outcome = run(Conversion(system, tok.made_by, models, heard, out / "audio"), pairs, out, jobs, progress)
    speakers = {pair.id: pair.source.speaker or pair.id for pair in pairs}
    systems: dict[str, Any] = {}
    for name in ("source", ":1", *(f"1:{stop}" for stop in LAYERS)):
        rows = [row for row in outcome.rows if row["system"] == name]
        systems[name] = {}
        for figure, (_, metric) in FIGURES.items():
            valid = [row for row in rows if row[figure] is not None]
            if valid:
                found = statistics.figure([r[figure] for r in valid], [speakers[r["clip"]] for r in valid], seed)
                systems[name][figure] = found.scaled(METRICS[metric].scale)
    # Clips are counted as sources: a pair that failed is left out under its own name.
    described = describe([_as_clip(pair) for pair in pairs], outcome)
    summary = {
        "suite": "conversion",
        **described,
        "codec": tok.made_by,
        "seed": seed,
        "made_with": made_with,
        "systems": systems,
    }
    write_json(out / "summary.json", summary)
    page = Page("One-shot conversion by layer swap", f"{described['clips']} pairs of speakers, {tok.made_by}")
    page.table(*table(summary))
    page.heading("To hear")
    columns = ("source", "reference", ":1", *(f"1:{stop}" for stop in LAYERS))
    done = [pair for pair in heard if pair not in outcome.left_out]
    page.players(columns, {pair: [kept_path(out / "audio", pair, name) for name in columns] for pair in done})
    page.write(out / "index.html")
    return summary


def _as_clip(pair: ClipPair) -> Utterance:
    s = pair.source
    return Utterance(pair.id, s.path, s.duration, s.speaker, s.text, s.corpus, s.language)


def table(summary: dict[str, Any]) -> tuple[list[str], list[list[str | tuple[str, str]]]]:
    """The paper's table: a row for each choice of layers."""
    labels = {"source": "the source itself", ":1": "source :1 alone"}
    rows: list[list[str | tuple[str, str]]] = []
    for name, found in summary["systems"].items():
        cells: list[str | tuple[str, str]] = [labels.get(name, f"source :1, reference {name}")]
        for figure, (_, metric) in FIGURES.items():
            cells.append(figure_cell(found.get(figure, {}), METRICS[metric].digits))
        rows.append(cells)
    return ["layers", *(heading for heading, _ in FIGURES.values())], rows
