"""vocable semantic"""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(help="Teachers' features for distillation.", no_args_is_help=True)


@app.callback()
def _semantic() -> None:
    pass


@app.command()
def extract(
    manifest: Path = typer.Argument(help="A JSONL manifest."),
    out: Path = typer.Option(..., "-o", "--out", help="The cache's folder; an interrupted run goes on in it."),
    teacher: str = typer.Option(..., help="A transformers folder or hub id: HuBERT, WavLM, wav2vec 2.0 or Whisper."),
    layer: str = typer.Option("avg", help="Number of a hidden state, or avg."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
    dtype: str = typer.Option("float32", help="float32, bfloat16 or float16."),
) -> None:
    """Write a teacher's features of every utterance of a manifest."""
    if layer != "avg" and not layer.isdigit():
        raise ValueError(f"--layer is a number or avg, not {layer!r}")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype is float32, bfloat16 or float16, not {dtype!r}")

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from vocable.corpus.manifest import read_manifest
    from vocable.semantic import cache
    from vocable.semantic.teacher import Teacher

    utterances = read_manifest(manifest)
    hours = sum(u.duration for u in utterances) / 3600
    model = Teacher(teacher, "avg" if layer == "avg" else int(layer), device, getattr(torch, dtype))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{hours:.1f} h of speech", total=hours * 3600)
        cache.extract(model, utterances, out, lambda seconds: bar.advance(task, seconds))
    typer.echo(f"features of {len(utterances)} utterances, {hours:.2f} h, {model.dimension}-d, in {out}", err=True)
