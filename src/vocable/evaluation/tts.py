"""Suite `tts`: text to speech in the voice of a prompt, judged for words, phones, voice and naturalness.

The prompt is another clip of the same speaker, as in VALL-E (arXiv 2301.02111, section 4.1), or a clip of another
manifest, for example in another language. Beside the models' speech are its upper bounds: the recording, the recording
through the codec, and its RVQ-1 with the layers that the NAR writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation.metrics import METRICS, Judges, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.pairs import ClipPair
from vocable.evaluation.runner import Item, Row, Task
from vocable.evaluation.scoring import figures_of, fit_length, notes_on_words, scores
from vocable.evaluation.suite import Suite, Waveforms
from vocable.evaluation.summary import ENGLISH, exclusions, figure_cell, language_of
from vocable.lm.model import digest
from vocable.lm.nar import GUIDANCE
from vocable.lm.sampling import Sampling
from vocable.lm.synthesis import TAKES
from vocable.lm.uslm import USLM
from vocable.page import Cell, Table

#: Metrics that need no reference of the same length. Speaker similarity is to the prompt.
DEFAULT_METRICS = ("wer", "cer", "per", "speaker", "mos")
#: How the models sample. No option of the suite changes it, but another version of vocable may.
SAMPLED = {"sampling": asdict(Sampling()), "guidance": GUIDANCE}
FRONT_ENDS = ("phonemizer", "espeakng_loader", "num2words")  #: optional packages that read texts


class Spoken(NamedTuple):
    """A text as speech."""

    waveform: np.ndarray  #: float32 [L] at 16 kHz
    text: str
    warnings: list[str]


@dataclass(frozen=True)
class JudgeSpeech:
    """Task: a pair, whose source has the text and whose reference is the prompt -> a row for each system."""

    systems: Mapping[str, str]  #: FOLDER or FOLDER@CODEC of the language models, and what made each
    metrics: tuple[str, ...]
    judges: Judges
    made_with: Mapping[str, str]  #: versions and weights of metrics and front ends
    takes: int
    words: int | None  #: of each text that are spoken; None: all
    seed: int

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        made = {"systems": dict(self.systems), "metrics": list(self.metrics), "made_with": dict(self.made_with)}
        return made | {"takes": self.takes, "words": self.words, "seed": self.seed} | SAMPLED

    def start(self) -> Callable[[ClipPair], list[Row]]:
        """Load the models and return the function that measures a pair."""
        systems = {name: load(name) for name in self.systems}

        def work(pair: ClipPair) -> list[Row]:
            recording, prompt = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
            rows = []
            spoken = speak(systems, pair, recording, prompt, takes=self.takes, words=self.words, seed=self.seed)
            for name, (waveform, text, warnings) in spoken.items():
                row: Row = {"clip": pair.id, "speaker_id": pair.source.speaker_key, "system": name}
                row |= {"language": language_of(pair.reference), "warnings": warnings}
                row["seconds"] = len(waveform) / SAMPLE_RATE
                judged = Pair(recording, waveform, text, language_of(pair.source), voice=prompt)
                rows.append(row | scores(judged, self.metrics, self.judges))
            return rows

        return work


def load(name: str) -> USLM:
    """Load language models from FOLDER of `vocable train lm`, or from FOLDER@CODEC."""
    folder, _, codec = (name, "", "") if Path(name).exists() else name.partition("@")
    try:
        return USLM.from_pretrained(folder, codec=codec or None)
    except ValueError as error:
        hint = "" if codec else "; a codec that is not the embedded one is named as FOLDER@CODEC"
        raise ValueError(f"{error}{hint}") from error


def speak(
    systems: Mapping[str, USLM],
    pair: ClipPair,
    recording: np.ndarray,
    prompt: np.ndarray,
    *,
    takes: int,
    words: int | None,
    seed: int,
) -> dict[str, Spoken]:
    """Return the recording, and the speech of each system's codec, of its NAR, and of the whole system."""
    text, language = pair.source.text, pair.source.language or ENGLISH
    assert text
    start = " ".join(text.split()[:words])
    found = {"recording": Spoken(recording, text, [])}
    for name, uslm in systems.items():
        codec = uslm.codec
        encoded = codec.encode(recording, sample_rate=SAMPLE_RATE)
        voice = uslm.prepare_voice(prompt, sample_rate=SAMPLE_RATE)
        found[f"{name} codec"] = Spoken(_at_16_khz(uslm, codec.decode(encoded).waveform[0]), text, [])
        symbols: dict[str, list[int] | None] = {"NAR": None}
        if uslm.models.aligner:
            with contextlib.suppress(ValueError):  # if a text is too long for its clip, this row alone is missing
                symbols["NAR, text"] = uslm.models.align(codec, encoded.codes[0], text, language)
        for row, aligned in symbols.items():
            filled = uslm.nar.fill(encoded.codes[0, 0], voice.codes[0], aligned)[None]
            decoded = codec.decode(filled, num_samples=encoded.num_samples).waveform[0]
            found[f"{name} {row}"] = Spoken(_at_16_khz(uslm, decoded), text, [])
        speech = uslm.generate(start, voice, language=language, takes=takes, seed=seed)
        found[name] = Spoken(_at_16_khz(uslm, speech.waveform), start, speech.warnings)
    return found


def _at_16_khz(uslm: USLM, waveform: torch.Tensor) -> np.ndarray:
    samples = audio.resample(waveform.cpu().numpy(), uslm.codec.sample_rate, SAMPLE_RATE)
    return fit_length(samples, len(samples))


