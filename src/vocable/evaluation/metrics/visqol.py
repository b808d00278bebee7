"""ViSQOL in speech mode, by the Python port of Google's program."""

from __future__ import annotations

import importlib.util

from vocable.evaluation.metrics.base import SAMPLE_RATE, Judges, Metric, NoAnswer, Pair, Score, register
from vocable.extras import need


@register
class ViSQOL(Metric):
    """ViSQOL at 16 kHz.

    The mapper from similarity to opinion is Google's lattice where ai-edge-litert is installed, and else the older
    polynomial, whose scores are higher by a point or more. `made_with` names the mapper.
    """

    name, label, better, bounds = "visqol", "ViSQOL", "higher", (1.0, 5.0)
    packages = ("visqol-python",)
    citation = "Chinen et al., QoMEX 2020"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._lattice = importlib.util.find_spec("ai_edge_litert") is not None
        self._api = need("visqol", "eval").VisqolApi()
        self._api.create(mode="speech", use_lattice_model=self._lattice)

    def __call__(self, pair: Pair) -> Score:
        """Return the MOS. Raises NoAnswer for silence and for clips that are too short."""
        if not pair.reference.any() or not pair.decoded.any():  # ViSQOL divides by the levels of both
            raise NoAnswer("the recording or the decoded speech is silent")
        waveforms = (pair.reference.astype("float64"), pair.decoded.astype("float64"))
        try:
            return float(self._api.measure_from_arrays(*waveforms, SAMPLE_RATE).moslqo), 1
        except (ValueError, IndexError) as error:  # IndexError where no patch of 0.4 s contains speech
            raise NoAnswer("too short, or no speech found") from error

    def made_with(self) -> dict[str, str]:
        """Return the versions of packages and the names and hashes of weights."""
        return super().made_with() | {"visqol mode": f"speech, {'lattice' if self._lattice else 'polynomial'} mapper"}
