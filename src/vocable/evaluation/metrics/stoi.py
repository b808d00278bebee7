"""STOI and extended STOI: how well words are understood, from correlations of band envelopes."""

from __future__ import annotations

import warnings

from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, NoAnswer, Pair, Score
from vocable.extras import need

SHORTEST = 1024  #: samples: two and a half of the frames that pystoi cuts, 25.6 ms each


class STOI(Metric):
    """Short-time objective intelligibility."""

    name, label, better, bounds, digits = "stoi", "STOI", "higher", (0.0, 1.0), 3
    packages = ("pystoi",)
    licence = "MIT"
    citation = "Taal et al., IEEE TASLP 2011"
    extended = False

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._stoi = need("pystoi", "eval").stoi

    def __call__(self, pair: Pair) -> Score:
        if len(pair.reference) < SHORTEST:  # pystoi cannot cut it into frames
            raise NoAnswer("too little speech")
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(self._stoi(pair.reference, pair.decoded, SAMPLE_RATE, self.extended)), 1
            except RuntimeWarning as error:  # with which pystoi returns 1e-5, where it finds too little speech
                raise NoAnswer("too little speech") from error


class ESTOI(STOI):
    """Extended STOI, which does not take bands for independent."""

    name, label = "estoi", "ESTOI"
    citation = "Jensen and Taal, IEEE TASLP 2016"
    extended = True
