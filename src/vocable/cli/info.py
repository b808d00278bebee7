"""The command `vocable info`."""

from __future__ import annotations

import json

import typer


def info(
    model: str = typer.Argument(None, help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print the ids, rates and sizes of a codec."""
    from vocable.codec.load import load_codec

    facts = load_codec(model).describe()
    if as_json:
        typer.echo(json.dumps(facts))
        return
    suffixes = {
        "sample_rate": " Hz",
        "frame_rate": " Hz",
        "hop_length": " samples",
        "delay": " samples",
        "bitrate": " bit/s",
    }
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in value.items())
        elif isinstance(value, list):  # the codebook size of each layer
            value = str(value[0]) if len(set(value)) == 1 else ", ".join(map(str, value))
        elif isinstance(value, float):
            value = f"{value:g}"
        elif value is None:  # the delay of a codec that needs the whole clip
            continue
        typer.echo(f"{name:17} {value}{suffixes.get(name.removesuffix('_semantic'), '')}")
