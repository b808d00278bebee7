"""ViSQOL in speech mode, by the Python port of Google's."""

from __future__ import annotations

import importlib.util

from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, NoAnswer, Pair, Score
from vocable.extras import need


class ViSQOL(Metric):
    """Speech mode at 16 kHz. The mapper from similarity to opinion is Google's lattice where ai-edge-litert is
    installed, else the older polynomial, which lies a point or more higher: `made_with` says which it was."""

    name, label, better, bounds = "visqol", "ViSQOL", "higher", (1.0, 5.0)
    packages = ("visqol-python",)
    citation = "Chinen et al., QoMEX 2020"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._lattice = importlib.util.find_spec("ai_edge_litert") is not None
        self._api = need("visqol", "eval").VisqolApi()
        self._api.create(mode="speech", use_lattice_model=self._lattice)

    def __call__(self, pair: Pair) -> Score:
        if not pair.reference.any() or not pair.decoded.any():  # it divides by the level of both
            raise NoAnswer("the recording or the decoded speech is silent")
        waveforms = (pair.reference.astype("float64"), pair.decoded.astype("float64"))
        try:
            return float(self._api.measure_from_arrays(*waveforms, SAMPLE_RATE).moslqo), 1
        except (ValueError, IndexError) as error:  # the latter where no patch of 0.4 s holds speech
            raise NoAnswer("too short, or no speech found") from error

    def made_with(self) -> dict[str, str]:
        return super().made_with() | {"visqol mode": f"speech, {'lattice' if self._lattice else 'polynomial'} mapper"}
