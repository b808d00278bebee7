"""The metrics, by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from vocable.evaluation.metrics.base import Metric, Models, NoAnswer, Pair, Score
from vocable.evaluation.metrics.mos import DNSMOS, UTMOS, DistillMOS
from vocable.evaluation.metrics.pesq import PESQ, PESQNarrow
from vocable.evaluation.metrics.phones import PhoneErrorRate
from vocable.evaluation.metrics.pitch import PitchCorrelation, VoicingError
from vocable.evaluation.metrics.speaker import SpeakerSimilarity, WavLMSimilarity
from vocable.evaluation.metrics.spectral import SISDR, MelDistance, STFTDistance, Stripes
from vocable.evaluation.metrics.stoi import ESTOI, STOI
from vocable.evaluation.metrics.visqol import ViSQOL
from vocable.evaluation.metrics.words import CER, WER

__all__ = ["METRICS", "Metric", "Models", "NoAnswer", "Pair", "Score", "load_metric", "made_with"]

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        *(PESQ, PESQNarrow, STOI, ESTOI, ViSQOL),
        *(WER, CER, PhoneErrorRate),
        *(SpeakerSimilarity, WavLMSimilarity),
        *(DistillMOS, DNSMOS, UTMOS),
        *(MelDistance, STFTDistance, SISDR, Stripes, PitchCorrelation, VoicingError),
    )
}


@cache
def load_metric(name: str, models: Models) -> Metric:
    """A metric with its models, one a process. Raises ValueError for a name that is none, or weights that are missing,
    and ImportError for a package that is missing or broken."""
    if name not in METRICS:
        raise ValueError(f"no metric {name}; there are {', '.join(METRICS)}")
    try:
        return METRICS[name](models)
    except (ImportError, ValueError, OSError):
        raise
    except Exception as error:
        raise ImportError(f"the metric {name} cannot be loaded ({error!r}): repair the installation") from error


def made_with(metrics: Iterable[str], models: Models) -> dict[str, str]:
    """Versions and weights of all of them; what is missing is said here, before any work."""
    found: dict[str, str] = {}
    for name in metrics:
        found |= load_metric(name, models).made_with()
    return found
