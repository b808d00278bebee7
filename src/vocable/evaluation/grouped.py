"""Reconstruction with figures for groups of clips: the base class of the suites `crosslingual` and `speakers`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vocable.evaluation.metrics import METRICS
from vocable.evaluation.reconstruction import Reconstruction
from vocable.evaluation.runner import Row
from vocable.evaluation.scoring import figures_of
from vocable.evaluation.summary import figure_cell
from vocable.page import Cell, Table

UNKNOWN = "unknown"  #: the group of clips without a value
SMALLEST_GROUP = 3  #: clips


class GroupedReconstruction(Reconstruction):
    """Base class of suites: reconstruction, and its figures for each value of some columns."""

    @abstractmethod
    def columns(self) -> Mapping[str, Mapping[str, str]]:
        """Return the groups of each clip: id -> column -> value."""

    @abstractmethod
    def remarks(self) -> list[str]:
        """Return the suite's own notes."""

    def summarize(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figures of reconstruction, the figures by group, and the speakers with the worst figures."""
        summary, columns = super().summarize(rows), self.columns()
        by_system = {system: [row for row in rows if row["system"] == system] for system in summary["systems"]}
        groups: dict[str, Any] = {}
        for column in sorted({column for values in columns.values() for column in values}):
            values = {clip: own[column] for clip, own in columns.items() if column in own}
            groups[column] = {
                system: by_group(own, values, self.metrics, seed=self.seed) for system, own in by_system.items()
            }
        worst = {
            system: {metric: worst_decile(own, metric) for metric in self.metrics}
            for system, own in by_system.items()
            if system != "recording"
        }
        return summary | {"remarks": self.remarks(), "groups": groups, "worst_decile": worst}

    def tables(self, summary: Mapping[str, Any]) -> dict[str, Table]:
        """Return the table of reconstruction, and a table for each column: a row for each value and system."""
        metrics = [METRICS[name] for name in summary["metrics"]]
        found = super().tables(summary)
        for column, systems in summary["groups"].items():
            rows: list[list[Cell]] = []
            for value in next(iter(systems.values()), {}):
                for system, groups in systems.items():
                    figures = groups[value]
                    clips = max(figures[m.name]["clips"] for m in metrics)
                    cells: list[Cell] = [(value, f"{system}, {clips} clips")]
                    rows.append(cells + [figure_cell(figures[m.name], m.digits) for m in metrics])
            found[f"By {column}"] = ([column, *(m.heading() for m in metrics)], rows)
        return found

    def notes(self, summary: Mapping[str, Any]) -> list[str]:
        """Return the notes of reconstruction, the suite's remarks, and the worst speakers."""
        lines = [*super().notes(summary), *summary["remarks"]]
        for system, worst in summary["worst_decile"].items():
            for metric, speakers in worst.items():
                named = ", ".join(f"{speaker} ({value:.{METRICS[metric].digits}f})" for speaker, value in speakers)
                lines.append(f"{system}, worst tenth of speakers by {METRICS[metric].label}: {named}.")
        return lines


def by_group(
    rows: Sequence[Row], values: Mapping[str, str], metrics: Sequence[str], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Return one system's figures for each value of a column; small groups are merged as `others`.

    values: clip -> value. Groups of fewer than SMALLEST_GROUP clips are small.
    """
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(values.get(row["clip"], UNKNOWN), []).append(row)
    small = [name for name, members in groups.items() if len(members) < SMALLEST_GROUP]
    if small:
        merged = [row for name in small for row in groups.pop(name)]
        groups.setdefault("others", []).extend(merged)
    return {name: figures_of(members, metrics, seed=seed) for name, members in sorted(groups.items())}


def worst_decile(rows: Sequence[Row], metric: str) -> list[tuple[str, float]]:
    """Return the tenth of the speakers (at least one) with the worst means of a metric, the worst first."""
    totals: dict[str, np.ndarray] = {}
    for row in rows:
        if row[metric] is not None:
            totals[row["speaker_id"]] = totals.get(row["speaker_id"], np.zeros(2)) + row[metric]
    means = {speaker: float(total[0] / total[1]) for speaker, total in totals.items() if total[1]}
    ranked = sorted(means.items(), key=lambda item: item[1], reverse=METRICS[metric].better == "lower")
    return [(s, v * METRICS[metric].scale) for s, v in ranked[: max(1, len(ranked) // 10)]]
