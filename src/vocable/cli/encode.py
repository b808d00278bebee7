"""The command `vocable encode`."""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli import batch
from vocable.cli.options import parse_layers


def encode(
    inputs: list[str] = typer.Argument(metavar="IN...", help="Audio files, folders, globs, or - for standard input."),
    out: Path = typer.Option(
        ..., "-o", "--out", help="A folder; for one input a token file, or - for standard output."
    ),
    layers: str = typer.Option(None, help="Layers to write: :1 for RVQ-1, 1:4, ... (default: all)."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
    format: str = typer.Option("safetensors", help="Format for folders and pipes: safetensors, npz or jsonl."),
) -> None:
    """Encode audio files to token files."""
    chosen = parse_layers(layers)

    from vocable import audio
    from vocable.codec.load import load_codec
    from vocable.codec.tokens import SUFFIXES

    if f".{format}" not in SUFFIXES:
        raise ValueError(f"--format is safetensors, npz or jsonl, not {format!r}")
    files = batch.pair_files(inputs, out, audio.SUFFIXES, sorted(SUFFIXES, key=lambda s: s != f".{format}"))
    codec = load_codec(model, device=device, parts="encoder")
    codec.bitrate(chosen)  # an invalid --layers is one error, not one per file

    def work(source: Path, target: Path) -> float:
        encoded = codec.encode_long(audio.read_blocks(source, codec.sample_rate), layers=chosen)
        encoded.save(target)
        return int(encoded.num_samples) / codec.sample_rate

    batch.run(files, work, "encoded")
