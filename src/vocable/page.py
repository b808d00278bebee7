"""Write reports: an HTML page of tables, notes, pictures and audio players, and its text and tables in Markdown."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from vocable.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 110rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; } p { max-width: 78rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom-width: 2px; white-space: nowrap; }
small { display: block; opacity: .65; white-space: nowrap; }
figure { margin: .8rem 0; } figure img { max-width: 100%; height: auto; background: #fff; }
audio { width: 15rem; height: 2.2rem; } .note { opacity: .8; }
"""


#: A cell of a table: text, or text and a second line in small print.
Cell = str | tuple[str, str]
#: Column headings, and rows of cells.
Table = tuple[list[str], list[list[Cell]]]


class Page:
    """A page that is built section by section, in the order of the calls. All text is escaped."""

    def __init__(self, title: str, *, lead: str = "") -> None:
        """Begin a page. title: the heading, also shown in the browser's tab. lead: a paragraph under the heading."""
        self.title = title
        self._body = [f"<h1>{html.escape(title)}</h1>"] + [f"<p>{html.escape(lead)}</p>"] * bool(lead)
        self._markdown = [f"# {_one_line(title)}"] + [_one_line(lead)] * bool(lead)

    def heading(self, text: str) -> None:
        """Add a heading. It is not repeated in the Markdown, because players and pictures follow it."""
        self._body.append(f"<h2>{html.escape(text)}</h2>")

    def tables(self, tables: Mapping[str, Table]) -> None:
        """Add tables, each under its heading."""
        for heading, (columns, rows) in tables.items():
            self.heading(heading)
            self._table(columns, ["".join(map(_cell, row)) for row in rows])
            self._markdown += [f"## {_one_line(heading)}", markdown(columns, rows)]

    def notes(self, lines: Sequence[str]) -> None:
        """Add one paragraph for each line."""
        self._body += [f'<p class="note">{html.escape(line)}</p>' for line in lines]
        self._markdown += map(_one_line, lines)

    def players(self, clips: Mapping[str, Mapping[str, np.ndarray]], *, sample_rate: int) -> None:
        """Add audio players: clip -> version -> waveform, float [L]. A row for each clip, a column for each version.

        All clips have the same versions.
        """
        columns = ["clip", *next(iter(clips.values()))]
        self._table(columns, [_cell(clip) + _players(versions, sample_rate) for clip, versions in clips.items()])

    def picture(self, png: bytes, *, caption: str) -> None:
        """Add a picture, a PNG file's bytes; the caption is also its alternative text."""
        alt = html.escape(caption, quote=True)
        self._body.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            f'<figcaption class="note">{html.escape(caption)}</figcaption></figure>'
        )

    def _table(self, columns: Sequence[str], rows: Sequence[str]) -> None:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        self._body.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def write_html(self, path: Path) -> None:
        """Write the page as one file, which contains its pictures and audio."""
        # The empty icon prevents a request to the server.
        head = (
            f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style>"
        )
        body = "\n".join(self._body)
        with atomic_path(path) as temporary:
            text = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
            temporary.write_text(text, encoding="utf-8")

    def write_markdown(self, path: Path) -> None:
        """Write the title, the tables and the notes in Markdown."""
        with atomic_path(path) as temporary:
            temporary.write_text("\n\n".join(self._markdown) + "\n", encoding="utf-8")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table in Markdown; the small print of a cell follows its text in brackets.

    HTML, line breaks and `|` in cells are escaped.
    """
    cells = [[cell if isinstance(cell, str) else f"{cell[0]} ({cell[1]})" for cell in row] for row in rows]
    lines = [[_one_line(cell).replace("|", r"\|") for cell in line] for line in (columns, *cells)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_png(figure: Figure) -> bytes:
    """Return a figure of matplotlib as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _one_line(text: str) -> str:
    """Return text for Markdown: on one line, HTML escaped."""
    return html.escape(" ".join(text.split()), quote=False)


def _cell(cell: Cell) -> str:
    text, under = (cell, "") if isinstance(cell, str) else cell
    small = f"<small>{html.escape(under)}</small>" if under else ""
    return f"<td>{html.escape(text)}{small}</td>"


def _players(versions: Mapping[str, np.ndarray], sample_rate: int) -> str:
    cells = ""
    for waveform in versions.values():
        buffer = io.BytesIO()
        # FLAC is lossless: the page adds no coding artefacts of its own.
        soundfile.write(buffer, waveform, sample_rate, format="FLAC", subtype="PCM_16")
        data = base64.b64encode(buffer.getvalue()).decode()
        cells += f'<td><audio controls preload="metadata" src="data:audio/flac;base64,{data}"></audio></td>'
    return cells
