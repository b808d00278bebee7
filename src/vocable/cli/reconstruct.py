"""The command `vocable reconstruct`."""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli import batch
from vocable.cli.options import SPEECH_SUFFIXES, parse_layers


def reconstruct(
    inputs: list[str] = typer.Argument(metavar="IN...", help="Audio files, folders, globs, or - for standard input."),
    out: Path = typer.Option(
        ..., "-o", "--out", help="A folder; for one input an audio file, or - for standard output."
    ),
    layers: str = typer.Option(None, help="Layers to decode: :1, :4, ... (default: all)."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
) -> None:
    """Encode audio files and decode the codes."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.load import load_codec

    files = batch.pair_files(inputs, out, audio.SUFFIXES, SPEECH_SUFFIXES)
    codec = load_codec(model, device=device)
    codec.bitrate(chosen)  # an invalid --layers is one error, not one per file

    def work(source: Path, target: Path) -> float:
        waveform, _ = audio.read(source, codec.sample_rate)
        audio.write(target, codec.reconstruct(waveform, layers=chosen).waveform[0], codec.sample_rate)
        return len(waveform) / codec.sample_rate

    batch.run(files, work, "reconstructed")
