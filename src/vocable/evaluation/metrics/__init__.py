"""The metrics, by name. A new metric is one new file in this folder with a class that `register` decorates."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from vocable.evaluation.metrics.base import METRICS, Judges, Metric, NoAnswer, Pair, Score

__all__ = ["METRICS", "Judges", "Metric", "NoAnswer", "Pair", "Score", "load_metric", "made_with"]

for _module in pkgutil.iter_modules(__path__):  # importing a file registers its metrics
    importlib.import_module(f"{__name__}.{_module.name}")


@cache
def load_metric(name: str, judges: Judges) -> Metric:
    """Load a metric with its models, once for each process.

    Raises ValueError for an unknown name or missing weights, ImportError for a missing or broken package.
    """
    if name not in METRICS:
        raise ValueError(f"no metric {name}; there are {', '.join(METRICS)}")
    try:
        return METRICS[name](judges)
    except (ImportError, ValueError, OSError):
        raise
    except Exception as error:
        raise ImportError(f"the metric {name} cannot be loaded ({error!r}): repair the installation") from error


def made_with(metrics: Iterable[str], judges: Judges) -> dict[str, str]:
    """Load the metrics and return the versions and weights of all of them. Raises what `load_metric` raises."""
    found: dict[str, str] = {}
    for name in metrics:
        found |= load_metric(name, judges).made_with()
    return found
