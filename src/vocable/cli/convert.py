"""vocable convert"""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli.options import parse_layers


def convert(
    source: Path = typer.Argument(help="What is said: an audio file."),
    reference: Path = typer.Argument(help="How it sounds: an audio file of a second or more."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write."),
    layers: str = typer.Option("1:", help="Layers that the reference gives; the source gives those below."),
    model: str = typer.Option(None, "-m", "--model", help="A folder or a hub id (default: the embedded model)."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Say what SOURCE says in the voice of REFERENCE, by swapping layers of their codes."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.model import SpeechTokenizer
    from vocable.conversion import swap_layers

    if out.resolve() in (source.resolve(), reference.resolve()):
        raise ValueError(f"{out} is an input itself: name another output")
    tok = SpeechTokenizer.from_pretrained(model, device=device)
    said, voice = (audio.read(path, tok.sample_rate)[0] for path in (source, reference))
    converted = swap_layers(tok, said, voice, layers=chosen)
    audio.write(out, converted.waveform[0], tok.sample_rate)
    typer.echo(f"{out}: {len(said) / tok.sample_rate:.1f} s, {tok.id}", err=True)
