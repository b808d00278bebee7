"""The command `vocable decode`."""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli import batch
from vocable.cli.options import SPEECH_SUFFIXES, parse_layers


def decode(
    inputs: list[str] = typer.Argument(
        metavar="TOKENS...", help="Token files, folders, globs, or - for standard input."
    ),
    out: Path = typer.Option(
        ..., "-o", "--out", help="A folder; for one input an audio file, or - for standard output."
    ),
    layers: str = typer.Option(None, help="Layers to decode: :1, :4, ... (default: all in the file)."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
) -> None:
    """Decode token files to speech."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.load import load_codec
    from vocable.codec.tokens import SUFFIXES, Encoded

    files = batch.pair_files(inputs, out, SUFFIXES, SPEECH_SUFFIXES)
    codec = load_codec(model, device=device, parts="decoder")
    codec.bitrate(chosen)  # an invalid --layers is one error, not one per file

    def work(source: Path, target: Path) -> float:
        # The clips of a file are concatenated.
        clips = Encoded.load(source).clips()
        blocks = (block for clip in clips for block in codec.decode_long(clip, layers=chosen))
        return audio.write_blocks(target, blocks, codec.sample_rate) / codec.sample_rate

    batch.run(files, work, "decoded")
