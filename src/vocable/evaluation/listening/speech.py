"""The speech of a test: clips, and what each system makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest, spread
from vocable.evaluation.conversion import convert, load_converter
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.pairs import pair_with_others, pair_with_prompts
from vocable.evaluation.scoring import fit_length
from vocable.evaluation.tokenizers import load_tokenizer
from vocable.evaluation.tts import load, speak
from vocable.lm.synthesis import TAKES


@dataclass(frozen=True)
class Item:
    """A clip, and the speech of every system for it: float32 [L] at 16 kHz."""

    clip: Utterance
    recording: np.ndarray  #: what systems are compared with; for tts, of the same words
    voice: np.ndarray | None  #: the prompt of tts and conversion
    versions: dict[str, np.ndarray]  #: system -> speech


@dataclass(frozen=True)
class Selection:
    """The clips of a test."""

    test: list[Utterance]
    training: list[Utterance]
    unused: int  #: clips of another length than the plan asks for


def select(plan: Plan) -> Selection:
    """Choose the clips of a test and of its training page. Raises ValueError if the manifest has too few."""
    clips = [clip for clip in read_manifest(plan.manifest) if plan.corpus in ("", clip.corpus)]
    usable = [clip for clip in clips if plan.shortest <= clip.duration <= plan.longest]
    wanted = plan.clips + plan.training
    if len(usable) < wanted:
        raise ValueError(
            f"{plan.manifest}: {len(usable)} clips of {plan.shortest:g} to {plan.longest:g} s, {wanted} are needed: "
            "change shortest, longest or clips"
        )
    chosen = list(spread(usable, wanted))
    every = wanted // plan.training
    training = chosen[::every][: plan.training]
    test = [clip for clip in chosen if clip not in training]
    return Selection(test, training, len(clips) - len(usable))


def items(plan: Plan, clips: Sequence[Utterance]) -> Iterator[Item]:
    """Yield the speech of all systems, clip by clip. Raises ValueError for a system that is not available."""
    makers = {"reconstruction": _reconstructions, "tts": _spoken, "conversion": _conversions}
    for item in makers[plan.speech](plan, clips):
        if missing := [name for name in plan.systems if name not in item.versions]:
            raise ValueError(f"systems: no {missing[0]!r}; for {item.clip.id} there are {', '.join(item.versions)}")
        yield item


def _reconstructions(plan: Plan, clips: Sequence[Utterance]) -> Iterator[Item]:
    tokenizers = {name: load_tokenizer(name) for name in plan.systems}
    for clip in clips:
        recording = _read(clip)
        versions = {
            name: fit_length(tokenizer.decode(tokenizer.encode(recording)), len(recording))
            for name, tokenizer in tokenizers.items()
        }
        yield Item(clip, recording, None, versions)


def _spoken(plan: Plan, clips: Sequence[Utterance]) -> Iterator[Item]:
    models = {plan.models: load(plan.models)}
    pairs, unspoken = pair_with_prompts(clips, _voices(plan), seed=plan.known_seed)
    if unspoken:
        raise ValueError(f"{unspoken} clips have no text, or no other clip of their speaker: see prompts")
    for pair in pairs:
        recording, prompt = _read(pair.source), _read(pair.reference)
        spoken = speak(models, pair, recording, prompt, takes=TAKES, words=None, seed=plan.known_seed)
        yield Item(pair.source, recording, prompt, {name: found.waveform for name, found in spoken.items()})


def _conversions(plan: Plan, clips: Sequence[Utterance]) -> Iterator[Item]:
    codec, converter = load_converter(plan.codec, plan.models or None)
    for pair in pair_with_others(clips, _voices(plan), seed=plan.known_seed):
        source, reference = _read(pair.source), _read(pair.reference)
        yield Item(pair.source, source, reference, dict(convert(codec, converter, pair, source, reference)))


def _voices(plan: Plan) -> list[Utterance]:
    return list(read_manifest(Path(plan.prompts or plan.manifest)))


def _read(clip: Utterance) -> np.ndarray:
    waveform, _ = audio.read(clip.path, SAMPLE_RATE)
    return waveform
