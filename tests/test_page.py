"""Names of users on the page, in Markdown tables, in pictures and in the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest

from vocable.cli.results import print_table, stages
from vocable.evaluation.pictures import code_matrices, scatter, spectrograms
from vocable.page import Page, Table, to_png

HOSTILE = "<img src=x onerror=alert(1)>\n# a | [/red] $x^{$ & [x] corpus"


def test_names_are_text_on_the_page_and_in_markdown(tmp_path: Path) -> None:
    page = Page(HOSTILE, lead=HOSTILE)
    table: Table = ([HOSTILE, "b"], [[HOSTILE, (HOSTILE, HOSTILE)]])
    page.tables({HOSTILE: table})
    page.notes([HOSTILE])
    page.heading(HOSTILE)
    noise = np.random.default_rng(0).normal(0, 0.1, 4000)
    page.players({HOSTILE: {HOSTILE: noise}}, sample_rate=16_000)
    page.picture(to_png(scatter({HOSTILE: np.zeros((2, 2))}, [HOSTILE, "b"])), caption=HOSTILE)
    page.write_html(tmp_path / "index.html")
    page.write_markdown(tmp_path / "tables.md")
    written = (tmp_path / "index.html").read_text()
    assert "<img src=x" not in written and written.count("&lt;img src=x onerror=alert(1)&gt;") == 14
    assert len(re.findall("<img ", written)) == 1, "the picture alone"
    lines = (tmp_path / "tables.md").read_text().splitlines()
    assert not any("<" in line for line in lines)
    name = "&lt;img src=x onerror=alert(1)&gt; # a | [/red] $x^{$ &amp; [x] corpus"
    cell = name.replace("|", r"\|")
    assert [line for line in lines if line] == [
        *(f"# {name}", name, f"## {name}"),
        *(f"| {cell} | b |", "| --- | --- |", f"| {cell} | {cell} ({cell}) |"),
        name,
    ]


def test_a_dollar_is_no_formula() -> None:
    waveform, codes = np.zeros(4000, np.float32), np.zeros((2, 9), int)
    for figure in (
        spectrograms({"$x^{$": waveform}, sample_rate=16_000),
        code_matrices({"$x^{$": codes}),
        scatter({"$x^{$": np.zeros((2, 2))}, ["$", "b"]),
    ):
        figure.savefig(io.BytesIO(), format="png", dpi=20)


def test_brackets_are_no_markup_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["[b]", "of"], [["runs/[best]@:8", ("[/red]", "[x] corpus")], [":smile:", "[link=x]y[/link]"]])
    printed = capsys.readouterr().out
    for text in ("[b]", "runs/[best]@:8", "[/red]", "[x] corpus", ":smile:", "[link=x]y[/link]"):
        assert text in printed
    with stages() as progress:
        progress("[/red] [best]", 0.5)


def test_brackets_are_no_markup_in_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from vocable.cli.bars import bars

    bar = bars()
    bar.add_task("[/red] [best]", total=1.0)
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    console.print(bar.get_renderable())
    assert "[/red] [best]" in console.file.getvalue()  # type: ignore[attr-defined]
