"""The commands `vocable import-official` and `vocable export-official`."""

from __future__ import annotations

from pathlib import Path

import typer


def import_official(
    source: str = typer.Argument(
        help="A folder with config.json and a checkpoint, the checkpoint itself, or a hub id, such as "
        "fnlp/SpeechTokenizer/speechtokenizer_hubert_avg."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="The folder to write, for --model of other commands."),
) -> None:
    """Convert a checkpoint of the official SpeechTokenizer package or of its trainer to a vocable model."""
    from vocable.codec import exchange

    typer.echo(f"{exchange.import_official(source, out)} in {out}", err=True)


def export_official(
    model: str = typer.Argument(help="A folder or a hub id of a model of the paper's architecture."),
    out: Path = typer.Option(..., "-o", "--out", help="The folder to write config.json and SpeechTokenizer.pt to."),
) -> None:
    """Convert a model to a checkpoint of the official SpeechTokenizer package."""
    from vocable.codec import exchange

    typer.echo(f"{exchange.export_official(model, out)}", err=True)
