"""vocable encode"""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli import batch
from vocable.cli.options import parse_layers


def encode(
    inputs: list[str] = typer.Argument(metavar="IN...", help="Audio files, folders, globs, - for standard input."),
    out: Path = typer.Option(
        ..., "-o", "--out", help="A folder; for one input a token file, or - for standard output."
    ),
    layers: str = typer.Option(None, help="Which codes: :1 for RVQ-1, 1:4, ... (default: all)."),
    model: str = typer.Option(
        None, "-m", "--model", help="A folder, a hub id, encodec:ID (default: the embedded model)."
    ),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
    format: str = typer.Option("safetensors", help="For folders and pipes: safetensors, npz or jsonl."),
) -> None:
    """Encode speech: write the codes of audio files."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.load import load_codec
    from vocable.codec.tokens import SUFFIXES

    if f".{format}" not in SUFFIXES:
        raise ValueError(f"--format is safetensors, npz or jsonl, not {format!r}")
    plan = batch.plan(inputs, out, audio.SUFFIXES, sorted(SUFFIXES, key=lambda s: s != f".{format}"))
    codec = load_codec(model, device=device, parts="encoder")
    codec.bitrate(chosen)  # raises for wrong --layers once, not for each file

    def work(source: Path, target: Path) -> float:
        encoded = codec.encode_long(audio.read_blocks(source, codec.sample_rate), layers=chosen)
        encoded.save(target)
        return int(encoded.num_samples) / codec.sample_rate

    batch.run(plan, work, "encoded")
