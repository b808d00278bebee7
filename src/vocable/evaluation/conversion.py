"""Suite `conversion`: one-shot voice conversion, judged for words and for both voices.

As in the paper's table: RVQ-1 of the source, and more and more of the later layers of the reference. With language
models, their NAR also writes the layers above the source's RVQ-1, with and without the source's text.
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
from vocable.codec.base import Codec
from vocable.codec.load import load_codec
from vocable.codec.tokens import Decoded
from vocable.conversion import VoiceConverter, swap_layers
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import statistics
from vocable.evaluation.metrics import METRICS, Judges, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import BY_CHARACTERS, recogniser
from vocable.evaluation.pairs import ClipPair
from vocable.evaluation.runner import Item, Row, Task
from vocable.evaluation.scoring import fit_length, languages_without_text, notes_on_words, scores, transcript
from vocable.evaluation.suite import Suite, Waveforms
from vocable.evaluation.summary import ENGLISH, exclusions, figure_cell, language_of
from vocable.lm.model import digest
from vocable.lm.nar import GUIDANCE
from vocable.page import Cell, Table

REFERENCE_STOPS = (2, 4, 8)  #: the reference gives the layers 1:2, 1:4, 1:8, as far as the codec has them
WORD_METRICS = ("wer", "cer", "mos")  #: of the words, and how natural they sound
#: Columns of the tables: figure -> label, digits, scale.
FIGURES = {
    **{name: (METRICS[name].label, METRICS[name].digits, METRICS[name].scale) for name in WORD_METRICS},
    "to_reference": ("similarity to the reference", 3, 1.0),
    "to_source": ("similarity to the source", 3, 1.0),
}


@dataclass(frozen=True)
class JudgeConversion:
    """Task: a pair -> a row for the source, its RVQ-1, each number of reference layers, and the NAR."""

    system: str
    made_by: str
    models: str | None  #: a folder of language models with a NAR
    models_made_by: str | None
    judges: Judges
    similarity: str  #: the metric that judges voices
    transcribed: frozenset[str]  #: languages in which the recogniser's transcript of a source replaces its text
    made_with: Mapping[str, str]  #: versions and weights of the metrics

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        made: dict[str, Any] = {"system": self.system, "made_by": self.made_by, "made_with": dict(self.made_with)}
        if self.models_made_by:
            made |= {"models": self.models_made_by, "guidance": GUIDANCE}
        return made | {
            "layers": list(REFERENCE_STOPS),
            "similarity": self.similarity,
            "heard": sorted(self.transcribed),
        }

    def start(self) -> Callable[[ClipPair], list[Row]]:
        """Load the codec, the models and the recogniser, and return the function that measures a pair."""
        codec, converter = load_converter(self.system, self.models)
        recognise = recogniser(self.judges)

        def work(pair: ClipPair) -> list[Row]:
            source, reference = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
            language, text = language_of(pair.source), pair.source.text
            if language in self.transcribed:
                text = transcript(recognise, source, language)
            rows = []
            for name, decoded in convert(codec, converter, pair, source, reference):
                row: Row = {
                    "clip": pair.id,
                    "speaker_id": pair.source.speaker_key,
                    "system": name,
                    "language": language,
                }
                row |= scores(Pair(source, decoded, text, language), WORD_METRICS, self.judges)
                for figure, voice in (("to_reference", reference), ("to_source", source)):
                    judged = scores(Pair(source, decoded, voice=voice), (self.similarity,), self.judges)
                    row[figure] = judged[self.similarity]
                    if "unjudged" in judged:
                        row.setdefault("unjudged", {})[figure] = judged["unjudged"][self.similarity]
                rows.append(row)
            return rows

        return work


def load_converter(system: str, models: str | None) -> tuple[Codec, VoiceConverter | None]:
    """Load a codec, and a converter with the NAR of language models if their folder is given.

    Raises ValueError for models without a NAR.
    """
    if models is None:
        return load_codec(system), None
    converter = VoiceConverter.from_pretrained(models, codec=system)
    return converter.codec, converter


def convert(
    codec: Codec, converter: VoiceConverter | None, pair: ClipPair, source: np.ndarray, reference: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the conversions of a source: name, and float32 [L] at 16 kHz.

    They are the source itself, its RVQ-1 alone, its RVQ-1 with more and more layers of the reference, and its RVQ-1
    with the layers that the NAR writes.
    """

    def at_16_khz(decoded: Decoded) -> np.ndarray:
        waveform = audio.resample(decoded.waveform[0].numpy(), codec.sample_rate, SAMPLE_RATE)
        return fit_length(waveform, len(source))

    yield "source", source
    yield ":1", at_16_khz(codec.reconstruct(source, sample_rate=SAMPLE_RATE, layers=slice(0, 1)))
    for stop in (stop for stop in REFERENCE_STOPS if stop <= codec.num_quantizers):
        swapped = swap_layers(
            codec, source, reference, sample_rate=SAMPLE_RATE, reference_sample_rate=SAMPLE_RATE, layers=slice(1, stop)
        )
        yield f"1:{stop}", at_16_khz(swapped)
    if converter:
        voice = converter.prepare_voice(reference, sample_rate=SAMPLE_RATE)
        yield "nar", at_16_khz(converter.convert(source, voice, sample_rate=SAMPLE_RATE))
        if pair.source.text and converter.models.aligner:
            text, language = pair.source.text, pair.source.language or ENGLISH
            with contextlib.suppress(ValueError):  # if the models cannot read a text, this row alone is missing
                converted = converter.convert(source, voice, sample_rate=SAMPLE_RATE, text=text, language=language)
                yield "nar, text", at_16_khz(converted)


