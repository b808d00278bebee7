"""Fundamental frequency by probabilistic YIN: its correlation, and the voicing error."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vocable.evaluation.metrics.base import SAMPLE_RATE, Judges, Metric, NoAnswer, Pair, Score, register, remember
from vocable.extras import need

LOWEST, HIGHEST = 65.0, 500.0  #: Hz
HOP = 320  #: samples from one frame of the tracker to the next


class PitchTracker:
    """librosa's pYIN (Mauch and Dixon 2014), with a frame every HOP samples."""

    def __init__(self) -> None:
        self._pyin = need("librosa", "eval").pyin

    @remember(2)
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return the pitch in Hz of each frame, NaN where unvoiced: float32 [L] at 16 kHz -> float64 [T]."""
        pitch: np.ndarray = self._pyin(waveform, fmin=LOWEST, fmax=HIGHEST, sr=SAMPLE_RATE, hop_length=HOP)[0]
        return pitch


@lru_cache(maxsize=1)
def tracker() -> PitchTracker:
    """Return the process's tracker, which both metrics use: they ask for the same clips."""
    return PitchTracker()


@register
class PitchCorrelation(Metric):
    """Pearson correlation of log F0 over the frames in which both are voiced. A clip counts by these frames."""

    name, label, better, bounds = "f0", "F0 correlation", "higher", (-1.0, 1.0)
    packages = ("librosa",)
    licence = "ISC"
    citation = "Mauch and Dixon, ICASSP 2014 (pYIN)"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._track = tracker()

    def __call__(self, pair: Pair) -> Score:
        """Return the correlation, weighted by the voiced frames. Raises NoAnswer for few of them or constant pitch."""
        reference, decoded = (np.log(self._track(w)) for w in (pair.reference, pair.decoded))
        both = np.isfinite(reference) & np.isfinite(decoded)
        if both.sum() < 5:
            raise NoAnswer("fewer than five frames are voiced in both")
        if reference[both].std() < 1e-6 or decoded[both].std() < 1e-6:
            raise NoAnswer("the pitch does not change")
        return float(np.corrcoef(reference[both], decoded[both])[0, 1]) * float(both.sum()), float(both.sum())


@register
class VoicingError(Metric):
    """Fraction of frames that are voiced in either the recording or the decoded speech and unvoiced in the other."""

    name, label, better, bounds, scale, digits = "voicing", "voicing error %", "lower", (0.0, 1.0), 100.0, 1
    packages = ("librosa",)
    licence = "ISC"
    citation = PitchCorrelation.citation

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._track = tracker()

    def __call__(self, pair: Pair) -> Score:
        """Return the frames that differ in voicing, and all frames."""
        reference, decoded = (np.isnan(self._track(w)) for w in (pair.reference, pair.decoded))
        return float((reference != decoded).sum()), float(len(reference))
