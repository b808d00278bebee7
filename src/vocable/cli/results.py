"""Clips, progress bars and printed results of the commands of `vocable eval`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocable.cli.bars import bars
from vocable.terminal import printable

if TYPE_CHECKING:
    from vocable.corpus.manifest import Utterance
    from vocable.evaluation.runner import Progress
    from vocable.evaluation.suite import Suite
    from vocable.page import Cell


def select(manifest: Path, *, corpus: str | None = None, limit: int | None = None) -> list[Utterance]:
    """Return a manifest's clips, only those of `corpus`, and at most `limit` of these, at even distances."""
    from vocable.corpus.manifest import read_manifest, spread

    clips = [clip for clip in read_manifest(manifest) if corpus in (None, clip.corpus)]
    if not clips:
        raise ValueError(f"{manifest}: no clip of the corpus {corpus!r}")
    return spread(clips, limit)


@contextlib.contextmanager
def stages() -> Iterator[Progress]:
    """Yield a callback that shows a progress bar for each stage of a suite."""
    with bars() as bar:
        known: dict[str, Any] = {}

        def progress(stage: str, fraction: float) -> None:
            if stage not in known:
                known[stage] = bar.add_task(stage, total=1.0)
            bar.update(known[stage], completed=fraction)

        yield progress


def run_suite(suite: Suite, out: Path, *, jobs: int) -> None:
    """Run a suite and print its results. Exit with code 2 if a clip, a figure or a system is missing."""
    from vocable.evaluation.summary import is_complete, read_summary

    with stages() as progress:
        summary = suite.run(out, jobs=jobs, progress=progress)
    complete = is_complete(summary)
    for name, part in suite.parts().items():
        found = read_summary(out / name)
        show(part, found)
        complete = complete and is_complete(found)
    show(suite, summary)
    reasons = [counts for metrics in summary["unjudged"].values() for counts in metrics.values()]
    missing = sum(count for counts in reasons for count in counts.values())
    left_out = f"{len(summary['left_out'])} left out{f', {missing} figures missing' * bool(missing)}"
    typer.echo(f"{summary['clips']} clips, {left_out}: {out}/index.html, {out}/summary.json", err=True)
    if not complete:
        raise typer.Exit(2)


def show(suite: Suite, summary: dict[str, Any]) -> None:
    """Print the tables and notes of a summary."""
    for heading, table in suite.tables(summary).items():
        typer.echo(heading)
        print_table(*table)
    for line in suite.notes(summary):
        typer.echo(printable(line))


def print_table(columns: list[str], rows: list[list[Cell]]) -> None:
    """Print a table to standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 140)
    table = Table()
    # Text, because rich reads strings as markup: "[x] corpus" would lose its brackets, and "[/x]" raise an error.
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if i else "left", overflow="fold")
    for row in rows:
        pairs = [(cell, "") if isinstance(cell, str) else cell for cell in row]
        table.add_row(*(Text.assemble(text, "\n" * bool(under), (under, "dim")) for text, under in pairs))
    console.print(table)