class Conversion(Suite):
    """Suite: one-shot voice conversion."""

    name, title = "conversion", "One-shot conversion"

    def __init__(
        self,
        pairs: Sequence[ClipPair],
        *,
        system: str = "fast",
        models: Path | None = None,
        judges: Judges,
        similarity: str = "speaker",
        listen: int = 4,
        seed: int = 0,
    ) -> None:
        """system: a codec's name. models: a folder of language models, whose NAR converts too. similarity: the metric
        that judges voices. listen: the number of pairs that the page plays."""
        # A pair counts as its source, and is left out under its own name.
        super().__init__([replace(pair.source, id=pair.id) for pair in pairs], seed=seed)
        self.pairs, self.system, self.judges = pairs, system, judges
        self.similarity, self.listen = similarity, listen
        self.made_with = made_with([*WORD_METRICS, similarity], judges)
        self.models = None if models is None else str(models)
        self.codec, self.converter = load_converter(system, self.models)
        self.models_made_by = digest(self.converter.models) if self.converter else None
        self.transcribed = languages_without_text([pair.source for pair in pairs])

    def items(self) -> Sequence[Item]:
        """Return the pairs."""
        return self.pairs

    def task(self) -> Task[ClipPair]:
        """Return the task that judges the conversions of a pair."""
        return JudgeConversion(
            self.system,
            self.codec.id,
            self.models,
            self.models_made_by,
            self.judges,
            self.similarity,
            self.transcribed,
            self.made_with,
        )

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each language and conversion, and whether the paper's order holds."""
        by_language = {
            language: [row for row in rows if row["language"] == language]
            for language in sorted({row["language"] for row in rows})
        }
        languages = {language: summarize(own, seed=self.seed) for language, own in by_language.items()}
        return {
            "codec": self.codec.id,
            "models": self.models_made_by,
            "similarity": METRICS[self.similarity].label,
            "heard": sorted(self.transcribed),
            "made_with": self.made_with,
            "languages": languages,
            "orders": [line for language, own in by_language.items() for line in orders(own, language, seed=self.seed)],
            "untold": notes_on_unread_texts(languages),
        }

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{summary['clips']} pairs of speakers, {self.codec.id}"

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        """Return the conversions of some pairs."""
        kept = {clip.id for clip in clips}
        found = {}
        for pair in spread(self.pairs, self.listen):
            if pair.id in kept:
                source, reference = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
                converted = convert(self.codec, self.converter, pair, source, reference)
                found[pair.id] = dict(converted) | {"reference": reference}
        return found

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return the paper's table for each language: a row for each choice of layers, and the NAR's."""
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

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on references, words, unread texts, the paper's order and exclusions."""
        return [
            "Each source has a random reference of another speaker. Intervals: 95 %, by resampling the sources' "
            f"speakers. Similarity: {summary['similarity']}.",
            *notes_on_words(summary),
            *summary["untold"],
            *summary["orders"],
            *exclusions(summary),
        ]


def summarize(rows: Sequence[Row], *, seed: int) -> dict[str, dict[str, Any]]:
    """Return the figures of each conversion."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["system"] for row in rows):
        found[name] = {}
        for figure, (_, _, scale) in FIGURES.items():
            valid = [row for row in rows if row["system"] == name and row[figure] is not None]
            if valid:
                counted, speakers = [row[figure] for row in valid], [row["speaker_id"] for row in valid]
                found[name][figure] = statistics.figure(counted, speakers, seed=seed).scaled(scale)
    return found


def orders(rows: Sequence[Row], language: str, *, seed: int) -> list[str]:
    """Return sentences on the paper's order in one language's rows.

    Errors and similarity to the reference should rise with each additional layer of the reference; the NAR should have
    fewer errors than each choice of layers, and a higher similarity.
    """
    found = dict.fromkeys(row["system"] for row in rows)
    swapped = [system for system in found if system.startswith("1:")]
    lines = []
    for figure in ("cer" if language in BY_CHARACTERS else "wer", "to_reference"):
        label, _, scale = FIGURES[figure]
        for fewer, more in itertools.pairwise(swapped):
            claim = f"{language}: {label} rises from {fewer} to {more}"
            lines.append(statistics.verdict(claim, rows, more, fewer, figure, scale=scale, seed=seed))
        for nar, layers in itertools.product((s for s in ("nar", "nar, text") if s in found), swapped):
            above, below = (nar, layers) if figure == "to_reference" else (layers, nar)
            claim = f"{language}: {label} of {above} is above that of {below}"
            lines.append(statistics.verdict(claim, rows, above, below, figure, scale=scale, seed=seed))
    return lines


def notes_on_unread_texts(languages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return for each language how many texts the models could not read or not align with their clips."""
    lines = []
    for language, systems in languages.items():
        if "nar, text" in systems:
            plain, with_text = (systems[name]["to_reference"]["clips"] for name in ("nar", "nar, text"))
            if with_text < plain:
                lines.append(
                    f"Sources in {language}: {plain - with_text} texts of {plain} could not be given to the NAR."
                )
    return lines
