"""vocable info"""

from __future__ import annotations

import json

import typer


def info(
    model: str = typer.Argument(None, help="A folder or a hub id (default: the embedded model)."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """What a model is: ids, size, rates."""
    from vocable.codec.model import SpeechTokenizer

    tokenizer = SpeechTokenizer.from_pretrained(model)
    sizes = {part: sum(p.numel() for p in getattr(tokenizer, part).parameters()) for part in ("encoder", "decoder")}
    facts = {
        "id": tokenizer.id,
        "token_id": tokenizer.token_id,
        "architecture": tokenizer.config.architecture,
        "sample_rate": tokenizer.sample_rate,
        "frame_rate": tokenizer.frame_rate,
        "hop_length": tokenizer.hop_length,
        "delay": tokenizer.delay,
        "num_quantizers": tokenizer.num_quantizers,
        "codebook_size": tokenizer.config.codebook_size,
        "bitrate": tokenizer.bitrate(),
        "bitrate_semantic": tokenizer.bitrate(slice(0, 1)),
        "parameters": {**sizes, "codebooks": tokenizer.quantizer.codebooks.numel()},
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    units = {
        "sample_rate": " Hz",
        "frame_rate": " Hz",
        "hop_length": " samples",
        "delay": " samples",
        "bitrate": " bit/s",
    }
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in value.items())
        elif isinstance(value, float):
            value = f"{value:g}"
        elif value is None:  # the delay of a codec that needs the whole clip
            continue
        typer.echo(f"{name:17} {value}{units.get(name.removesuffix('_semantic'), '')}")
