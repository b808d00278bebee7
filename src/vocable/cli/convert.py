"""vocable convert"""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli.options import SPEECH_SUFFIXES, check_speech_output, parse_layers
from vocable.cli.pipes import incoming, outgoing


def convert(
    source: Path = typer.Argument(help="What is said: an audio file, or - for standard input."),
    reference: Path = typer.Argument(help="How it sounds: an audio file of a second or more."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write, or - for standard output."),
    method: str = typer.Option(
        "nar", help="nar: the speech models' NAR; swap: layers of the codes, which needs no models."
    ),
    layers: str = typer.Option(None, help="swap: layers that the reference gives; the source gives the others (1:)."),
    models: str = typer.Option(None, help="nar: RUN/model of `vocable train lm`, or a hub id (default: the shipped)."),
    text: str = typer.Option(None, help="nar: what the source says, where it is known."),
    language: str = typer.Option(None, help="nar: of the text, as en (default: what the models were trained on)."),
    guidance: float = typer.Option(None, help="nar, with --text: 0 loses more words, and sounds more natural (2)."),
    model: str = typer.Option(None, "-m", "--model", help="A codec: a folder or a hub id (default: the embedded)."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Say what SOURCE says in the voice of REFERENCE."""
    chosen = parse_layers(layers or "1:")
    if method not in ("swap", "nar"):
        raise ValueError(f"--method is swap or nar, not {method!r}")
    for option, value in (("--models", models), ("--text", text), ("--language", language), ("--guidance", guidance)):
        if value is not None and method != "nar":
            raise ValueError(f"{option} is for --method nar")
    if layers and method != "swap":
        raise ValueError("--layers is for --method swap")
    check_speech_output(out, source, reference)

    from vocable import audio
    from vocable.codec.load import load_codec
    from vocable.conversion import VoiceConverter, swap_layers
    from vocable.lm.model import load_models
    from vocable.lm.nar import GUIDANCE

    tok = load_codec(model, device=device)
    with incoming(source) as speech, incoming(reference) as example:
        said, voice = (audio.read(path, tok.sample_rate)[0] for path in (speech, example))
    if method == "nar":
        converter = VoiceConverter(tok, load_models(models, tok).to(device))
        speaker = converter.prepare_voice(voice)
        strength = GUIDANCE if guidance is None else guidance
        converted = converter.convert(said, speaker, text=text, language=language, guidance=strength)
    else:
        converted = swap_layers(tok, said, voice, layers=chosen)
    with outgoing(out, SPEECH_SUFFIXES[0]) as written:
        audio.write(written, converted.waveform[0], tok.sample_rate, comment=audio.MADE_BY_MACHINE)
    typer.echo(f"{out}: {len(said) / tok.sample_rate:.1f} s, {tok.id}", err=True)
