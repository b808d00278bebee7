"""Speech from text, judged: what two recognisers hear, whose voice it is, and how listeners would like it.

Each text is spoken in the voice of another clip: of the same speaker, as in VALL-E (arXiv 2301.02111, section 4.1), or
of another manifest's, in another language say. Beside what models say stands what they could reach at best: the
recording, the recording through the codec, and its RVQ-1 with the layers that the NAR writes over it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import reconstruction
from vocable.evaluation.conversion import ClipPair
from vocable.evaluation.metrics import METRICS, Models, Pair, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.page import Cell, Page, Table
from vocable.evaluation.reconstruction import figure_cell, fit, scores, words_of
from vocable.evaluation.runner import ENGLISH, Progress, Row, describe, exclusions, language_of, run, write_json
from vocable.lm.model import digest
from vocable.lm.nar import GUIDANCE
from vocable.lm.sampling import Sampling
from vocable.lm.uslm import TAKES, USLM
from vocable.lm.voice import SHORTEST

#: Those that need no reference of the same length. The speaker's is held against the prompt.
DEFAULT_METRICS = ("wer", "cer", "per", "speaker", "mos")
#: How they speak and fill, which no option of the suite changes; but another version may.
SPOKEN = {"sampling": asdict(Sampling()), "guidance": GUIDANCE}
FRONT_ENDS = ("phonemizer", "espeakng_loader", "num2words")  #: what reads texts, where it is there


@dataclass(frozen=True)
class Speaking:
    """A task of the runner: a text and a prompt (source and reference of a pair) -> a row for each system."""

    systems: Mapping[str, str]  #: FOLDER or FOLDER@CODEC of the language models, and what made each
    metrics: tuple[str, ...]
    models: Models  #: of the metrics
    made_with: Mapping[str, str]
    takes: int
    words: int | None  #: of each text that are spoken
    seed: int

    def plan(self) -> dict[str, Any]:
        made = {"systems": dict(self.systems), "metrics": list(self.metrics), "made_with": dict(self.made_with)}
        return made | {"takes": self.takes, "words": self.words, "seed": self.seed} | SPOKEN

    def start(self) -> Callable[[ClipPair], list[Row]]:
        systems = {name: load(name) for name in self.systems}

        def work(pair: ClipPair) -> list[Row]:
            recording, prompt = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
            rows = []
            spoken = speak(systems, pair, recording, prompt, self.takes, self.words, self.seed)
            for name, (heard, text, warnings) in spoken.items():
                row: Row = {"clip": pair.id, "speaker_id": pair.source.speaker_key, "system": name}
                row |= {"language": language_of(pair.reference), "warnings": warnings}
                row["seconds"] = len(heard) / SAMPLE_RATE
                judged = Pair(recording, heard, text, language_of(pair.source), voice=prompt)
                rows.append(row | scores(judged, self.metrics, self.models))
            return rows

        return work


def load(name: str) -> USLM:
    """FOLDER of `vocable train lm`, or FOLDER@CODEC."""
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
    takes: int,
    words: int | None,
    seed: int,
) -> dict[str, tuple[np.ndarray, str, list[str]]]:
    """The recording, and of each system what its codec, its NAR and the whole make: float32 [L] at 16 kHz, its text,
    warnings."""
    text = pair.source.text
    assert text
    start = " ".join(text.split()[:words])
    found: dict[str, tuple[np.ndarray, str, list[str]]] = {"recording": (recording, text, [])}
    for name, uslm in systems.items():
        tok = uslm.codec
        encoded = tok.encode(recording, sample_rate=SAMPLE_RATE)
        voice = uslm.prepare_voice(prompt, sample_rate=SAMPLE_RATE)
        found[f"{name} codec"] = _at_16_khz(uslm, tok.decode(encoded).waveform[0]), text, []
        told: dict[str, list[int] | None] = {"NAR": None}
        if uslm.models.aligner:
            with contextlib.suppress(ValueError):  # of a text that is too long for the clip: it costs this row alone
                told["NAR, text"] = uslm.models.align(tok, encoded.codes[0], text, _language(pair))
        for row, symbols in told.items():
            filled = uslm.nar.fill(encoded.codes[0, 0], voice.codes[0], symbols)[None]
            found[f"{name} {row}"] = (
                _at_16_khz(uslm, tok.decode(filled, num_samples=encoded.num_samples).waveform[0]),
                text,
                [],
            )
        speech = uslm.generate(start, voice, language=_language(pair), takes=takes, seed=seed)
        found[name] = _at_16_khz(uslm, speech.waveform), start, speech.warnings
    return found


def _language(pair: ClipPair) -> str:
    """In which a text is spoken, with its region where it has one."""
    return pair.source.language or ENGLISH


def _at_16_khz(uslm: USLM, waveform: torch.Tensor) -> np.ndarray:
    samples = audio.resample(waveform.cpu().numpy(), uslm.codec.sample_rate, SAMPLE_RATE)
    return fit(samples, len(samples))


def pair_up(clips: Sequence[Utterance], prompts: Sequence[Utterance], seed: int) -> tuple[list[ClipPair], int]:
    """Each clip that has a text with a random prompt, and how many clips have no text or no prompt.

    prompts: where they have clips of the speakers, another one of the same speaker; else any.
    """
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[Utterance]] = {}
    for u in prompts:
        if u.duration >= SHORTEST:
            by_speaker.setdefault(u.speaker_key, []).append(u)
    anyone = [u for own in by_speaker.values() for u in own]
    strangers = by_speaker.keys().isdisjoint(clip.speaker_key for clip in clips)
    pairs = []
    for clip in clips:
        own = anyone if strangers else by_speaker.get(clip.speaker_key, [])
        others = [u for u in own if Path(u.path).resolve() != Path(clip.path).resolve()]
        if clip.text and others:
            pairs.append(ClipPair(clip, others[rng.integers(len(others))]))
    if not pairs:
        raise ValueError(f"not one of {len(clips)} clips has a text and a prompt of a second or longer: see --prompts")
    return pairs, len(clips) - len(pairs)


def evaluate(
    pairs: Sequence[ClipPair],
    out: Path,
    *,
    systems: Sequence[str],
    metrics: Sequence[str] = DEFAULT_METRICS,
    models: Models,
    unspoken: int = 0,
    takes: int = TAKES,
    words: int | None = None,
    jobs: int = 1,
    seed: int = 0,
    listen: int = 6,
    progress: Progress = lambda stage, share: None,
) -> dict[str, Any]:
    """Write OUT/rows.jsonl, summary.json, index.html and tables.md; returns the summary. unspoken: of `pair_up`.
    words: of each text that models speak (None: all)."""
    versions = made_with(metrics, models) | {package: version(package) for package in FRONT_ENDS if find_spec(package)}
    loaded = {name: load(name) for name in dict.fromkeys(systems)}
    made_by = {name: f"{digest(uslm.models)} on {uslm.codec.id}" for name, uslm in loaded.items()}
    outcome = run(Speaking(made_by, tuple(metrics), models, versions, takes, words, seed), pairs, out, jobs, progress)
    summary = {
        "suite": "tts",
        **describe([replace(pair.source, id=pair.id) for pair in pairs], outcome),
        "unspoken": unspoken,
        "systems": made_by,
        "metrics": list(metrics),
        "takes": takes,
        "words": words,
        "seed": seed,
        **SPOKEN,
        "made_with": versions,
        "languages": {
            language: summarize([row for row in outcome.rows if row["language"] == language], metrics, seed)
            for language in sorted({row["language"] for row in outcome.rows})
        },
    }
    summary["untold"] = untold(summary)
    write_json(out / "summary.json", summary)
    page = Page("Speech from text", f"{summary['clips']} texts, each in the voice of another recording")
    page.tables(tables(summary))
    page.notes(notes(summary))
    kept = [pair for pair in pairs if pair.id not in outcome.left_out]
    heard = {pair.id: dict(_listen(loaded, pair, takes, words, seed)) for pair in spread(kept, listen)}
    if heard:
        page.heading("To hear")
        page.players(heard, SAMPLE_RATE)
    page.write(out)
    return summary


def summarize(rows: Sequence[Row], metrics: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Figures of each system, and how many of its texts came with warnings."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == name]
        found[name] = {"warned": sum(bool(row["warnings"]) for row in own), "clips": len(own)}
        found[name] |= reconstruction.summarize(own, metrics, seed)
    return found


def _listen(
    systems: Mapping[str, USLM], pair: ClipPair, takes: int, words: int | None, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    recording, prompt = (audio.read(u.path, SAMPLE_RATE)[0] for u in (pair.source, pair.reference))
    yield "prompt", prompt
    for name, (heard, _, _) in speak(systems, pair, recording, prompt, takes, words, seed).items():
        yield name, heard


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """For each language of the prompts: systems by metrics."""
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


def notes(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        "Under figures, 95 % intervals by resampling the texts' speakers. Speaker similarity is to the prompt.",
        "codec: the recording, encoded and decoded. NAR: its RVQ-1, the rest by the model from the prompt, and text.",
        f"The best of {summary['takes']} takes. Warned: loops, early stops and the like, which count too.",
    ]
    if summary["words"]:
        lines.append(
            f"Models speak the first {summary['words']} words of each text; the other rows are of whole clips."
        )
    if summary["unspoken"]:
        lines.append(f"{summary['unspoken']} clips are not among them: no text, or no other clip of their speaker.")
    lines += summary["untold"]
    if any(METRICS[name].needs_text for name in summary["metrics"]):
        lines += words_of(summary)
    return lines + exclusions(summary)


def untold(summary: Mapping[str, Any]) -> list[str]:
    """Of each language and system, how many texts the NAR could not be told: too long for their clips."""
    lines = []
    for language, systems in summary["languages"].items():
        for name in summary["systems"]:
            if f"{name} NAR, text" in systems:
                plain, told = (systems[f"{name} {row}"]["clips"] for row in ("NAR", "NAR, text"))
                if told < plain:
                    lines.append(f"{name}, prompts in {language}: {plain - told} texts could not be told to the NAR.")
    return lines
