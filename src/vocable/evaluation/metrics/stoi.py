"""STOI and extended STOI: how well words are understood, from correlations of band envelopes."""

from __future__ import annotations

import warnings

from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, Pair, Score
from vocable.extras import need


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
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(self._stoi(pair.reference, pair.decoded, SAMPLE_RATE, self.extended)), 1
            except RuntimeWarning:  # with which pystoi returns 1e-5, where it finds too little speech
                return None


class ESTOI(STOI):
    """Extended STOI, which does not take bands for independent."""

    name, label = "estoi", "ESTOI"
    citation = "Jensen and Taal, IEEE TASLP 2016"
    extended = True
