"""The paper's conversion table: RVQ-1 of a source, later layers of a reference; judged for words and both voices.

With models of speech, their NAR too writes the layers above the source's RVQ-1, with and without its text.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vocable import audio
from vocable.conversion import VoiceConverter, swap_layers
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS, Models, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import BY_CHARACTERS, recogniser
from vocable.evaluation.page import Cell, Page, Table
from vocable.evaluation.reconstruction import figure_cell, fit, heard_text, scores, unwritten, words_of
from vocable.evaluation.runner import ENGLISH, Progress, Row, describe, exclusions, language_of, run, write_json
from vocable.evaluation.tokenizers import Ours, load_tokenizer
from vocable.lm import model as lm
from vocable.lm.nar import GUIDANCE
from vocable.lm.voice import SHORTEST

LAYERS = (2, 4, 8)  #: the reference gives 1:2, 1:4, 1:8, as far as the codec has them
WORDS = ("wer", "cer", "mos")  #: metrics of what is said, and how well
FIGURES = {  #: of the table: how a figure is headed, and digits and scale of the metric that it is of
    **{name: (METRICS[name].label, METRICS[name].digits, METRICS[name].scale) for name in WORDS},
    "to_reference": ("similarity to the reference", 3, 1.0),
    "to_source": ("similarity to the source", 3, 1.0),
}


@dataclass(frozen=True)
class ClipPair:
    """A source, and a reference of another speaker: or of the same, for speech from text (`tts.py`)."""

    source: Utterance
    reference: Utterance

    @property
    def id(self) -> str:
        return f"{self.source.id} as {self.reference.id}"


@dataclass(frozen=True)
class Conversion:
    """A task of the runner: a pair -> a row for the source, its RVQ-1, each number of reference layers, and the NAR."""

    system: str
    made_by: str
    speech_models: Path | None  #: with a NAR that converts too
    models_made_by: str | None
    models: Models
    similarity: str  #: the metric of voices
    heard: frozenset[str]  #: languages in which what the recogniser hears in a source stands for its text
    made_with: Mapping[str, str]  #: versions and weights of the metrics

    def plan(self) -> dict[str, Any]:
        made: dict[str, Any] = {"system": self.system, "made_by": self.made_by, "made_with": dict(self.made_with)}
        if self.models_made_by:
            made |= {"models": self.models_made_by, "guidance": GUIDANCE}
        return made | {"layers": list(LAYERS), "similarity": self.similarity, "heard": sorted(self.heard)}

    def start(self) -> Callable[[ClipPair], list[Row]]:
        tok = load_codec(self.system)
        converter = load_converter(self.speech_models, tok)
        hear = recogniser(self.models)

        def work(pair: ClipPair) -> list[Row]:
            source, reference = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
            language = language_of(pair.source)
            text = heard_text(hear, source, language) if language in self.heard else pair.source.text
            rows = []
            for name, decoded in convert(tok, converter, pair, source, reference):
                row: Row = {
                    "clip": pair.id,
                    "speaker_id": pair.source.speaker_key,
                    "system": name,
                    "language": language,
                }
                row |= scores(Pair(source, decoded, text, language), WORDS, self.models)
                for figure, voice in (("to_reference", reference), ("to_source", source)):
                    pair_of_voices = Pair(source, decoded, voice=voice)
                    judged = scores(pair_of_voices, (self.similarity,), self.models)
                    row[figure] = judged[self.similarity]
                    if "unjudged" in judged:
                        row.setdefault("unjudged", {})[figure] = judged["unjudged"][self.similarity]
                rows.append(row)
            return rows

        return work


def load_codec(name: str) -> Ours:
    """A SpeechTokenizer; ValueError for any other tokenizer."""
    tok = load_tokenizer(name)
    if not isinstance(tok, Ours):
        raise ValueError(f"{name}: layers can be swapped in a SpeechTokenizer alone")
    return tok


def load_converter(speech_models: Path | None, tok: Ours) -> VoiceConverter | None:
    """Of a folder of language models, where one is given. Raises ValueError for one without a NAR."""
    if speech_models is None:
        return None
    return VoiceConverter(tok.model, lm.load_models(speech_models, tok.model))


def convert(
    tok: Ours, converter: VoiceConverter | None, pair: ClipPair, source: np.ndarray, reference: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """The source, its RVQ-1 alone, and that with more and more of the reference, or with what a NAR makes of it: name
    and float32 [L] at 16 kHz."""
    yield "source", source
    yield ":1", _heard(tok, tok.model.reconstruct(source, sample_rate=SAMPLE_RATE, layers=slice(0, 1)).waveform, source)
    for stop in (stop for stop in LAYERS if stop <= tok.model.num_quantizers):
        converted = swap_layers(
            tok.model,
            source,
            reference,
            sample_rate=SAMPLE_RATE,
            reference_sample_rate=SAMPLE_RATE,
            layers=slice(1, stop),
        )
        yield f"1:{stop}", _heard(tok, converted.waveform, source)
    if converter:
        voice = converter.prepare_voice(reference, sample_rate=SAMPLE_RATE)
        yield "nar", _heard(tok, converter.convert(source, voice, sample_rate=SAMPLE_RATE).waveform, source)
        if pair.source.text and converter.models.aligner:
            text, language = pair.source.text, pair.source.language or ENGLISH
            with contextlib.suppress(ValueError):  # a text that the models cannot read costs its clip this row alone
                converted = converter.convert(source, voice, sample_rate=SAMPLE_RATE, text=text, language=language)
                yield "nar, text", _heard(tok, converted.waveform, source)


def _heard(tok: Ours, waveform: Any, source: np.ndarray) -> np.ndarray:
    return fit(audio.resample(waveform[0].numpy(), tok.model.sample_rate, SAMPLE_RATE), len(source))


def pair_up(sources: Sequence[Utterance], references: Sequence[Utterance], seed: int) -> list[ClipPair]:
    """Each source with a random reference of another speaker, a second or longer."""
    rng = np.random.default_rng(seed)
    pairs = []
    for source in sources:
        others = [r for r in references if r.speaker_key != source.speaker_key and r.duration >= SHORTEST]
        if not others:
            raise ValueError(f"{source.id}: no clip of another speaker to take the voice from")
        pairs.append(ClipPair(source, others[rng.integers(len(others))]))
    return pairs


def evaluate(
    pairs: Sequence[ClipPair],
    out: Path,
    *,
    system: str = "fast",
    speech_models: Path | None = None,
    models: Models,
    similarity: str = "speaker",
    jobs: int = 1,
    seed: int = 0,
    listen: int = 4,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json, index.html and tables.md; returns the summary. similarity: the metric that
    judges voices."""
    tok = load_codec(system)
    versions = made_with([*WORDS, similarity], models)
    converter = load_converter(speech_models, tok)
    made_by = lm.digest(converter.models) if converter else None
    heard = unwritten([pair.source for pair in pairs])
    task = Conversion(system, tok.made_by, speech_models, made_by, models, similarity, heard, versions)
    outcome = run(task, pairs, out, jobs, progress)
    languages = sorted({row["language"] for row in outcome.rows})
    summary = {
        "suite": "conversion",
        # A pair counts as its source, and is left out under its own name.
        **describe([replace(pair.source, id=pair.id) for pair in pairs], outcome),
        "codec": tok.made_by,
        "models": made_by,
        "seed": seed,
        "similarity": METRICS[similarity].label,
        "heard": sorted(heard),
        "made_with": versions,
        "languages": {
            language: summarize([row for row in outcome.rows if row["language"] == language], seed)
            for language in languages
        },
        "orders": [line for language in languages for line in orders(outcome.rows, language, seed)],
    }
    summary["untold"] = untold(summary)
    write_json(out / "summary.json", summary)
    page = Page("One-shot conversion", f"{summary['clips']} pairs of speakers, {tok.made_by}")
    page.tables(tables(summary))
    page.notes(notes(summary))
    heard_on_page = [pair for pair in spread(pairs, listen) if pair.id not in outcome.left_out]
    players = {pair.id: _listen(tok, converter, pair) for pair in heard_on_page}
    if players:
        page.heading("To hear")
        page.players(players, SAMPLE_RATE)
    page.write(out)
    return summary


