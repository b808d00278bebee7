"""PESQ, wide-band and narrow-band."""

from __future__ import annotations

from vocable import audio
from vocable.evaluation.metrics.base import SAMPLE_RATE, Judges, Metric, NoAnswer, Pair, Score, register
from vocable.extras import need


@register
class PESQ(Metric):
    """Wide-band PESQ: a mean opinion score, predicted by a model of hearing."""

    name, label, better, bounds = "pesq", "PESQ-WB", "higher", (1.04, 4.64)
    packages = ("pesq",)
    licence = "MIT (the package); the method is ITU's, free for research"
    citation = "ITU-T P.862.2 (2007)"
    band, rate = "wb", SAMPLE_RATE

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._pesq = need("pesq", "eval")

    def __call__(self, pair: Pair) -> Score:
        """Return the MOS. Raises NoAnswer for silence and for clips that are too short."""
        if not pair.decoded.any():  # PESQ divides by the power of the decoded speech
            raise NoAnswer("the decoded speech is silent")
        waveforms = (audio.resample(w, SAMPLE_RATE, self.rate) for w in (pair.reference, pair.decoded))
        try:
            return float(self._pesq.pesq(self.rate, *waveforms, self.band)), 1
        except self._pesq.PesqError as error:
            raise NoAnswer("too short, or no speech found") from error


@register
class PESQNarrow(PESQ):
    """Narrow-band PESQ, at 8 kHz."""

    name, label, bounds = "pesq-nb", "PESQ-NB", (1.0, 4.56)
    citation = "ITU-T P.862 (2001)"
    band, rate = "nb", 8_000
