"""The command `vocable export transformers`."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(
    help="Export models to other runtimes.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _root() -> None:
    pass  # without a callback, typer would make the only command the group itself


@app.command()
def transformers(
    model: str = typer.Argument(help="A codec: fast, a folder or a hub id."),
    out: Path = typer.Option(..., "-o", "--out", help="The folder to write; it must not hold files."),
    with_code: bool = typer.Option(
        False, "--with-code", help="Add vocable's modules, for trust_remote_code=True without vocable."
    ),
) -> None:
    """Write a codec as a folder that transformers' AutoModel loads."""
    from vocable.codec.model import SpeechTokenizer
    from vocable.extras import need

    need("transformers", "hf")
    from vocable.hf.folder import export

    codec = SpeechTokenizer.from_pretrained(model)
    export(codec, out, with_code=with_code)
    typer.echo(f"{codec.id} in {out}", err=True)
