"""vocable reconstruct"""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli import batch
from vocable.cli.options import SPEECH_SUFFIXES, parse_layers


def reconstruct(
    inputs: list[str] = typer.Argument(metavar="IN...", help="Audio files, folders, globs, - for standard input."),
    out: Path = typer.Option(
        ..., "-o", "--out", help="A folder; for one input an audio file, or - for standard output."
    ),
    layers: str = typer.Option(None, help="Through these layers alone: :1, :4, ... (default: all)."),
    model: str = typer.Option(
        None, "-m", "--model", help="A folder, a hub id, encodec:ID (default: the embedded model)."
    ),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Encode and decode speech, to hear what the codes keep."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.load import load_codec

    plan = batch.plan(inputs, out, audio.SUFFIXES, SPEECH_SUFFIXES)
    codec = load_codec(model, device=device)
    codec.bitrate(chosen)  # raises for wrong --layers once, not for each file

    def work(source: Path, target: Path) -> float:
        waveform, _ = audio.read(source, codec.sample_rate)
        audio.write(target, codec.reconstruct(waveform, layers=chosen).waveform[0], codec.sample_rate)
        return len(waveform) / codec.sample_rate

    batch.run(plan, work, "reconstructed")
