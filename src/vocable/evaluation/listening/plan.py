"""The plan of a listening test: everything that determines it, as `vocable listen make` reads it from a YAML file."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from vocable.evaluation.listening import design
from vocable.evaluation.listening.inference import pairs
from vocable.evaluation.listening.kinds import KINDS, LOW_ANCHOR, MID_ANCHOR, REFERENCE, Kind, KindName, Spread
from vocable.evaluation.listening.power import Size, listeners_needed, power
from vocable.training.recipe_file import BelowOne, Bound, Count, Natural, Positive, Section, Seed, build, read_values

Several = Annotated[int, Bound("at least 2", lambda n: n >= 2)]
Power = Annotated[float, Bound("more than 0 and less than 1", lambda p: 0 < p < 1)]
Level = Annotated[float, Bound("-60 to -10 LUFS", lambda x: -60 <= x <= -10)]


@dataclass(frozen=True)
class Plan(Section):
    """A listening test."""

    kind: KindName  #: mushra, mos, smos, preference or abx
    manifest: str  #: JSONL manifest of the clips; paths in a plan are relative to the working directory
    #: Systems to compare. With `speech: reconstruction`, names as `vocable eval reconstruction` takes them. With `tts`,
    #: rows of `vocable eval tts`: "recording", "RUN/model", "RUN/model codec", "RUN/model NAR". With `conversion`, rows
    #: of `vocable eval conversion`: "source", ":1", "1:2", "1:4", "1:8", "nar", "nar, text".
    systems: tuple[str, ...]
    title: str = "Listening test"  #: that listeners see
    speech: Literal["reconstruction", "tts", "conversion"] = "reconstruction"  #: what the systems do with a clip
    models: str = ""  #: folder of language models: for `tts`, or for the rows "nar" of `conversion`
    codec: str = "fast"  #: codec that converts voices
    prompts: str = ""  #: manifest of voices for `tts` and `conversion`; default: other clips of `manifest`
    corpus: str = ""  #: only the clips of this corpus
    clips: Several = 12  #: number of clips, chosen at even distances
    training: Count = 1  #: number of further clips, for the training page
    shortest: Positive = 2.0  #: seconds; shorter clips are not used
    longest: Positive = 10.0  #: seconds; longer clips are not used
    versions: Count = 1  #: conditions of each clip that a listener judges (MUSHRA: always all)
    listeners: Natural = 0  #: number of listeners; 0: as many as `detect` and `power` need
    detect: Positive | None = None  #: difference to find, in points of the scale; default: the kind's
    power: Power = 0.8  #: probability of finding it
    dropout: BelowOne = 0.1  #: fraction of listeners that screening is expected to leave out
    spread: Spread | None = None  #: standard deviations that planning assumes, best from a pilot; default: the kind's
    checks: Natural = 6  #: attention checks of each listener (MUSHRA has none: its hidden reference is the check)
    loudness: Level = -26.0  #: of every stimulus, LUFS
    predictors: tuple[str, ...] | None = None  #: metrics of `vocable eval metrics` to compare with listeners
    judges: str = ".cache/models"  #: folder of the metrics' models
    seed: Seed | None = None  #: of clips, places and orders; default: a random one, so that nobody can compute orders

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name for name in self.systems if self.systems.count(name) > 1]
        if names:
            raise ValueError(f"systems: {names[0]} occurs twice; name each system once")
        if reserved := {REFERENCE, LOW_ANCHOR, MID_ANCHOR} & set(self.systems):
            raise ValueError(f"systems: {sorted(reserved)[0]} is added by vocable; leave it out")
        if self.kind == "mushra" and (self.speech == "tts" or "recording" in self.systems):
            raise ValueError("MUSHRA compares with a recording, its hidden reference: leave out tts and recording")
        if len(self.systems) < (1 if self.kind == "mushra" else 2):
            raise ValueError("systems: name at least two systems to compare")
        if self.speech == "tts" and not self.models:
            raise ValueError("speech: tts needs models, the folder of the language models")
        if self.versions > len(self.conditions):
            raise ValueError(f"versions: there are only {len(self.conditions)} conditions of a clip")

    @property
    def scale(self) -> Kind:
        """The kind of test."""
        return KINDS[self.kind]

    @property
    def known_seed(self) -> int:
        """The seed; 0 before it is drawn."""
        return self.seed or 0

    @property
    def judged(self) -> list[tuple[str, ...]]:
        """What gets a score: systems, or pairs of systems."""
        if self.scale.compares:
            return [(self.systems[a], self.systems[b]) for a, b in pairs(len(self.systems))]
        return [(name,) for name in self.systems]

    @property
    def conditions(self) -> list[tuple[str, ...]]:
        """What a trial may hold: a system, or an ordered pair of systems, in ABX with X as a third."""
        if self.kind == "preference":
            return list(itertools.permutations(self.systems, 2))
        if self.kind == "abx":
            return [(a, b, x) for a, b in itertools.permutations(self.systems, 2) for x in (a, b)]
        return [(name,) for name in self.systems]

    @property
    def on_screen(self) -> list[str]:
        """The stimuli of a MUSHRA trial: hidden reference, anchors and systems."""
        return [REFERENCE, LOW_ANCHOR, MID_ANCHOR, *self.systems]

    @property
    def block(self) -> int:
        """The number of listeners of which a balanced design has a multiple."""
        return len(self.on_screen if self.kind == "mushra" else self.conditions)

    @property
    def effect(self) -> float:
        """The difference to find."""
        return self.detect or self.scale.detect

    def size(self, listeners: int) -> Size:
        """Return the size of the test with this number of listeners."""
        per_system = self.clips if self.kind == "mushra" else self.clips * self.versions / len(self.judged)
        count = len(self.systems)
        return Size(listeners, self.clips, per_system, max(1, count * (count - 1) // 2), self.scale.compares)

    def expected_power(self, listeners: int) -> float:
        """Return the power with this number of listeners, none of whom is left out."""
        return power(self.effect, self.spread or self.scale.spread, self.size(listeners))

    def sized(self) -> Plan:
        """Return the plan with its number of listeners: at least the wanted one, a multiple of `block`.

        Raises ValueError if no number of listeners reaches the power.
        """
        wanted = self.listeners
        if not wanted:
            spread = self.spread or self.scale.spread
            wanted = listeners_needed(self.effect, self.power, spread, self.size(0), step=self.block)
            wanted = math.ceil(wanted / (1 - self.dropout))
        return replace(self, listeners=-(-wanted // self.block) * self.block)

    def heard(self) -> np.ndarray:
        """Return which of `judged` each listener judges on which clip: bool [judged, listeners, clips]."""
        if self.kind == "mushra":
            return np.ones((len(self.systems), self.listeners, self.clips), bool)
        table = design.heard(self.trials(), len(self.conditions), self.clips)
        members = [[set(condition) == set(names) for condition in self.conditions] for names in self.judged]
        return np.stack([table[np.array(member)].any(0) for member in members])

    def trials(self) -> list[list[design.Trial]]:
        """Return the trials of each listener, for all kinds but MUSHRA."""
        return design.single_trials(
            len(self.conditions), self.clips, self.listeners, versions=self.versions, seed=self.known_seed
        )


def load_plan(path: str | os.PathLike[str], overrides: list[str] = []) -> Plan:  # noqa: B006 (read only)
    """Read a YAML plan and apply overrides, "key=value". Raises ValueError that names a wrong key or value."""
    plan: Plan = build(Plan, read_values(path, overrides), Path(path).name)
    return plan
