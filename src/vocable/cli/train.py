"""The commands `vocable train`: training of codecs, language models and vocoders, and reports of runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocable.cli.bars import bars
from vocable.cli.options import parse_duration

if TYPE_CHECKING:
    from rich.progress import Progress  # not imported at start-up, so that --help is fast

    from vocable.training.loop import Trainer

app = typer.Typer(help="Train a model from a recipe.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    pass


RECIPE: Path = typer.Argument(help="A YAML recipe.")
OUT: Path = typer.Option(None, "-o", "--out", help="The run's folder (default: runs/NAME).")
SETTINGS: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="Override a field of the recipe.")
MAX_TIME: str = typer.Option(None, help="Duration of the run: 90s, 110m, 2h. The learning rate is scheduled to it.")
RESUME: bool = typer.Option(False, help="Resume the run in this folder.")


@app.command()
def codec(
    recipe: Path = RECIPE,
    out: Path = OUT,
    settings: list[str] = SETTINGS,
    init: str = typer.Option(None, help="Fine-tune this codec: fast (the embedded model), a folder or a hub id."),
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

    summary = _run(make, plan, folder, resume, ("total", "mel", "teacher_cosine"))
    if summary:
        steps, spent, short = summary["steps"], summary["seconds"], summary["left_out"]
        typer.echo(f"trained {summary['codec']}: {steps} steps in {spent} s; model in {folder}/model", err=True)
        if short:
            typer.echo(f"left out {short} utterances that are too short to train on", err=True)


@app.command()
def lm(
    recipe: Path = RECIPE,
    out: Path = OUT,
    settings: list[str] = SETTINGS,
    init: str = typer.Option(None, help="Fine-tune the models in this folder."),
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
            on_load=lambda stage, fraction: bar.update(task, description=stage, completed=fraction),
        )
        bar.remove_task(task)
        return trainer

    summary = _run(make, plan, folder, resume, ("total", "ar", "nar", "dev/ar", "dev/nar"))
    if summary:
        steps, spent, left_out = summary["steps"], summary["seconds"], summary["left_out"]
        typer.echo(f"trained {summary['models']} on {summary['token_id']}: {steps} steps in {spent} s", err=True)
        typer.echo(f"models in {folder}/model; {left_out} clips were left out", err=True)


@app.command()
def vocoder(
    units: Path = typer.Argument(help="A folder of `vocable semantic units`; the vocoder is written to it."),
    manifest: Path = typer.Option(..., help="The JSONL manifest whose recordings have these units."),
    out: Path = typer.Option(None, "-o", "--out", help="The run's folder (default: UNITS/vocoder)."),
    max_time: str = typer.Option("30m", help="Duration of the run: 90s, 30m, 2h."),
    seed: int = typer.Option(0, min=0, max=2**32 - 1, help="Seed of the weights and the batches."),
    resume: bool = RESUME,
) -> None:
    """Train a vocoder that decodes a teacher's units to speech, for `vocable eval`."""
    seconds = parse_duration(max_time)

    from vocable.training.vocoder import VocoderTrainer, vocoder_recipe

    plan = vocoder_recipe(units, manifest=manifest, seed=seed)
    folder = out or units / "vocoder"

    def make(bar: Progress) -> VocoderTrainer:
        reading = bar.add_task("reading audio", total=None)
        trainer = VocoderTrainer(plan, folder, max_time=seconds, on_load=lambda s: bar.advance(reading, s))
        bar.remove_task(reading)
        return trainer

    summary = _run(make, plan, folder, resume, ("total", "mel"))
    if summary:
        typer.echo(f"trained a vocoder: {summary['steps']} steps in {summary['seconds']} s; in {units}", err=True)


@app.command()
def report(
    runs: list[Path] = typer.Argument(metavar="RUN...", help="Folders of runs, finished or not."),
    out: Path = typer.Option(None, "-o", "--out", help="The page, .html (default: report.html in the first run)."),
) -> None:
    """Plot the curves of runs in common panels: a PNG, and an HTML page with last figures and recipe differences."""
    from vocable.training.report import write_report

    out = out or runs[0] / "report.html"
    picture = write_report(runs, out)
    typer.echo(f"curves of {len(runs)} run{'s' * (len(runs) > 1)} in {out} and {picture}", err=True)


def _run(
    make: Callable[[Progress], Trainer], plan: Any, folder: Path, resume: bool, shown: Sequence[str]
) -> dict[str, Any] | None:
    """Begin or resume a run and show its progress; return its summary, in the first process only.

    plan: the recipe. shown: the figures of the log that the progress bar shows.
    """
    from vocable.lock import one_at_a_time
    from vocable.training.loop import changed_fields_of_run, refuse
    from vocable.training.stop import Interrupted

    first = os.environ.get("RANK", "0") == "0"  # whether this is the first process that accelerate or torchrun started
    begun = (folder / "state.safetensors").exists()
    if begun and first:
        with one_at_a_time(folder):  # refuses a second run before it reads its data; the run takes the lock again
            pass
    if begun and not resume:
        raise ValueError(f"{folder} holds a run already: resume it with --resume, or name another folder with -o")
    if resume and not begun:
        raise ValueError(f"{folder} holds no run to resume; leave out --resume to begin one")
    if resume:
        refuse(changed_fields_of_run(folder, plan), folder)  # before the data are read, which can take minutes
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
                typer.echo(f"vocable: {stopped}: saved at step {trainer.step}; resume with --resume", err=True)
            raise typer.Exit(128 + stopped.signal) from None
    return summary if first else None
