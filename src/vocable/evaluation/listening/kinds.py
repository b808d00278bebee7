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
    question: str
    options: tuple[str, ...]  #: labels of the answers 1, 2, ...; () for a slider
    low: float  #: the lowest score
    high: float  #: the highest score
    detect: float  #: the default of the difference that a test is planned for
    spread: Spread  #: an assumption for planning, not a measurement
    compares: bool = False  #: whether a score belongs to a pair of systems; 0.5 then means no difference

    @property
    def standard(self) -> str:
        """The standard or method that the kind follows."""
        return {"mushra": "ITU-R BS.1534-3", "mos": "ITU-T P.800, ACR", "smos": "ACR of voice similarity"}.get(
            self.name, "paired preference" if self.name == "preference" else "ABX"
        )


_QUALITY = ("Bad", "Poor", "Fair", "Good", "Excellent")
_OPINION = Spread(listener=0.4, clip=0.25, listener_system=0.2, clip_system=0.15, residual=0.7)
_CHOICE = Spread(listener=0.0, clip=0.0, listener_system=0.06, clip_system=0.06, residual=0.5)

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "mushra",
            "MUSHRA",
            "How good is each version, compared with the reference?",
            (),
            low=0.0,
            high=100.0,
            detect=8.0,
            spread=Spread(listener=8.0, clip=4.0, listener_system=6.0, clip_system=4.0, residual=10.0),
        ),
        Kind("mos", "MOS", "How good is the quality of this speech?", _QUALITY, 1.0, 5.0, 0.3, _OPINION),
        Kind(
            "smos",
            "SMOS",
            "How similar is the voice of the sample to the voice of the prompt?",
            ("Not at all similar", "Slightly similar", "Moderately similar", "Very similar", "The same voice"),
            1.0,
            5.0,
            0.3,
            _OPINION,
        ),
        Kind(
            "preference",
            "Preference",
            "Which of the two sounds better?",
            ("A", "B", "No preference"),
            0.0,
            1.0,
            0.15,
            _CHOICE,
            compares=True,
        ),
        Kind("abx", "ABX", "Which of the two is X?", ("A", "B"), 0.0, 1.0, 0.15, _CHOICE, compares=True),
    )
}
