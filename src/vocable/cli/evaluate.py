"""vocable eval"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from vocable.corpus.manifest import Utterance

app = typer.Typer(help="Measure tokenizers: tables with intervals, and a page to hear and see.", no_args_is_help=True)

MANIFEST = typer.Argument(help="A JSONL manifest.")
OUT = typer.Option(..., "-o", "--out", help="The results' folder; an interrupted run goes on in it.")
CORPUS = typer.Option(None, help="Only the clips of this corpus.")
LIMIT = typer.Option(None, help="So many clips, at even distances.")
MODELS = typer.Option(Path(".cache/models"), help="Holds asr/whisper-base and the like; else they come from the hub.")
ASR = typer.Option("base", help="Whisper's size, or a CTranslate2 folder.")
JOBS = typer.Option(2, help="Processes, of one thread each.")
SEED = typer.Option(0, help="Of the intervals' resampling.")


@app.callback()
def _eval() -> None:
    pass


@app.command()
def reconstruction(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option(None, help="Tokenizers, as fast@:8,encodec:facebook/encodec_24khz,opus:6."),
    metrics: str = typer.Option(None, help="As pesq,stoi,wer; `vocable eval metrics` lists them."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    models: Path = MODELS,
    asr: str = ASR,
    listen: int = typer.Option(6, help="Clips to hear on the page."),
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """How much of speech survives: recordings, tokenizers at several bitrates, Opus and Codec 2."""
    from vocable.evaluation import reconstruction as suite
    from vocable.evaluation.metrics import Models

    clips = select(manifest, corpus, limit)
    summary = with_bar(
        "reconstruction",
        len(clips),
        lambda progress: suite.evaluate(
            clips,
            out,
            systems=systems.split(",") if systems else suite.SYSTEMS,
            metrics=metrics.split(",") if metrics else suite.DEFAULT_METRICS,
            models=Models(models, asr),
            jobs=jobs,
            seed=seed,
            listen=listen,
            progress=progress,
        ),
    )
    show(*suite.figures_table(summary), suite.notes(summary))
    finish(summary, out)


@app.command()
def slmtokbench(
    train: Path = typer.Argument(help="A JSONL manifest to train the probe on; clips without text are left out."),
    test: Path = typer.Argument(help="A JSONL manifest of other speakers."),
    out: Path = OUT,
    systems: str = typer.Option(None, help="Tokenizers, as fast@:1,models/twin@:1,units:FOLDER."),
    train_corpus: str = typer.Option(None, help="Only the training clips of this corpus."),
    corpus: str = CORPUS,
    train_limit: int = typer.Option(None, help="So many training clips, at even distances."),
    limit: int = LIMIT,
    seconds: float = typer.Option(600.0, help="CPU time that each probe is trained for."),
    hidden: int = typer.Option(256, help="Of the probe's BiLSTM; the paper's: 1024."),
    layers: int = typer.Option(1, help="Of the probe's BiLSTM; the paper's: 2."),
    models: Path = MODELS,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Is a tokenizer fit for language models of speech? Text alignment, information, preservation."""
    from vocable.evaluation import slmtokbench as suite
    from vocable.evaluation.metrics import Models

    training, testing = select(train, train_corpus, train_limit), select(test, corpus, limit)
    with stages() as progress:
        summary = suite.evaluate(
            training,
            testing,
            out,
            systems=systems.split(",") if systems else suite.SYSTEMS,
            models=Models(models, asr),
            budget=suite.Budget(seconds, hidden, layers),
            jobs=jobs,
            seed=seed,
            progress=progress,
        )
    for table in suite.tables(summary).values():
        show(*table, [])
    for line in suite.notes(summary):
        typer.echo(line)
    finish(summary, out)


