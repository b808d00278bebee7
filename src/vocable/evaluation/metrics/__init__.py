"""The metrics, by name."""

from __future__ import annotations

from vocable.evaluation.metrics.base import Metric, Models, Pair, Score
from vocable.evaluation.metrics.mos import DNSMOS, UTMOS, DistillMOS
from vocable.evaluation.metrics.pesq import PESQ, PESQNarrow
from vocable.evaluation.metrics.phones import PhoneErrorRate
from vocable.evaluation.metrics.pitch import PitchCorrelation, VoicingError
from vocable.evaluation.metrics.speaker import SpeakerSimilarity, WavLMSimilarity
from vocable.evaluation.metrics.spectral import SISDR, MelDistance, STFTDistance
from vocable.evaluation.metrics.stoi import ESTOI, STOI
from vocable.evaluation.metrics.visqol import ViSQOL
from vocable.evaluation.metrics.words import CER, WER

__all__ = ["METRICS", "Metric", "Models", "Pair", "Score"]

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        *(PESQ, PESQNarrow, STOI, ESTOI, ViSQOL),
        *(WER, CER, PhoneErrorRate),
        *(SpeakerSimilarity, WavLMSimilarity),
        *(DistillMOS, DNSMOS, UTMOS),
        *(MelDistance, STFTDistance, SISDR, PitchCorrelation, VoicingError),
    )
}
