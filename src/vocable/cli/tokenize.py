"""The command `vocable tokenize`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vocable.cli.bars import bars
from vocable.cli.messages import complain
from vocable.cli.options import parse_layers

if TYPE_CHECKING:
    from vocable.corpus.tokenize import Progress


def tokenize(
    source: Path = typer.Argument(metavar="MANIFEST|FOLDER", help="A JSONL manifest, or a folder of audio files."),
    out: Path = typer.Option(..., "-o", "--out", help="The corpus's folder; an interrupted run is resumed in it."),
    root: Path = typer.Option(None, help="The folder that a manifest's paths are relative to (default: its own)."),
    layers: str = typer.Option(None, help="Layers of codes: :1 for RVQ-1, 1:4, ... (default: all)."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    engine: str = typer.Option("local", help="local: processes on this machine; ray: actors of Ray Data."),
    workers: int = typer.Option(1, min=1, help="Number of processes of one thread each, or of actors."),
    address: str = typer.Option(None, help="Address of a Ray cluster (default: Ray is started on this machine)."),
    device: str = typer.Option("cpu", help="cpu, or cuda: one GPU for each actor."),
    recurrence: str = typer.Option(
        "float32", help="Number format of recurrent layers: float32, or bfloat16, which changes some codes."
    ),
    compile_encoder: bool = typer.Option(
        False, "--compile", help="torch.compile the encoder: takes a minute, then batches are faster."
    ),
    shard_format: str = typer.Option("tar", "--format", help="Format of shards: tar (of safetensors) or parquet."),
    shard_minutes: float = typer.Option(30.0, help="Minutes of speech in a shard."),
) -> None:
    """Encode a corpus to shards of tokens."""
    from vocable.corpus.engines import make_engine
    from vocable.corpus.plan import make_plan
    from vocable.corpus.prepare import read_source
    from vocable.corpus.tokenize import tokenize as run

    began = time.monotonic()
    chosen_engine = make_engine(engine, workers=workers, address=address)
    chosen_layers = parse_layers(layers)
    utterances, unreadable = read_source(source, root=root)
    for line in unreadable:
        complain(line)
    plan = make_plan(
        model,
        layers=chosen_layers,
        format=shard_format,
        shard_seconds=60 * shard_minutes,
        device=device,
        recurrence=recurrence,
        compile=compile_encoder,
        device_is_here=engine == "local",
    )
    with bars() as bar:
        task = bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            hours = f"{progress.seconds / 3600:.2f} of {progress.total / 3600:.2f} h"
            description = f"{hours}, {progress.speed:.0f} x real time"
            bar.update(task, completed=progress.seconds, total=progress.total, description=description)

        index = run(utterances, out=out, plan=plan, engine=chosen_engine, progress=show)
    if index["downmixed"]:
        complain(f"{index['downmixed']} clips of several channels, which were averaged to mono")
    for clip, reason in index["left_out"].items():
        complain(f"{clip}: {reason}")
    left_out = len(index["left_out"]) + len(unreadable)
    typer.echo(
        f"{index['clips']} clips, {index['hours']:.2f} h, in {len(index['shards'])} shards of {out}; "
        f"{left_out} left out; {time.monotonic() - began:.0f} s",
        err=True,
    )
    if left_out:
        raise typer.Exit(2)
