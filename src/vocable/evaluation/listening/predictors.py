"""Predictors beside people: metrics of the same stimuli, and their correlation with the listeners' scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vocable.evaluation.listening.answers import Answers
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.metrics import METRICS
from vocable.extras import need
from vocable.page import Cell, Table

FEWEST = 3  #: points of a correlation


def summarize_predictors(
    answers: Answers, kept: np.ndarray, key: Mapping[str, Any], plan: Plan
) -> dict[str, dict[str, Any]]:
    """Return each predictor's mean for each system, and its correlations with scores where there are any.

    For pairs of systems, the difference of predictions is compared with the fraction of answers.
    """
    found: dict[str, Any] = {}
    for metric in plan.predictors or ():
        predicted = _predicted(metric, key)
        systems = {name: [v for (_, s), v in predicted.items() if s == name] for _, name in predicted}
        found[metric] = {"systems": {name: round(float(np.mean(values)), 4) for name, values in systems.items()}}
        table = _as_judged(predicted, answers, plan)
        known = np.isfinite(kept)
        heard = np.where(known, kept, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
        both = np.isfinite(table) & np.isfinite(heard)
        found[metric]["stimuli"] = _correlation(table[both], heard[both])
        rows = both.any(-1)
        means = [[np.mean(values[s][both[s]]) for s in np.flatnonzero(rows)] for values in (table, heard)]
        found[metric]["means"] = _correlation(np.array(means[0]), np.array(means[1]))
    return {"predictors": found}


def _predicted(metric: str, key: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Return the predictions of a metric: (clip, system) -> score."""
    scores = {token: own[metric] for token, own in key["predictions"].items() if metric in own}
    return {(key["stimuli"][token]["clip"], key["stimuli"][token]["system"]): score for token, score in scores.items()}


def _as_judged(predicted: Mapping[tuple[str, str], float], answers: Answers, plan: Plan) -> np.ndarray:
    """Return predictions for all that listeners judge: float [S, M], NaN without one."""

    def of(clip: str, name: str) -> float:
        return predicted.get((clip, name), np.nan)

    if plan.scale.compares:
        return np.array([[of(clip, a) - of(clip, b) for clip in answers.clips] for a, b in plan.judged])
    return np.array([[of(clip, name) for clip in answers.clips] for name in answers.judged])


def _correlation(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    if len(a) < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"count": len(a)}
    stats = need("scipy.stats", "listen")
    pearson, spearman = float(stats.pearsonr(a, b)[0]), float(stats.spearmanr(a, b)[0])
    return {"count": len(a), "pearson": round(pearson, 3), "spearman": round(spearman, 3)}


def prediction_table(summary: Mapping[str, Any]) -> dict[str, Table]:
    """Return a table of systems by predictors, and a table of correlations, as far as there are any."""
    predictors = summary["predictors"]
    if not predictors:
        return {}
    names = list(dict.fromkeys(name for own in predictors.values() for name in own["systems"]))
    rows: list[list[Cell]] = [
        [name, *(_number(own["systems"].get(name), METRICS[m].digits) for m, own in predictors.items())]
        for name in names
    ]
    found: dict[str, Table] = {"Predictors": (["system", *(METRICS[m].heading() for m in predictors)], rows)}
    rows = [
        [METRICS[metric].label, *(_number(own[over].get(kind), 2) for over in ("stimuli", "means") for kind in KINDS)]
        for metric, own in predictors.items()
        if "pearson" in own["stimuli"]
    ]
    if rows:
        columns = ["predictor", *(f"{kind.title()}, {over}" for over in ("stimuli", "systems") for kind in KINDS)]
        found["Predictors and listeners"] = (columns, rows)
    return found


KINDS = ("pearson", "spearman")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
