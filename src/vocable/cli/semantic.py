"""The commands `vocable semantic`: features, units and phone labels of teachers, for training a codec."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import typer

from vocable.cli.bars import bars
from vocable.cli.options import parse_teacher_layer
from vocable.cli.results import stages

app = typer.Typer(help="Teachers' features, units and phone labels for training a codec.", no_args_is_help=True)


@app.callback()
def _semantic() -> None:
    pass


@app.command()
def extract(
    manifest: Path = typer.Argument(help="A JSONL manifest."),
    out: Path = typer.Option(
        ..., "-o", "--out", help="The cache's folder; an interrupted extraction is resumed in it."
    ),
    teacher: str = typer.Option(
        ..., help="A transformers folder or hub id: HuBERT, WavLM, wav2vec 2.0, data2vec-audio or Whisper."
    ),
    layer: str = typer.Option("avg", help="Number of a hidden state (9), the mean of several (2,4,6) or of all (avg)."),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
    dtype: str = typer.Option("float32", help="float32, bfloat16 or float16."),
) -> None:
    """Write the features of a teacher for every utterance of a manifest."""
    chosen = parse_teacher_layer(layer)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype is float32, bfloat16 or float16, not {dtype!r}")

    import torch

    from vocable.corpus.manifest import read_manifest
    from vocable.semantic import cache
    from vocable.semantic.teacher import Teacher

    utterances = read_manifest(manifest)
    hours = sum(u.duration for u in utterances) / 3600
    model = Teacher(teacher, chosen, device, getattr(torch, dtype))
    with bars() as bar:
        task = bar.add_task(f"{hours:.1f} h of speech", total=hours * 3600)
        cache.extract(model, utterances, out, lambda seconds: bar.advance(task, seconds))
    typer.echo(f"features of {len(utterances)} utterances, {hours:.2f} h, {model.dimension}-d, in {out}", err=True)


@app.command()
def units(
    cache: Path = typer.Argument(help="A folder of `vocable semantic extract`."),
    out: Path = typer.Option(..., "-o", "--out", help="The units' folder; an interrupted run is resumed in it."),
    num_units: int = typer.Option(500, "-k", "--num-units", help="Number of clusters."),
    sample: int = typer.Option(None, help="Frames to fit k-means on (default: 256 for each unit)."),
    seed: int = typer.Option(0, min=0, max=2**32 - 1, help="Seed of the sample and of k-means."),
) -> None:
    """Cluster a teacher's features with k-means and write the units of every utterance."""
    from vocable.semantic.cache import FeatureCache
    from vocable.semantic.units import make_units

    features = FeatureCache(cache)
    with bars() as bar:
        task = bar.add_task(f"{num_units} units", total=1.0)
        done = make_units(
            features,
            out,
            num_units,
            sample_frames=sample,
            seed=seed,
            progress=lambda fraction: bar.advance(task, fraction),
        )
    figures = f"perplexity {done.perplexity:.0f}, inertia {done.inertia:.4g} a frame"
    typer.echo(f"units of {done.frames} frames in {out}: {done.in_use} of {num_units} in use, {figures}", err=True)


@app.command()
def phones(
    manifest: Path = typer.Argument(help="A JSONL manifest with texts."),
    tokens: Path = typer.Option(..., help="A folder of `vocable tokenize` of the same manifest, all layers."),
    out: Path = typer.Option(..., "-o", "--out", help="The labels' folder."),
    models: str = typer.Option(
        None, help="Language models with an aligner: a folder or hub id (default: the shipped ones)."
    ),
    codec: str = typer.Option(None, help="The codec of the tokens (default: the embedded one)."),
    longest: float = typer.Option(60.0, help="Length in seconds above which clips get no labels."),
) -> None:
    """Write the phone of each frame of a manifest's recordings, for `content.labels` of a recipe."""
    from vocable.codec.load import load_codec
    from vocable.corpus.manifest import read_manifest
    from vocable.lm.corpus import load_corpus
    from vocable.lm.model import load_models
    from vocable.lm.phone_labels import write_phone_labels
    from vocable.lm.recipe import LMData
    from vocable.lock import one_at_a_time

    loaded_codec = load_codec(codec)
    loaded = load_models(models, loaded_codec)
    if loaded.aligner is None:
        raise ValueError("these language models have no aligner: train them with one")
    data = LMData(str(tokens), str(manifest), "", "", str(out / "work"), language=loaded.language, longest=longest)
    data = dataclasses.replace(data, front_end=loaded.front_end)  # type: ignore[arg-type]
    with one_at_a_time(out), stages() as progress:
        corpus = load_corpus(
            str(tokens), read_manifest(manifest), data, loaded_codec, loaded.aligner, loaded.table, progress
        )
        count = write_phone_labels(corpus, loaded, out)
    for reason, clips in Counter(corpus.left_out.values()).most_common():
        typer.echo(f"vocable: {clips} left out: {reason}", err=True)
    typer.echo(f"phones of {count} utterances in {out}; {len(corpus.left_out)} left out", err=True)
