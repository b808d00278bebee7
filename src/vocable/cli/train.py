"""vocable train"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocable.cli.bars import bars
from vocable.cli.options import parse_duration

if TYPE_CHECKING:
    from rich.progress import Progress  # not at start-up: --help must be there at once

    from vocable.training.loop import Trainer

app = typer.Typer(help="Train a model from a recipe.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    pass


RECIPE: Path = typer.Argument(help="A YAML recipe.")
OUT: Path = typer.Option(None, "-o", "--out", help="The run's folder (default: runs/NAME).")
SETTINGS: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Override a field of the recipe.")
MAX_TIME: str = typer.Option(None, help="End, annealed, after this long: 90s, 110m, 2h.")
RESUME: bool = typer.Option(False, help="Go on with the run in this folder.")


@app.command()
def codec(
    recipe: Path = RECIPE,
    out: Path = OUT,
    settings: list[str] = SETTINGS,
    init: str = typer.Option(None, help="Begin from this codec: fast (the embedded model), a folder or a hub id."),
    max_time: str = MAX_TIME,
    resume: bool = RESUME,
) -> None:
    """Train the codec."""
    seconds = parse_duration(max_time)

    from vocable.training.codec import CodecTrainer
    from vocable.training.recipe import load_recipe

    plan = load_recipe(recipe, settings + ([f"init={init}"] if init else []))
    folder = out or Path("runs") / plan.name

    def make(bar: Progress) -> CodecTrainer:
        reading = bar.add_task("reading audio", total=None)
        trainer = CodecTrainer(plan, folder, max_time=seconds, on_load=lambda s: bar.advance(reading, s))
        bar.remove_task(reading)
        return trainer

    summary = _run(make, folder, resume, ("total", "mel", "teacher_cosine"))
    if summary:
        steps, spent, short = summary["steps"], summary["seconds"], summary["left_out"]
        typer.echo(f"trained {summary['codec']}: {steps} steps in {spent} s; model in {folder}/model", err=True)
        if short:
            typer.echo(f"{short} utterances were too short to train on and left out", err=True)


@app.command()
def lm(
    recipe: Path = RECIPE,
    out: Path = OUT,
    settings: list[str] = SETTINGS,
    init: str = typer.Option(None, help="Begin from the models in this folder."),
    max_time: str = MAX_TIME,
    resume: bool = RESUME,
) -> None:
    """Train the language models of speech, AR and NAR, on a tokenized corpus."""
    seconds = parse_duration(max_time)

    from vocable.lm.recipe import load_recipe
    from vocable.lm.train import LMTrainer

    plan = load_recipe(recipe, settings + ([f"init={init}"] if init else []))
    folder = out or Path("runs") / plan.name

    def make(bar: Progress) -> LMTrainer:
        task = bar.add_task("reading tokens", total=1.0)
        trainer = LMTrainer(
            plan,
            folder,
            max_time=seconds,
            on_load=lambda stage, share: bar.update(task, description=stage, completed=share),
        )
        bar.remove_task(task)
        return trainer

    summary = _run(make, folder, resume, ("total", "ar", "nar", "dev/ar", "dev/nar"))
    if summary:
        steps, spent, left_out = summary["steps"], summary["seconds"], summary["left_out"]
        typer.echo(f"trained {summary['models']} on {summary['token_id']}: {steps} steps in {spent} s", err=True)
        typer.echo(f"models in {folder}/model; {left_out} clips were left out", err=True)


def _run(
    make: Callable[[Progress], Trainer], folder: Path, resume: bool, shown: Sequence[str]
) -> dict[str, Any] | None:
    """Begin a run or go on with it, with a live line; returns its summary, in the first process alone."""
    from vocable.lock import one_at_a_time
    from vocable.training.stop import Interrupted

    first = os.environ.get("RANK", "0") == "0"  # of the processes that accelerate or torchrun started
    begun = (folder / "state.safetensors").exists()
    if begun and first:
        with one_at_a_time(folder):  # the run takes it anew; here, a second one is refused before it reads its data
            pass
    if begun and not resume:
        raise ValueError(f"{folder} holds a run already: --resume goes on with it, -o names another folder")
    if resume and not begun:
        raise ValueError(f"{folder} holds no run to resume; leave out --resume to begin one")
    with bars(shown=first) as bar:
        trainer = make(bar)
        if resume:
            trainer.resume()
        training = bar.add_task("training", total=1.0)

        def show(record: dict[str, Any]) -> None:
            figures = " ".join(f"{k} {record[k]:.3f}" for k in shown if k in record)
            bar.update(training, completed=record["progress"], description=f"step {record['step']} {figures}")
            if bar.disable and first:
                typer.echo(f"step {record['step']} progress {record['progress']:.3f} {figures}", err=True)

        trainer.on_log = show
        try:
            summary = trainer.run()
        except Interrupted as stopped:
            if first:
                typer.echo(f"vocable: {stopped}: saved at step {trainer.step}; go on with --resume", err=True)
            raise typer.Exit(128 + stopped.signal) from None
    return summary if first else None


@app.command()
def vocoder(
    units: Path = typer.Argument(help="A folder of `vocable semantic units`; the vocoder is left in it."),
    manifest: Path = typer.Option(..., help="The JSONL manifest whose recordings have these units."),
    max_time: str = typer.Option("30m", help="Train for so long, annealed: 90s, 30m, 2h."),
    seed: int = typer.Option(0),
) -> None:
    """Train a vocoder that speaks a teacher's units, for `vocable eval`."""
    seconds = parse_duration(max_time)
    assert seconds is not None

    from vocable.training.vocoder import train_vocoder

    steps = 0
    with bars() as bar:
        task = bar.add_task("vocoder", total=1.0)

        def on_step(step: int, share: float, mel: float) -> None:
            nonlocal steps
            steps = step
            bar.update(task, completed=share, description=f"vocoder, mel {mel:.3f}")

        train_vocoder(units, manifest, max_time=seconds, seed=seed, on_step=on_step)
    typer.echo(f"trained a vocoder: {steps} steps in {seconds:.0f} s; in {units}", err=True)


@app.command()
def report(
    runs: list[Path] = typer.Argument(metavar="RUN...", help="Folders of runs, finished or not."),
    out: Path = typer.Option(None, "-o", "--out", help="The page, .html (default: report.html in the first run)."),
) -> None:
    """Draw the curves of runs, one over the other: a PNG, and an HTML page with figures and recipe differences."""
    from vocable.training.report import write_report

    out = out or runs[0] / "report.html"
    picture = write_report(runs, out)
    typer.echo(f"curves of {len(runs)} run{'s' * (len(runs) > 1)} in {out} and {picture}", err=True)
