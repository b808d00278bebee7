"""The tune: fundamental frequency by probabilistic YIN, its correlation, and where voicing differs."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, NoAnswer, Pair, Score
from vocable.extras import need

LOWEST, HIGHEST = 65.0, 500.0  #: Hz
HOP = 320  #: samples: the codec's frames


class PitchTracker:
    """librosa's pYIN (Mauch and Dixon 2014)."""

    def __init__(self) -> None:
        self._pyin = need("librosa", "eval").pyin
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Hz in each frame of 20 ms, NaN where unvoiced: float64 [T]. The last clip's is kept: systems share it."""
        key = hashlib.sha1(waveform.tobytes()).hexdigest()
        if key not in self._known:
            while len(self._known) > 1:
                self._known.pop(next(iter(self._known)))
            self._known[key] = self._pyin(waveform, fmin=LOWEST, fmax=HIGHEST, sr=SAMPLE_RATE, hop_length=HOP)[0]
        return self._known[key]


@lru_cache(maxsize=1)
def tracker() -> PitchTracker:
    """One for both metrics of a process: they ask for the same clips."""
    return PitchTracker()


class PitchCorrelation(Metric):
    """Pearson correlation of log F0 over the frames in which both are voiced, each such frame with the same weight."""

    name, label, better, bounds = "f0", "F0 correlation", "higher", (-1.0, 1.0)
    packages = ("librosa",)
    licence = "ISC"
    citation = "Mauch and Dixon, ICASSP 2014 (pYIN)"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._track = tracker()

    def __call__(self, pair: Pair) -> Score:
        reference, decoded = (np.log(self._track(w)) for w in (pair.reference, pair.decoded))
        both = np.isfinite(reference) & np.isfinite(decoded)
        if both.sum() < 5:
            raise NoAnswer("fewer than five frames are voiced in both")
        if reference[both].std() < 1e-6 or decoded[both].std() < 1e-6:
            raise NoAnswer("the pitch does not change")
        return float(np.corrcoef(reference[both], decoded[both])[0, 1]) * float(both.sum()), float(both.sum())


class VoicingError(Metric):
    """Share of frames that are voiced in one and not in the other."""

    name, label, better, bounds, scale, digits = "voicing", "voicing error %", "lower", (0.0, 1.0), 100.0, 1
    packages = ("librosa",)
    licence = "ISC"
    citation = PitchCorrelation.citation

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._track = tracker()

    def __call__(self, pair: Pair) -> Score:
        reference, decoded = (np.isnan(self._track(w)) for w in (pair.reference, pair.decoded))
        return float((reference != decoded).sum()), float(len(reference))
