"""STOI and extended STOI: intelligibility, from correlations of band envelopes."""

from __future__ import annotations

import warnings

from vocable.evaluation.metrics.base import SAMPLE_RATE, Judges, Metric, NoAnswer, Pair, Score, register
from vocable.extras import need

SHORTEST = 1024  #: samples: two and a half frames of pystoi, of 25.6 ms each


@register
class STOI(Metric):
    """Short-time objective intelligibility."""

    name, label, better, bounds, digits = "stoi", "STOI", "higher", (0.0, 1.0), 3
    packages = ("pystoi",)
    licence = "MIT"
    citation = "Taal et al., IEEE TASLP 2011"
    extended = False

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._stoi = need("pystoi", "eval").stoi

    def __call__(self, pair: Pair) -> Score:
        """Return the intelligibility. Raises NoAnswer for a clip with too little speech."""
        if len(pair.reference) < SHORTEST:  # pystoi fails on fewer samples than its frames need
            raise NoAnswer("too little speech")
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(self._stoi(pair.reference, pair.decoded, SAMPLE_RATE, self.extended)), 1
            except RuntimeWarning as error:  # pystoi warns and returns 1e-5 where it finds too little speech
                raise NoAnswer("too little speech") from error


@register
class ESTOI(STOI):
    """Extended STOI, which does not assume that bands are independent."""

    name, label = "estoi", "ESTOI"
    citation = "Jensen and Taal, IEEE TASLP 2016"
    extended = True
