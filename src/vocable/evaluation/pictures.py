"""Pictures of evaluation pages: spectrograms, code matrices, scatter plots, scores of listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vocable.evaluation.metrics.spectral import HOP, magnitude
from vocable.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def spectrograms(waveforms: Mapping[str, np.ndarray], *, sample_rate: int) -> Figure:
    """Draw log-magnitude spectrograms, one above the other. waveforms: name -> float32 [L]."""
    figure = _figure(11.0, 1.7 * len(waveforms))
    for axes, (name, waveform) in zip(_rows(figure, len(waveforms)), waveforms.items(), strict=True):
        levels = 20 * np.log10(magnitude(waveform).T + 1e-5)
        extent = (0, levels.shape[1] * HOP / sample_rate, 0, sample_rate / 2000)
        axes.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=levels.max() - 80, cmap="magma")
        axes.set_ylabel(f"{name}\nkHz", fontsize=8, parse_math=False)
    return figure


def code_matrices(codes: Mapping[str, np.ndarray]) -> Figure:
    """Draw codes as coloured matrices, RVQ-1 at the top. codes: name -> int [K, T]."""
    figure = _figure(11.0, 1.4 * len(codes))
    for axes, (name, matrix) in zip(_rows(figure, len(codes)), codes.items(), strict=True):
        axes.imshow(matrix, aspect="auto", interpolation="nearest", cmap="turbo")
        axes.set_yticks(range(len(matrix)), [str(k + 1) for k in range(len(matrix))], fontsize=6)
        axes.set_ylabel(name, fontsize=8, parse_math=False)
    return figure


def scatter(points: Mapping[str, np.ndarray], speakers: Sequence[str]) -> Figure:
    """Draw one panel for each entry of `points`, name -> float [N, 2]; points of one speaker have one colour."""
    need("matplotlib", "plot")
    from matplotlib import color_sequences

    figure = _figure(3.2 * len(points), 3.2)
    index = {speaker: i for i, speaker in enumerate(sorted(set(speakers)))}
    palette = color_sequences["tab20"]
    colours = [palette[index[speaker] % len(palette)] for speaker in speakers]
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (name, values) in zip(panels, points.items(), strict=True):
        axes.scatter(values[:, 0], values[:, 1], c=colours, s=14)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def scores(values: Mapping[str, np.ndarray], figures: Mapping[str, Sequence[float]], *, label: str) -> Figure:
    """Draw a row for each name: a point for each listener's mean, and the mean of all with its interval.

    values: name -> means of listeners [N]. figures: name -> mean, lower and upper bound.
    """
    figure = _figure(9.0, 0.9 + 0.45 * len(values))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, (name, own) in enumerate(values.items()):
        mean, low, high = figures[name]
        axes.scatter(own, row + rng.uniform(-0.22, 0.22, len(own)), s=9, alpha=0.35, color="tab:gray", linewidths=0)
        axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="o", ms=5, capsize=4, color="tab:blue")
    axes.set_yticks(range(len(values)), list(values), fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _figure(width: float, height: float) -> Figure:
    need("matplotlib", "plot")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine())


def _rows(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0])
