"""vocable convert"""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli.options import parse_layers


def convert(
    source: Path = typer.Argument(help="What is said: an audio file."),
    reference: Path = typer.Argument(help="How it sounds: an audio file of a second or more."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write."),
    method: str = typer.Option("swap", help="swap: layers of the codes; nar: the speech models' NAR."),
    layers: str = typer.Option("1:", help="swap: layers that the reference gives; the source gives those below."),
    models: str = typer.Option(None, help="nar: RUN/model of `vocable train lm`, or a hub id (default: the shipped)."),
    model: str = typer.Option(None, "-m", "--model", help="A codec: a folder or a hub id (default: the embedded)."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Say what SOURCE says in the voice of REFERENCE."""
    chosen = parse_layers(layers)
    if method not in ("swap", "nar"):
        raise ValueError(f"--method is swap or nar, not {method!r}")
    if models and method != "nar":
        raise ValueError("--models is for --method nar")

    from vocable import audio
    from vocable.codec.model import SpeechTokenizer
    from vocable.conversion import fill_layers, swap_layers
    from vocable.lm.model import load_models

    if out.resolve() in (source.resolve(), reference.resolve()):
        raise ValueError(f"{out} is an input itself: name another output")
    tok = SpeechTokenizer.from_pretrained(model, device=device)
    said, voice = (audio.read(path, tok.sample_rate)[0] for path in (source, reference))
    if method == "nar":
        converted = fill_layers(tok, load_models(models, tok).to(device), said, voice)
    else:
        converted = swap_layers(tok, said, voice, layers=chosen)
    audio.write(out, converted.waveform[0], tok.sample_rate, comment=audio.MADE_BY_MACHINE)
    typer.echo(f"{out}: {len(said) / tok.sample_rate:.1f} s, {tok.id}", err=True)
