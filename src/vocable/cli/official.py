"""vocable import-official, vocable export-official"""

from __future__ import annotations

from pathlib import Path

import typer


def import_official(
    source: str = typer.Argument(
        help="A folder with config.json and a checkpoint, the checkpoint itself, or a hub id: "
        "fnlp/SpeechTokenizer/speechtokenizer_hubert_avg."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="Folder to write, as --model takes it."),
) -> None:
    """Turn a checkpoint of the official SpeechTokenizer package, or of its trainer, into a vocable model."""
    from vocable.codec import exchange

    typer.echo(f"{exchange.import_official(source, out)} in {out}", err=True)


def export_official(
    model: str = typer.Argument(help="A folder or a hub id of a model of the paper's architecture."),
    out: Path = typer.Option(..., "-o", "--out", help="Folder to write: config.json and SpeechTokenizer.pt."),
) -> None:
    """Write a model as the official SpeechTokenizer package loads it."""
    from vocable.codec import exchange

    typer.echo(f"{exchange.export_official(model, out)}", err=True)