@app.command()
def conversion(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    system: str = typer.Option("fast", help="A SpeechTokenizer."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    models: Path = MODELS,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """One-shot voice conversion by layer swap: words, and whom it sounds like, with more and more of a reference."""
    from vocable.evaluation import conversion as suite
    from vocable.evaluation.metrics import Models

    clips = select(manifest, corpus, None)
    pairs = suite.pair_up(select(manifest, corpus, limit), clips, seed)
    summary = with_bar(
        "conversion",
        len(pairs),
        lambda progress: suite.evaluate(
            pairs, out, system=system, models=Models(models, asr), jobs=jobs, seed=seed, progress=progress
        ),
    )
    show(*suite.table(summary), [])
    finish(summary, out)


@app.command()
def disentanglement(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("fast", help="SpeechTokenizers, as fast,models/twin."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    seed: int = SEED,
) -> None:
    """Which layers know who speaks, which phone it is, its pitch and loudness."""
    from vocable.evaluation import disentanglement as suite

    clips = select(manifest, corpus, limit)
    with stages() as progress:
        summary = suite.evaluate(clips, out, systems=systems.split(","), seed=seed, progress=progress)
    show(*suite.table(summary["systems"], summary["chance"]), [])
    finish(summary, out)


@app.command()
def crosslingual(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    english: Path = typer.Option(None, help="A manifest to set beside it."),
    systems: str = typer.Option("recording,fast@:8,fast@:4,fast@:1", help="Tokenizers."),
    limit: int = LIMIT,
    models: Path = MODELS,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Reconstruction by language, with a multilingual recogniser."""
    from vocable.evaluation import groups
    from vocable.evaluation.metrics import Models

    clips = select(manifest, None, limit) + (select(english, None, limit) if english else [])
    values = {clip.id: {"language": clip.language or groups.UNKNOWN} for clip in clips}
    run_groups(
        "crosslingual",
        clips,
        values,
        out,
        systems=systems.split(","),
        metrics=groups.CROSSLINGUAL_METRICS,
        models=Models(models, asr),
        hear=True,
        jobs=jobs,
        seed=seed,
        remarks=[
            "Where a clip has no text, what the same recogniser hears in the recording stands for it.",
            f"Read {', '.join(groups.BY_CHARACTERS)} by characters (CER): Whisper base cannot be held to their words.",
        ],
    )


@app.command()
def speakers(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("recording,fast@:8", help="Tokenizers."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    models: Path = MODELS,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Reconstruction by kinds of speakers: corpus, pitch, rate, and every other column of the manifest."""
    from vocable.evaluation import groups
    from vocable.evaluation.metrics import Models

    clips = select(manifest, corpus, limit)
    columns = groups.columns(manifest)
    with stages() as progress:
        done = iter(range(1, len(clips) + 1))
        measured = groups.measured_columns(clips, lambda: progress("measuring pitch and rate", next(done) / len(clips)))
    values = {
        clip.id: {k: v for k, v in columns[clip.id].items() if k != "speaker"} | measured.get(clip.id, {})
        for clip in clips
    }
    run_groups(
        "speakers",
        clips,
        values,
        out,
        systems=systems.split(","),
        metrics=groups.SPEAKER_METRICS,
        models=Models(models, asr),
        jobs=jobs,
        seed=seed,
        remarks=[
            "A manifest tells of its own speakers alone. That of this project has no child, elderly or impaired speech."
        ],
    )


@app.command()
def longform(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("recording,fast@:8", help="Tokenizers."),
    models: Path = MODELS,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Long recordings in one piece: quality by position."""
    from vocable.evaluation import longform as suite
    from vocable.evaluation.metrics import Models

    clips = select(manifest, None, None)
    summary = with_bar(
        "longform",
        len(clips),
        lambda progress: suite.evaluate(
            clips, out, systems=systems.split(","), models=Models(models, asr), jobs=jobs, seed=seed, progress=progress
        ),
    )
    show(*suite.table(summary), suite.notes(summary))
    finish(summary, out)


@app.command()
def robustness(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("fast", help="Tokenizers."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """The share of codes that stay under noise, echo, clipping, a telephone band, and gain."""
    from vocable.evaluation import robustness as suite

    clips = select(manifest, corpus, limit)
    summary = with_bar(
        "robustness",
        len(clips),
        lambda progress: suite.evaluate(
            clips, out, systems=systems.split(","), jobs=jobs, seed=seed, progress=progress
        ),
    )
    for table in suite.tables(summary).values():
        show(*table, [])
    finish(summary, out)


@app.command()
def compare(
    a: str = typer.Argument(help="FOLDER:SYSTEM, of a suite's results: results/ours:fast@:1"),
    b: str = typer.Argument(help="The other, on the same clips."),
    manifest: Path = typer.Option(..., help="The manifest of the clips: it knows their speakers."),
    seed: int = SEED,
) -> None:
    """Two systems on the same clips: differences, with intervals and p."""
    from vocable.corpus.manifest import read_manifest
    from vocable.evaluation import compare as suite

    (first, second) = (text.partition(":") for text in (a, b))
    figures = suite.compare((Path(first[0]), first[2]), (Path(second[0]), second[2]), read_manifest(manifest), seed)
    show(*suite.table(figures), [f"A: {first[2]} of {first[0]}; B: {second[2]} of {second[0]}."])


@app.command()
def diagnose(
    results: Path = typer.Argument(
        help="A folder of `vocable eval reconstruction`, with recording, NAME@:1 and NAME@:8."
    ),
) -> None:
    """What is wrong with a codec, by its figures."""
    from vocable.evaluation import diagnose as suite
    from vocable.evaluation.runner import read_summary

    for finding in suite.diagnose(read_summary(results)):
        typer.echo(finding)


@app.command()
def metrics() -> None:
    """The metrics: range, direction, licence, source."""
    from vocable.evaluation.metrics import METRICS

    rows: list[list[str | tuple[str, str]]] = [
        [m.name, m.label, f"{m.bounds[0]:g} to {m.bounds[1]:g}", m.better, ", ".join(m.packages), m.licence, m.citation]
        for m in METRICS.values()
    ]
    show(["name", "metric", "range", "better", "packages", "licence", "source"], rows, [])


# ---- what the suites share -------------------------------------------------------------------------------------------


def select(manifest: Path, corpus: str | None, limit: int | None) -> list[Utterance]:
    """The manifest's clips, those of one corpus, and of these `limit` at even distances (it is sorted by speaker)."""
    from vocable.corpus.manifest import read_manifest

    clips = [clip for clip in read_manifest(manifest) if corpus in (None, clip.corpus)]
    if not clips:
        raise ValueError(f"{manifest}: no clip of the corpus {corpus!r}")
    count = max(1, min(limit or len(clips), len(clips)))
    return [clips[i * len(clips) // count] for i in range(count)]


def with_bar(name: str, total: int, work: Callable[[Callable[[str | None], None]], dict[str, Any]]) -> dict[str, Any]:
    """`work`, given what it calls after each item: a bar moves, and an item's error is a line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)

        def progress(error: str | None) -> None:
            if error:
                console.print(f"vocable: {error}", markup=False, highlight=False, soft_wrap=True)
            bar.advance(task)

        return work(progress)


def run_groups(
    suite: str, clips: list[Utterance], values: dict[str, dict[str, str]], out: Path, **options: Any
) -> None:
    """A suite of `evaluation.groups`: its bar, its tables."""
    from vocable.evaluation import groups

    summary = with_bar(
        suite, len(clips), lambda progress: groups.evaluate(suite, clips, values, out, progress=progress, **options)
    )
    for table in groups.tables(summary).values():
        show(*table, [])
    for line in groups.notes(summary):
        typer.echo(line)
    finish(summary, out)


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str, float], None]]:
    """A bar for each stage of a suite, as it comes up."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        known: dict[str, Any] = {}

        def progress(stage: str, share: float) -> None:
            if stage not in known:
                known[stage] = bar.add_task(stage, total=1.0)
            bar.update(known[stage], completed=share)

        yield progress


def show(columns: list[str], rows: list[list[str | tuple[str, str]]], notes: list[str]) -> None:
    """A table on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 140)
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else f"{cell[0]}\n[dim]{cell[1]}" for cell in row))
    console.print(table)
    for line in notes:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def finish(summary: dict[str, Any], out: Path) -> None:
    """Where the results are; exit code 2 if clips were left out."""
    left_out = len(summary["left_out"])
    typer.echo(f"{summary['clips']} clips, {left_out} left out: {out}/index.html, {out}/summary.json", err=True)
    if left_out:
        raise typer.Exit(2)
