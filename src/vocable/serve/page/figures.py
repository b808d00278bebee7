"""Pictures of speech and its tokens. They have transparent backgrounds, for light and dark pages."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vocable.evaluation.metrics.spectral import HOP, magnitude

_DPI = 150
_TEXT = "#7c8594"  # is readable on white and on black
_RANGE = 75  # dB that a spectrogram shows


def tokens(speech: np.ndarray, decoded: np.ndarray, sample_rate: int, codes: np.ndarray, *, layers: int) -> str:
    """Draw the spectrogram of speech, its codes, and the spectrogram of the decoded speech, as HTML.

    speech, decoded: float32 [L]. codes: int [K, T]. layers: the number of layers that are decoded; the others are pale.
    """
    figure = _figure(7.0, 5.8)
    above, matrix, below = figure.subplots(3, 1, sharex=True)
    top = _spectrogram(above, speech, sample_rate)
    _codes(matrix, codes, np.arange(len(codes)) < layers, len(speech) / sample_rate)
    _spectrogram(below, decoded, sample_rate, top)
    for axes, title in ((above, "speech"), (matrix, "codes"), (below, f"decoded from layers :{layers}")):
        axes.set_title(title, loc="left", fontsize=10, color=_TEXT)
    below.set_xlabel("seconds")
    return _image(figure, f"spectrogram of the speech, its codes in {len(codes)} layers, and the decoded speech")


def origins(rows: Mapping[str, tuple[np.ndarray, np.ndarray]], seconds: float) -> str:
    """Draw the codes of several clips, one above the other, as HTML.

    rows: name -> codes int [K, T], and bool [K]: the layers that are not pale.
    """
    figure = _figure(11.0, 1.5 * len(rows) + 0.3)
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, (codes, strong)) in zip(panels, rows.items(), strict=True):
        _codes(axes, codes, strong, seconds)
        axes.set_ylabel(name)
    panels[-1].set_xlabel("seconds")
    return _image(figure, f"codes of {', '.join(rows)}")


def _spectrogram(axes: Axes, waveform: np.ndarray, sample_rate: int, top: float | None = None) -> float:
    """Draw a spectrogram, and return its highest level in dB. top: the level of the brightest colour, if not that."""
    levels = 20 * np.log10(magnitude(waveform).T + 1e-5)
    top = float(levels.max()) if top is None else top
    extent = (0, levels.shape[1] * HOP / sample_rate, 0, sample_rate / 2000)
    axes.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=top - _RANGE, vmax=top, cmap="magma")
    axes.set_ylabel("kHz")
    return top


def _codes(axes: Axes, codes: np.ndarray, strong: np.ndarray, seconds: float) -> None:
    extent = (0, seconds, len(codes) + 0.5, 0.5)
    opacity = np.where(strong, 1.0, 0.13)[:, None].repeat(codes.shape[1], 1)
    axes.imshow(codes, aspect="auto", interpolation="nearest", extent=extent, alpha=opacity, cmap="viridis")
    for layer in range(1, len(codes)):
        axes.axhline(layer + 0.5, color="white", linewidth=0.8)
    axes.set_yticks(range(1, len(codes) + 1))
    axes.set_ylabel("layer")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="none")


def _image(figure: Figure, description: str) -> str:
    """Return a figure as an <img> that holds its PNG file."""
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(colors=_TEXT, labelsize=9, length=2)
        axes.xaxis.label.set(color=_TEXT, size=10)
        axes.yaxis.label.set(color=_TEXT, size=10)
        axes.spines[:].set_visible(False)
    figure.align_ylabels()
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img class="figure" alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
