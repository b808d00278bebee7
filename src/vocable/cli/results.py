"""What the suites of `vocable eval` share: clips from a manifest, bars, and how results are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from vocable.cli.bars import bars
from vocable.terminal import printable

if TYPE_CHECKING:
    from vocable.corpus.manifest import Utterance
    from vocable.evaluation.page import Cell, Table
    from vocable.evaluation.runner import Progress


class Suite(Protocol):
    """A module of `vocable.evaluation`: how its summary reads."""

    @property
    def evaluate(self) -> Callable[..., dict[str, Any]]: ...

    def tables(self, summary: Mapping[str, Any], /) -> dict[str, Table]: ...

    def notes(self, summary: Mapping[str, Any], /) -> list[str]: ...


def select(manifest: Path, corpus: str | None, limit: int | None) -> list[Utterance]:
    """The manifest's clips, those of one corpus, and of these `limit`, spread evenly."""
    from vocable.corpus.manifest import read_manifest, spread

    clips = [clip for clip in read_manifest(manifest) if corpus in (None, clip.corpus)]
    if not clips:
        raise ValueError(f"{manifest}: no clip of the corpus {corpus!r}")
    return spread(clips, limit)


@contextlib.contextmanager
def stages() -> Iterator[Progress]:
    """A bar for each stage of a suite, as it comes up."""
    with bars() as bar:
        known: dict[str, Any] = {}

        def progress(stage: str, share: float) -> None:
            if stage not in known:
                known[stage] = bar.add_task(stage, total=1.0)
            bar.update(known[stage], completed=share)

        yield progress


def evaluate(suite: Suite, clips: list[Utterance], out: Path, systems: str, jobs: int, seed: int) -> None:
    """A suite that needs clips and systems alone."""
    with stages() as progress:
        summary = suite.evaluate(clips, out, systems=systems.split(","), jobs=jobs, seed=seed, progress=progress)
    finish(suite, summary, out)


def finish(suite: Suite, summary: dict[str, Any], out: Path, complete: bool = True) -> None:
    """Print what the page says, and where it is. Exit code 2 if a clip, a figure or a system is missing, or what was
    done before was not `complete`."""
    from vocable.evaluation.runner import is_complete

    show(suite, summary)
    reasons = [counts for metrics in summary["unjudged"].values() for counts in metrics.values()]
    missing = sum(count for counts in reasons for count in counts.values())
    lost = f"{len(summary['left_out'])} left out{f', {missing} figures missing' * bool(missing)}"
    typer.echo(f"{summary['clips']} clips, {lost}: {out}/index.html, {out}/summary.json", err=True)
    if not (complete and is_complete(summary)):
        raise typer.Exit(2)


def show(suite: Suite, summary: dict[str, Any]) -> None:
    for heading, table in suite.tables(summary).items():
        typer.echo(heading)
        print_table(*table)
    for line in suite.notes(summary):
        typer.echo(printable(line))


def print_table(columns: list[str], rows: list[list[Cell]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 140)
    table = Table()
    # Text, because a string is markup to rich: "[x] corpus" would lose its brackets, and "[/x]" raise an error.
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if i else "left", overflow="fold")
    for row in rows:
        pairs = [(cell, "") if isinstance(cell, str) else cell for cell in row]
        table.add_row(*(Text.assemble(text, "\n" * bool(under), (under, "dim")) for text, under in pairs))
    console.print(table)
