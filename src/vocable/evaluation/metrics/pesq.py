"""PESQ, wide and narrow band."""

from __future__ import annotations

from vocable import audio
from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, NoAnswer, Pair, Score
from vocable.extras import need


class PESQ(Metric):
    """Wide-band PESQ: mean opinion score that listeners would give, by a model of hearing."""

    name, label, better, bounds = "pesq", "PESQ-WB", "higher", (1.04, 4.64)
    packages = ("pesq",)
    licence = "MIT (the package); the method is ITU's, free for research"
    citation = "ITU-T P.862.2 (2007)"
    band, rate = "wb", SAMPLE_RATE

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._pesq = need("pesq", "eval")

    def __call__(self, pair: Pair) -> Score:
        if not pair.decoded.any():  # PESQ divides by its power
            raise NoAnswer("the decoded speech is silent")
        waveforms = (audio.resample(w, SAMPLE_RATE, self.rate) for w in (pair.reference, pair.decoded))
        try:
            return float(self._pesq.pesq(self.rate, *waveforms, self.band)), 1
        except self._pesq.PesqError as error:
            raise NoAnswer("too short, or no speech found") from error


class PESQNarrow(PESQ):
    """Narrow-band PESQ, at 8 kHz."""

    name, label, bounds = "pesq-nb", "PESQ-NB", (1.0, 4.56)
    citation = "ITU-T P.862 (2001)"
    band, rate = "nb", 8_000