class TextToSpeech(Suite):
    """Suite: text to speech."""

    name, title = "tts", "Text to speech"

    def __init__(
        self,
        pairs: Sequence[ClipPair],
        *,
        systems: Sequence[str],
        metrics: Sequence[str] = DEFAULT_METRICS,
        judges: Judges,
        unspoken: int = 0,
        takes: int = TAKES,
        words: int | None = None,
        listen: int = 6,
        seed: int = 0,
    ) -> None:
        """pairs, unspoken: of `pair_with_prompts`. systems: FOLDER or FOLDER@CODEC of language models. words: of each
        text, from its start, that the models speak (None: all). listen: the number of pairs that the page plays."""
        # A pair counts as its source, and is left out under its own name.
        super().__init__([replace(pair.source, id=pair.id) for pair in pairs], seed=seed)
        self.pairs, self.metrics, self.judges = pairs, tuple(metrics), judges
        self.unspoken, self.takes, self.words, self.listen = unspoken, takes, words, listen
        front_ends = {package: version(package) for package in FRONT_ENDS if find_spec(package)}
        self.made_with = made_with(metrics, judges) | front_ends
        self.systems = {name: load(name) for name in dict.fromkeys(systems)}
        self.made_by = {name: f"{digest(uslm.models)} on {uslm.codec.id}" for name, uslm in self.systems.items()}

    def items(self) -> Sequence[Item]:
        """Return the pairs."""
        return self.pairs

    def task(self) -> Task[ClipPair]:
        """Return the task that judges the speech of every system."""
        return JudgeSpeech(self.made_by, self.metrics, self.judges, self.made_with, self.takes, self.words, self.seed)

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of each language of the prompts."""
        languages = {
            language: self._by_system([row for row in rows if row["language"] == language])
            for language in sorted({row["language"] for row in rows})
        }
        return {
            "unspoken": self.unspoken,
            "systems": self.made_by,
            "metrics": list(self.metrics),
            "takes": self.takes,
            "words": self.words,
            **SAMPLED,
            "made_with": self.made_with,
            "languages": languages,
            "untold": notes_on_unaligned_texts(languages, list(self.made_by)),
        }

    def _by_system(self, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(row["system"] for row in rows):
            own = [row for row in rows if row["system"] == name]
            found[name] = {"warned": sum(bool(row["warnings"]) for row in own), "clips": len(own)}
            found[name] |= figures_of(own, self.metrics, seed=self.seed)
        return found

    def lead(self, summary: Mapping[str, Any]) -> str:
        """Return the paragraph under the page's title."""
        return f"{summary['clips']} texts, each in the voice of another recording"

    def players(self, clips: Sequence[Utterance]) -> Waveforms:
        """Return the speech of some pairs."""
        kept = {clip.id for clip in clips}
        found = {}
        for pair in spread([pair for pair in self.pairs if pair.id in kept], self.listen):
            recording, prompt = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
            spoken = speak(self.systems, pair, recording, prompt, takes=self.takes, words=self.words, seed=self.seed)
            found[pair.id] = {"prompt": prompt, **{name: speech.waveform for name, speech in spoken.items()}}
        return found

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return a table for each language of the prompts: systems by metrics."""
        metrics = [METRICS[name] for name in summary["metrics"]]
        found: dict[str, Table] = {}
        for language, systems in summary["languages"].items():
            rows: list[list[Cell]] = []
            for name, figures in systems.items():
                made_by = summary["systems"].get(name)
                cells: list[Cell] = [(name, made_by) if made_by else name]
                cells += [figure_cell(figures.get(metric.name, {}), metric.digits) for metric in metrics]
                rows.append([*cells, f"{figures['warned']} of {figures['clips']}"])
            headings = [metric.heading() for metric in metrics]
            found[f"Prompts in {language}"] = ["system", *headings, "warned"], rows
        return found

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return notes on the rows, the takes, the texts and exclusions."""
        lines = [
            "Under figures, 95 % intervals by resampling the texts' speakers. Speaker similarity is to the prompt.",
            "codec: the recording, encoded and decoded. NAR: RVQ-1 of the recording; the other layers are written by "
            "the model, given the prompt and, where named, the text.",
            f"The best of {summary['takes']} takes. Warned: texts with loops, early stops and the like; they count.",
        ]
        if summary["words"]:
            lines.append(
                f"Models speak the first {summary['words']} words of each text; the other rows are of whole clips."
            )
        if summary["unspoken"]:
            lines.append(f"{summary['unspoken']} clips are not included: no text, or no other clip of their speaker.")
        lines += summary["untold"]
        if any(METRICS[name].needs_text for name in summary["metrics"]):
            lines += notes_on_words(summary)
        return lines + exclusions(summary)


def notes_on_unaligned_texts(languages: Mapping[str, Mapping[str, Any]], systems: Sequence[str]) -> list[str]:
    """Return for each language and system how many texts the NAR was not given: they are too long for their clips."""
    lines = []
    for language, figures in languages.items():
        for name in systems:
            if f"{name} NAR, text" in figures:
                plain, with_text = (figures[f"{name} {row}"]["clips"] for row in ("NAR", "NAR, text"))
                if with_text < plain:
                    lines.append(
                        f"{name}, prompts in {language}: {plain - with_text} texts could not be given to the NAR."
                    )
    return lines
