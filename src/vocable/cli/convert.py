"""The command `vocable convert`."""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli.options import SPEECH_SUFFIXES, check_speech_output, parse_layers
from vocable.cli.pipes import incoming, outgoing


def convert(
    source: Path = typer.Argument(help="The content: an audio file, or - for standard input."),
    reference: Path = typer.Argument(help="The voice: an audio file of a second or more."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write, or - for standard output."),
    method: str = typer.Option(
        "nar", help="nar: the NAR of the language models; swap: swap layers of the codes, which needs no models."
    ),
    layers: str = typer.Option(
        None, help="swap: layers of the reference's codes; the layers below are the source's (1:)."
    ),
    models: str = typer.Option(
        None, help="nar: RUN/model of `vocable train lm`, or a hub id (default: the shipped models)."
    ),
    text: str = typer.Option(None, help="nar: the text of the source, if it is known."),
    language: str = typer.Option(
        None, help="nar: language of the text, such as en (default: that of the models' training)."
    ),
    guidance: float = typer.Option(
        None, help="nar with --text: weight of voice and text; 0 loses more words and sounds more natural (2)."
    ),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
) -> None:
    """Convert SOURCE to the voice of REFERENCE."""
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
    from vocable.lm.nar import GUIDANCE

    converter = VoiceConverter.from_pretrained(models, codec=model, device=device) if method == "nar" else None
    codec = converter.codec if converter else load_codec(model, device=device)
    with incoming(source) as source_path, incoming(reference) as reference_path:
        content, voice = (audio.read(path, codec.sample_rate)[0] for path in (source_path, reference_path))
    if converter:
        weight = GUIDANCE if guidance is None else guidance
        converted = converter.convert(content, voice, text=text, language=language, guidance=weight)
    else:
        converted = swap_layers(codec, content, voice, layers=chosen)
    with outgoing(out, SPEECH_SUFFIXES[0]) as written:
        audio.write(written, converted.waveform[0], codec.sample_rate, comment=audio.MADE_BY_MACHINE)
    typer.echo(f"{out}: {len(content) / codec.sample_rate:.1f} s, {codec.id}", err=True)
