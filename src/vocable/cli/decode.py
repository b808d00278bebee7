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
    model: str = typer.Option(None, "-m", "--model", help="A folder or a hub id (default: the embedded model)."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Codes to speech."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.model import SpeechTokenizer
    from vocable.codec.tokens import SUFFIXES, Encoded

    plan = batch.plan(inputs, out, SUFFIXES, SPEECH_SUFFIXES)
    tokenizer = SpeechTokenizer.from_pretrained(model, device=device, parts="decoder")
    tokenizer.bitrate(chosen)  # a wrong --layers is said once, not for each file

    def work(source: Path, target: Path) -> float:
        # A file may hold several clips: they are joined in order.
        clips = Encoded.load(source).clips()
        blocks = (block for clip in clips for block in tokenizer.decode_long(clip, layers=chosen))
        return audio.write_blocks(target, blocks, tokenizer.sample_rate) / tokenizer.sample_rate

    batch.run(plan, work, "decoded")
