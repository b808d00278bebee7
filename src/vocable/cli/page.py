"""The command `vocable page`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import typer

from vocable.cli.serve import run


def page(
    port: int = typer.Option(8000, min=0, max=65535, help="The port to listen at; 0 for any that is free."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    models: str = typer.Option(
        None, help="Language models: RUN/model of `vocable train lm`, or a hub id (default: the shipped ones)."
    ),
    voices: Path = typer.Option(None, help="A folder of prepared voices, which the page offers."),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
    browser: bool = typer.Option(True, help="Open the page in the browser."),
) -> None:
    """Open the page of the service in the browser. It is served to this machine alone, until Ctrl-C."""
    from vocable.serve import Settings

    def show(url: str) -> None:
        typer.echo(f"{url} (Ctrl-C ends it)", err=True)
        if browser:
            webbrowser.open(url)

    # Ctrl-C ends running work too: whoever waits for it is at this machine.
    run(Settings(port=port, model=model, models=models, voices=voices, device=device, grace=1.0), started=show)
