"""The command `vocable verify`."""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli.bars import bars
from vocable.cli.messages import complain


def verify(out: Path = typer.Argument(help="A folder of `vocable tokenize`.")) -> None:
    """Compare the shards of a tokenized corpus with its index.

    The exit code is 0 if the corpus is sound, 2 if a shard is damaged or missing.
    """
    from vocable.corpus import verify as corpus
    from vocable.corpus.index import read_index

    shards = len(read_index(out)["shards"])
    with bars(counted=True) as bar:
        task = bar.add_task("shards", total=shards)
        faults = corpus.verify(out, progress=lambda: bar.advance(task))
    for line in faults:
        complain(line)
    typer.echo(f"{shards} shards, {len(faults)} faulty", err=True)
    if faults:
        raise typer.Exit(2)
