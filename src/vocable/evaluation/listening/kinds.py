"""The kinds of listening tests: scale, question, and the spread of scores that planning assumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vocable.training.recipe_file import Section, Weight

KindName = Literal["mushra", "mos", "smos", "preference", "abx"]
#: Names of the stimuli that a MUSHRA test adds to the systems.
REFERENCE, LOW_ANCHOR, MID_ANCHOR = "hidden reference", "anchor 3.5 kHz", "anchor 7 kHz"


@dataclass(frozen=True)
class Spread(Section):
    """Standard deviations of scores, in points of the scale (preference and ABX: in fractions of answers)."""

    listener: Weight  #: between listeners, for all systems alike
    clip: Weight  #: between clips, for all systems alike
    listener_system: Weight  #: between listeners, for each system independently
    clip_system: Weight  #: between clips, for each system independently
    residual: Weight  #: of single answers


@dataclass(frozen=True)
class Kind:
    """A kind of test. An answer is one of `options`, or a whole number of 0 to 100 where there are none."""

    name: str
    title: str  #: of pages and reports
    standard: str  #: or the method that the kind follows
    question: str
    options: tuple[str, ...]  #: labels of the answers 1, 2, ...; () for a slider
    low: float  #: the lowest score
    high: float  #: the highest score
    detect: float  #: the default of the difference that a test is planned for
    spread: Spread  #: an assumption for planning, not a measurement
    compares: bool = False  #: whether a score belongs to a pair of systems; 0.5 then means no difference


_OPINION = Spread(listener=0.4, clip=0.25, listener_system=0.2, clip_system=0.15, residual=0.7)
_CHOICE = Spread(listener=0.0, clip=0.0, listener_system=0.06, clip_system=0.06, residual=0.5)

_MUSHRA = Kind(
    name="mushra",
    title="MUSHRA",
    standard="ITU-R BS.1534-3",
    question="How good is each version, compared with the reference?",
    options=(),
    low=0.0,
    high=100.0,
    detect=8.0,
    spread=Spread(listener=8.0, clip=4.0, listener_system=6.0, clip_system=4.0, residual=10.0),
)
_MOS = Kind(
    name="mos",
    title="MOS",
    standard="ITU-T P.800, absolute category rating",
    question="How good is the quality of this speech?",
    options=("Bad", "Poor", "Fair", "Good", "Excellent"),
    low=1.0,
    high=5.0,
    detect=0.3,
    spread=_OPINION,
)
_SMOS = Kind(
    name="smos",
    title="SMOS",
    standard="absolute category rating of voice similarity",
    question="How similar is the voice of the sample to the voice of the prompt?",
    options=("Not at all similar", "Slightly similar", "Moderately similar", "Very similar", "The same voice"),
    low=1.0,
    high=5.0,
    detect=0.3,
    spread=_OPINION,
)
_PREFERENCE = Kind(
    name="preference",
    title="Preference",
    standard="paired preference",
    question="Which of the two sounds better?",
    options=("A", "B", "No preference"),
    low=0.0,
    high=1.0,
    detect=0.15,
    spread=_CHOICE,
    compares=True,
)
_ABX = Kind(
    name="abx",
    title="ABX",
    standard="ABX",
    question="Which of the two is X?",
    options=("A", "B"),
    low=0.0,
    high=1.0,
    detect=0.15,
    spread=_CHOICE,
    compares=True,
)
KINDS = {kind.name: kind for kind in (_MUSHRA, _MOS, _SMOS, _PREFERENCE, _ABX)}
