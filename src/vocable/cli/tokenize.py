"""vocable tokenize"""

from __future__ import annotations

import time
from pathlib import Path

import typer

from vocable.cli.bars import bars
from vocable.cli.messages import complain
from vocable.cli.options import parse_layers


def tokenize(
    source: list[str] = typer.Argument(metavar="MANIFEST|FOLDER", help="Or: verify OUT, to check what was written."),
    out: Path = typer.Option(None, "-o", "--out", help="The corpus's folder; an interrupted run goes on in it."),
    root: Path = typer.Option(None, help="The folder that a manifest's paths are relative to (default: its own)."),
    layers: str = typer.Option(None, help="Which codes: :1 for RVQ-1, 1:4, ... (default: all)."),
    model: str = typer.Option(
        None, "-m", "--model", help="A folder, a hub id, encodec:ID (default: the embedded model)."
    ),
    engine: str = typer.Option("local", help="local: processes here; ray: actors of Ray Data."),
    workers: int = typer.Option(1, min=1, help="Processes of one thread each, or actors."),
    address: str = typer.Option(None, help="Of a Ray cluster (default: one that is begun here)."),
    device: str = typer.Option("cpu", help="cpu, or cuda: a GPU for each actor."),
    recurrence: str = typer.Option("float32", help="Of the recurrent layers: or bfloat16, which changes some codes."),
    compile: bool = typer.Option(False, help="torch.compile the encoder: a minute, then faster batches."),
    format: str = typer.Option("tar", help="tar of safetensors, or parquet."),
    shard_minutes: float = typer.Option(30.0, help="Speech in a shard."),
) -> None:
    """A corpus to shards of tokens."""
    if source[0] == "verify" and len(source) == 2:
        verify(Path(source[1]))
        return
    if len(source) != 1 or out is None:
        raise ValueError("give one manifest or folder, and -o OUT; or: vocable tokenize verify OUT")
    chosen = parse_layers(layers)
    if format not in ("tar", "parquet"):
        raise ValueError(f"--format is tar or parquet, not {format!r}")
    if engine not in ("local", "ray"):
        raise ValueError(f"--engine is local or ray, not {engine!r}")

    from vocable.codec.load import load_codec
    from vocable.corpus import prepare
    from vocable.corpus.engines import Local, Ray
    from vocable.corpus.manifest import read_manifest
    from vocable.corpus.tokenize import Plan
    from vocable.corpus.tokenize import tokenize as run

    path = Path(source[0])
    if path.is_dir():
        utterances, unreadable = prepare.measured(prepare.recordings("folder", path))
        for line in unreadable:
            complain(line)
    else:
        utterances, unreadable = read_manifest(path, root), []
    here = device if engine == "local" else "cpu"  # a device that is not there is said here
    codec = load_codec(model, device=here, parts="encoder", recurrence=recurrence, compile=compile)
    codec.bitrate(chosen)  # a wrong --layers is said here
    start, stop, _ = (chosen or slice(None)).indices(codec.num_quantizers)
    plan = Plan(
        model,
        codec.token_id,
        start,
        stop,
        format,  # type: ignore[arg-type]
        shard_seconds=60 * shard_minutes,
        device=device,
        recurrence=codec.recurrence,
        compile=compile,
    )
    works = Local(workers) if engine == "local" else Ray(workers, address)
    hours = sum(u.duration for u in utterances) / 3600
    begun, spoken, stood = time.monotonic(), [0.0], [0.0]
    with bars() as bar:
        task = bar.add_task(f"{hours:.1f} h", total=hours * 3600)

        def progress(seconds: float) -> None:
            took = time.monotonic() - begun
            if took < 1.0:  # shards that stood already say nothing of speed
                stood[0] += seconds
            spoken[0] += seconds
            speed = (spoken[0] - stood[0]) / max(took, 1e-9)
            text = f"{spoken[0] / 3600:.2f} of {hours:.2f} h, {speed:.0f} x real time"
            bar.update(task, advance=seconds, description=text)

        index = run(utterances, out, plan, works, progress)
    if index["downmixed"]:
        complain(f"{index['downmixed']} clips of several channels, which were averaged to mono")
    left_out = len(index["left_out"]) + len(unreadable)
    for clip, why in index["left_out"].items():
        complain(f"{clip}: {why}")
    typer.echo(
        f"{index['clips']} clips, {index['hours']:.2f} h, in {len(index['shards'])} shards of {out}; "
        f"{left_out} left out; {time.monotonic() - begun:.0f} s",
        err=True,
    )
    if left_out:
        raise typer.Exit(2)


def verify(out: Path) -> None:
    from vocable.corpus import tokenize as corpus

    shards = len(corpus.read_index(out)["shards"])
    with bars(counted=True) as bar:
        task = bar.add_task("shards", total=shards)
        wrong = corpus.verify(out, lambda: bar.advance(task))
    for line in wrong:
        complain(line)
    typer.echo(f"{shards} shards, {len(wrong)} complaints", err=True)
    if wrong:
        raise typer.Exit(2)