def summarize(rows: Sequence[Row], seed: int) -> dict[str, dict[str, Any]]:
    """Figures for each choice of layers."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["system"] for row in rows):
        found[name] = {}
        for figure, (_, _, scale) in FIGURES.items():
            valid = [row for row in rows if row["system"] == name and row[figure] is not None]
            if valid:
                counted, of = [row[figure] for row in valid], [row["speaker_id"] for row in valid]
                found[name][figure] = statistics.figure(counted, of, seed).scaled(scale)
    return found


def orders(rows: Sequence[Row], language: str, seed: int) -> list[str]:
    """Whether errors and similarity to the reference rise with every layer more that it gives, as in the paper; and
    whether a NAR errs less than each, and is more like the reference."""
    spoken = [row for row in rows if row["language"] == language]
    found = dict.fromkeys(row["system"] for row in spoken)
    systems = [system for system in found if system.startswith("1:")]
    lines = []
    for figure in ("cer" if language in BY_CHARACTERS else "wer", "to_reference"):
        label, _, scale = FIGURES[figure]
        for fewer, more in itertools.pairwise(systems):
            claim = f"{language}: {label} rises from {fewer} to {more}"
            lines.append(statistics.order(claim, spoken, more, fewer, figure, scale, seed))
        for nar, swapped in itertools.product((s for s in ("nar", "nar, text") if s in found), systems):
            better, worse = (nar, swapped) if figure == "to_reference" else (swapped, nar)
            claim = f"{language}: {label} of {better} is above that of {worse}"
            lines.append(statistics.order(claim, spoken, better, worse, figure, scale, seed))
    return lines


def _listen(tok: Ours, converter: VoiceConverter | None, pair: ClipPair) -> dict[str, np.ndarray]:
    source, reference = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
    return dict(convert(tok, converter, pair, source, reference)) | {"reference": reference}


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """The paper's table, for each language: a row for each choice of layers, and the NAR's."""
    labels = {
        "source": "the source itself",
        ":1": "source :1 alone",
        "nar": "source :1, NAR in the reference's voice",
        "nar, text": "source :1 and its text, NAR in the reference's voice",
    }
    found: dict[str, Table] = {}
    for language, systems in summary["languages"].items():
        rows: list[list[Cell]] = []
        for name, figures in systems.items():
            cells: list[Cell] = [labels.get(name, f"source :1, reference {name}")]
            cells += [figure_cell(figures.get(figure, {}), digits) for figure, (_, digits, _) in FIGURES.items()]
            rows.append(cells)
        found[f"Sources in {language}"] = (["layers", *(label for label, _, _ in FIGURES.values())], rows)
    return found


def notes(summary: Mapping[str, Any]) -> list[str]:
    return [
        "Each source has a random reference of another speaker. Intervals: 95 %, by resampling the sources' speakers. "
        f"Similarity: {summary['similarity']}.",
        *words_of(summary),
        *summary["untold"],
        *summary["orders"],
        *exclusions(summary),
    ]


def untold(summary: Mapping[str, Any]) -> list[str]:
    """Of each language, how many texts the models could not read or find in their clips."""
    lines = []
    for language, systems in summary["languages"].items():
        if "nar, text" in systems:
            plain, told = (systems[name]["to_reference"]["clips"] for name in ("nar", "nar, text"))
            if told < plain:
                lines.append(f"Sources in {language}: {plain - told} texts of {plain} could not be told to the NAR.")
    return lines
