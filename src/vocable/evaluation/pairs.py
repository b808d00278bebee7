"""Pairs of clips: a source, or a text, and the recording of a voice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocable.corpus.manifest import Utterance
from vocable.lm.voice import SHORTEST


@dataclass(frozen=True)
class ClipPair:
    """Item of the runner: a source, or the clip of a text, and a reference for the voice."""

    source: Utterance
    reference: Utterance

    @property
    def id(self) -> str:
        """The ids of both clips."""
        return f"{self.source.id} as {self.reference.id}"


def pair_with_others(sources: Sequence[Utterance], references: Sequence[Utterance], *, seed: int) -> list[ClipPair]:
    """Pair each source with a random reference of another speaker, of at least SHORTEST seconds.

    Raises ValueError if a source has no such reference.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for source in sources:
        others = [r for r in references if r.speaker_key != source.speaker_key and r.duration >= SHORTEST]
        if not others:
            raise ValueError(f"{source.id}: no clip of another speaker to take the voice from")
        pairs.append(ClipPair(source, others[rng.integers(len(others))]))
    return pairs


def pair_with_prompts(
    clips: Sequence[Utterance], prompts: Sequence[Utterance], *, seed: int
) -> tuple[list[ClipPair], int]:
    """Pair each clip that has a text with a random prompt, and count the clips without a text or a prompt.

    prompts: if they contain clips of the speakers, the prompt is another clip of the same speaker, and else any clip.
    Raises ValueError if there is no pair.
    """
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[Utterance]] = {}
    for u in prompts:
        if u.duration >= SHORTEST:
            by_speaker.setdefault(u.speaker_key, []).append(u)
    everyone = [u for own in by_speaker.values() for u in own]
    unrelated = by_speaker.keys().isdisjoint(clip.speaker_key for clip in clips)
    pairs = []
    for clip in clips:
        own = everyone if unrelated else by_speaker.get(clip.speaker_key, [])
        others = [u for u in own if Path(u.path).resolve() != Path(clip.path).resolve()]
        if clip.text and others:
            pairs.append(ClipPair(clip, others[rng.integers(len(others))]))
    if not pairs:
        raise ValueError(f"not one of {len(clips)} clips has a text and a prompt of a second or longer: see --prompts")
    return pairs, len(clips) - len(pairs)
