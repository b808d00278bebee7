"""vocable decode"""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli import batch
from vocable.cli.options import SPEECH_SUFFIXES, parse_layers


def decode(
    inputs: list[str] = typer.Argument(metavar="TOKENS...", help="Token files, folders, globs, - for standard input."),
    out: Path = typer.Option(
        ..., "-o", "--out", help="A folder; for one input an audio file, or - for standard output."
    ),
    layers: str = typer.Option(None, help="Decode from these layers alone: :1, :4, ... (default: all in the file)."),
    model: str = typer.Option(
        None, "-m", "--model", help="A folder, a hub id, encodec:ID (default: the embedded model)."
    ),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Decode codes: write the speech of token files."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.load import load_codec
    from vocable.codec.tokens import SUFFIXES, Encoded

    plan = batch.plan(inputs, out, SUFFIXES, SPEECH_SUFFIXES)
    codec = load_codec(model, device=device, parts="decoder")
    codec.bitrate(chosen)  # raises for wrong --layers once, not for each file

    def work(source: Path, target: Path) -> float:
        # A file may hold several clips: they are joined in order.
        clips = Encoded.load(source).clips()
        blocks = (block for clip in clips for block in codec.decode_long(clip, layers=chosen))
        return audio.write_blocks(target, blocks, codec.sample_rate) / codec.sample_rate

    batch.run(plan, work, "decoded")
