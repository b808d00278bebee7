"""One self-contained HTML page of an evaluation: tables with intervals, players, spectrograms, code matrices.

Its tables and notes stand beside it in Markdown, to be pasted.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from vocable.extras import need
from vocable.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom-width: 2px; white-space: nowrap; }
small { display: block; opacity: .65; white-space: nowrap; }
figure { margin: .8rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
audio { width: 15rem; height: 2.2rem; } .note { opacity: .8; }
"""


Cell = str | tuple[str, str]  #: text, or text and what stands small under it
Table = tuple[list[str], list[list[Cell]]]  #: heads of columns, and rows


class Page:
    """Sections in the order in which they were added; `write` makes the files."""

    def __init__(self, title: str, lead: str) -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>"]
        self._markdown = [f"# {_plain(title)}", _plain(lead)]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def tables(self, tables: Mapping[str, Table]) -> None:
        """Each under its heading."""
        for heading, (columns, rows) in tables.items():
            self.heading(heading)
            self._table(columns, ["".join(map(_cell, row)) for row in rows])
            self._markdown += [f"## {_plain(heading)}", markdown(columns, rows)]

    def notes(self, lines: Sequence[str]) -> None:
        self._parts += [f'<p class="note">{html.escape(line)}</p>' for line in lines]
        self._markdown += map(_plain, lines)

    def players(self, clips: Mapping[str, Mapping[str, np.ndarray]], sample_rate: int) -> None:
        """A row for each clip, a column for each of its waveforms, float [L]; all clips have the same ones."""
        columns = ["clip", *next(iter(clips.values()))]
        self._table(columns, [_cell(clip) + _players(waveforms, sample_rate) for clip, waveforms in clips.items()])

    def _table(self, columns: Sequence[str], rows: Sequence[str]) -> None:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def picture(self, figure: Figure, caption: str) -> None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(caption, quote=True)
        self._parts.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
            f'<figcaption class="note">{html.escape(caption)}</figcaption></figure>'
        )

    def write(self, folder: Path) -> None:
        """FOLDER/index.html and tables.md."""
        # The empty icon keeps browsers from asking the server for one.
        head = (
            f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style>"
        )
        body = "".join(self._parts)
        texts = {
            "index.html": f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n',
            "tables.md": "\n\n".join(self._markdown) + "\n",
        }
        for name, text in texts.items():
            with atomic_path(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table in Markdown; what stands small under a cell follows it in brackets. Cells are text: HTML, line breaks and
    `|` in them make no markup."""
    cells = [[cell if isinstance(cell, str) else f"{cell[0]} ({cell[1]})" for cell in row] for row in rows]
    lines = [[_plain(cell).replace("|", r"\|") for cell in line] for line in (columns, *cells)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text for Markdown, on one line, without HTML of its own."""
    return html.escape(" ".join(text.split()), quote=False)


def _cell(cell: Cell) -> str:
    text, under = (cell, "") if isinstance(cell, str) else cell
    small = f"<small>{html.escape(under)}</small>" if under else ""
    return f"<td>{html.escape(text)}{small}</td>"


def _players(waveforms: Mapping[str, np.ndarray], sample_rate: int) -> str:
    cells = ""
    for waveform in waveforms.values():
        buffer = io.BytesIO()
        # Lossless, so that nothing is heard that is not a system's own.
        soundfile.write(buffer, waveform, sample_rate, format="FLAC", subtype="PCM_16")
        data = base64.b64encode(buffer.getvalue()).decode()
        cells += f'<td><audio controls preload="metadata" src="data:audio/flac;base64,{data}"></audio></td>'
    return cells


# ---- pictures --------------------------------------------------------------------------------------------------------


def spectrograms(waveforms: Mapping[str, np.ndarray], sample_rate: int) -> Figure:
    """Log-magnitude spectrograms, one over the other. Waveforms: float32 [L]."""
    from vocable.evaluation.metrics.spectral import HOP, magnitude

    figure = _figure(11.0, 1.7 * len(waveforms))
    for axes, (name, waveform) in zip(_rows(figure, len(waveforms)), waveforms.items(), strict=True):
        levels = 20 * np.log10(magnitude(waveform).T + 1e-5)
        extent = (0, levels.shape[1] * HOP / sample_rate, 0, sample_rate / 2000)
        axes.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=levels.max() - 80, cmap="magma")
        axes.set_ylabel(f"{name}\nkHz", fontsize=8, parse_math=False)
    return figure


def code_matrices(codes: Mapping[str, np.ndarray]) -> Figure:
    """Codes int [K, T] as coloured rows, RVQ-1 at the top."""
    figure = _figure(11.0, 1.4 * len(codes))
    for axes, (name, matrix) in zip(_rows(figure, len(codes)), codes.items(), strict=True):
        axes.imshow(matrix, aspect="auto", interpolation="nearest", cmap="turbo")
        axes.set_yticks(range(len(matrix)), [str(k + 1) for k in range(len(matrix))], fontsize=6)
        axes.set_ylabel(name, fontsize=8, parse_math=False)
    return figure


def scatter(points: Mapping[str, np.ndarray], speakers: Sequence[str]) -> Figure:
    """A panel for each of `points`, float [N, 2]; a colour for each speaker."""
    from matplotlib import color_sequences

    figure = _figure(3.2 * len(points), 3.2)
    known = {speaker: i for i, speaker in enumerate(sorted(set(speakers)))}
    palette = color_sequences["tab20"]
    colours = [palette[known[speaker] % len(palette)] for speaker in speakers]
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (name, values) in zip(panels, points.items(), strict=True):
        axes.scatter(values[:, 0], values[:, 1], c=colours, s=14)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def _figure(width: float, height: float) -> Figure:
    need("matplotlib", "plot")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine())


def _rows(figure: Figure, count: int) -> list:  # type: ignore[type-arg]
    return list(figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0])
