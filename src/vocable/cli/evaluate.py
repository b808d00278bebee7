"""vocable eval"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vocable.cli.results import evaluate, finish, print_table, select, show, stages

if TYPE_CHECKING:
    from vocable.evaluation.page import Cell

app = typer.Typer(help="Measure tokenizers: tables with intervals, and a page to hear and see.", no_args_is_help=True)

MANIFEST = typer.Argument(help="A JSONL manifest.")
OUT = typer.Option(..., "-o", "--out", help="The results' folder; an interrupted run goes on in it.")
CORPUS = typer.Option(None, help="Only the clips of this corpus.")
LIMIT = typer.Option(None, min=1, help="So many clips, at even distances.")
MODELS = typer.Option(Path(".cache/models"), help="Holds asr/whisper-base and the like; else they come from the hub.")
ASR = typer.Option("base", help="Whisper's size, or a CTranslate2 folder.")
WAVLM = typer.Option(None, help="Judge voices by this WavLM x-vector model, a folder or hub id (the paper's way).")
JOBS = typer.Option(2, help="Processes, of one thread each.")
SEED = typer.Option(0, help="Of the intervals' resampling, and of what is drawn: pairs, speech from text.")


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
    wavlm: str = typer.Option(None, help="The model of the metric speaker-wavlm: a folder or a hub id."),
    utmos: str = typer.Option(None, help="The model of the metric utmos: a folder or a GitHub repository."),
    trust_utmos: bool = typer.Option(
        False, "--trust-utmos", help="Let the metric utmos download and run the code of its GitHub repository."
    ),
    listen: int = typer.Option(6, help="Clips to hear on the page."),
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """How much of speech survives: recordings, tokenizers at several bitrates, Opus and Codec 2."""
    from vocable.evaluation import reconstruction as suite
    from vocable.evaluation.metrics import Models

    clips = select(manifest, corpus, limit)
    with stages() as progress:
        summary = suite.evaluate(
            clips,
            out,
            systems=systems.split(",") if systems else suite.SYSTEMS,
            metrics=metrics.split(",") if metrics else suite.DEFAULT_METRICS,
            models=Models(models, asr, wavlm or Models.wavlm, utmos or Models.utmos, trust_utmos),
            jobs=jobs,
            seed=seed,
            listen=listen,
            progress=progress,
        )
    finish(suite, summary, out)


@app.command()
def slmtokbench(
    train: Path = typer.Argument(help="A JSONL manifest to train the probe on; clips without text are left out."),
    test: Path = typer.Argument(help="A JSONL manifest of other speakers."),
    out: Path = OUT,
    systems: str = typer.Option(None, help="Tokenizers, as fast@:1,models/twin@:1,units:FOLDER,opus:6."),
    twin: str = typer.Option(None, help="The one among them without a teacher, models/twin: the paper's claims."),
    train_corpus: str = typer.Option(None, help="Only the training clips of this corpus."),
    corpus: str = CORPUS,
    train_limit: int = typer.Option(None, min=1, help="So many training clips, at even distances."),
    limit: int = LIMIT,
    seconds: float = typer.Option(600.0, help="CPU time that each probe is trained for."),
    hidden: int = typer.Option(256, help="Of the probe's BiLSTM; the paper's: 1024."),
    layers: int = typer.Option(1, help="Of the probe's BiLSTM; the paper's: 2."),
    models: Path = MODELS,
    asr: str = ASR,
    wavlm: str = WAVLM,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Is a tokenizer fit for language models of speech? Text alignment, information, preservation."""
    from vocable.evaluation import slmtokbench as suite
    from vocable.evaluation.alignment import Budget
    from vocable.evaluation.metrics import Models

    training, testing = select(train, train_corpus, train_limit), select(test, corpus, limit)
    with stages() as progress:
        summary = suite.evaluate(
            training,
            testing,
            out,
            systems=systems.split(",") if systems else suite.SYSTEMS,
            twin=twin,
            models=Models(models, asr, wavlm or Models.wavlm),
            similarity="speaker-wavlm" if wavlm else "speaker",
            budget=Budget(seconds, hidden, layers),
            jobs=jobs,
            seed=seed,
            progress=progress,
        )
    finish(suite, summary, out)


@app.command()
def conversion(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    system: str = typer.Option("fast", help="A SpeechTokenizer."),
    nar: Path = typer.Option(None, help="A folder of `vocable train lm`, RUN/model, whose NAR converts too."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    models: Path = MODELS,
    asr: str = ASR,
    wavlm: str = WAVLM,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """One-shot voice conversion: words, and whom it sounds like, with more and more of a reference."""
    from vocable.evaluation import conversion as suite
    from vocable.evaluation.metrics import Models

    pairs = suite.pair_up(select(manifest, corpus, limit), select(manifest, corpus, None), seed)
    with stages() as progress:
        summary = suite.evaluate(
            pairs,
            out,
            system=system,
            speech_models=nar,
            models=Models(models, asr, wavlm or Models.wavlm),
            similarity="speaker-wavlm" if wavlm else "speaker",
            jobs=jobs,
            seed=seed,
            progress=progress,
        )
    finish(suite, summary, out)


@app.command()
def tts(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option(..., help="Folders of `vocable train lm`: RUN/model, or RUN/model@CODEC."),
    prompts: Path = typer.Option(None, help="A manifest to take voices from (default: the speakers' other clips)."),
    metrics: str = typer.Option(None, help="As wer,per; those that need no reference of the same length."),
    takes: int = typer.Option(8, min=1, help="Written for each sentence; the clearest is spoken."),
    words: int = typer.Option(None, min=1, help="Of each text, from its start, that the models speak (default: all)."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    models: Path = MODELS,
    asr: str = ASR,
    listen: int = typer.Option(6, help="Clips to hear on the page."),
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Speech from text in a prompt's voice, beside recordings, the codec, and the NAR on true RVQ-1."""
    from vocable.evaluation import tts as suite
    from vocable.evaluation.metrics import Models

    voices = select(prompts, None, None) if prompts else None
    pairs, unspoken = suite.pair_up(select(manifest, corpus, limit), voices or select(manifest, corpus, None), seed)
    with stages() as progress:
        summary = suite.evaluate(
            pairs,
            out,
            systems=systems.split(","),
            metrics=metrics.split(",") if metrics else suite.DEFAULT_METRICS,
            models=Models(models, asr),
            unspoken=unspoken,
            takes=takes,
            words=words,
            jobs=jobs,
            seed=seed,
            listen=listen,
            progress=progress,
        )
    finish(suite, summary, out)


@app.command()
def codes(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("fast", help="Tokenizers."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """How well codebooks are used: entries, perplexity, bits after entropy coding."""
    from vocable.evaluation import codes as suite

    evaluate(suite, select(manifest, corpus, limit), out, systems, jobs, seed)


@app.command()
def disentanglement(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("fast", help="SpeechTokenizers, as fast,models/twin."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Which layers know who speaks, which phone it is, its pitch and loudness."""
    from vocable.evaluation import disentanglement as suite

    evaluate(suite, select(manifest, corpus, limit), out, systems, jobs, seed)


@app.command()
def crosslingual(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    english: Path = typer.Option(..., help="A manifest of English to set beside it, and to take voices from."),
    systems: str = typer.Option("recording,fast@:8,fast@:4,fast@:1", help="Tokenizers."),
    system: str = typer.Option("fast", help="The SpeechTokenizer that converts voices."),
    limit: int = typer.Option(None, min=1, help="So many clips of each manifest, at even distances."),
    models: Path = MODELS,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Reconstruction and conversion by language, with a multilingual recogniser."""
    from vocable.evaluation import conversion, groups
    from vocable.evaluation.metrics import Models
    from vocable.evaluation.metrics.words import BY_CHARACTERS
    from vocable.evaluation.runner import is_complete, language_of

    at_home = select(english, None, limit)
    clips = select(manifest, None, limit) + at_home
    with stages() as progress:
        summary = groups.evaluate(
            "crosslingual",
            clips,
            {clip.id: {"language": language_of(clip) if clip.language else groups.UNKNOWN} for clip in clips},
            out,
            systems=systems.split(","),
            metrics=groups.CROSSLINGUAL_METRICS,
            models=Models(models, asr),
            hear=True,
            jobs=jobs,
            seed=seed,
            progress=progress,
            remarks=[
                f"Read {', '.join(BY_CHARACTERS)} by characters (CER): Whisper base cannot be held to their words."
            ],
        )
        converted = conversion.evaluate(
            conversion.pair_up(clips, at_home, seed),
            out / "conversion",
            system=system,
            models=Models(models, asr),
            jobs=jobs,
            seed=seed,
            progress=lambda _, share: progress("conversion", share),
        )
    show(conversion, converted)
    finish(groups, summary, out, complete=is_complete(converted))


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
    with stages() as progress:
        measured = groups.measured_columns(clips, out / "pitch", jobs, progress)
        columns = groups.columns(manifest)
        summary = groups.evaluate(
            "speakers",
            clips,
            {clip.id: columns[clip.id] | measured.get(clip.id, {}) for clip in clips},
            out,
            systems=systems.split(","),
            models=Models(models, asr),
            jobs=jobs,
            seed=seed,
            progress=progress,
            remarks=[
                "A manifest tells of its own speakers alone. The data that vocable was measured on has no child, "
                "elderly or impaired speech."
            ],
        )
    finish(groups, summary, out)


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
    with stages() as progress:
        summary = suite.evaluate(
            clips, out, systems=systems.split(","), models=Models(models, asr), jobs=jobs, seed=seed, progress=progress
        )
    finish(suite, summary, out)


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

    evaluate(suite, select(manifest, corpus, limit), out, systems, jobs, seed)


@app.command()
def compare(
    a: str = typer.Argument(help="FOLDER:SYSTEM of a suite's results: results/ours:fast@:1; or X+Y, as one."),
    b: str = typer.Argument(help="The other, on the same clips."),
    seed: int = SEED,
) -> None:
    """Two systems on the same clips: differences, with intervals and p."""
    from vocable.evaluation import compare as suite

    (folder_a, system_a), (folder_b, system_b) = map(_folder_and_system, (a, b))
    figures = suite.compare((folder_a, system_a), (folder_b, system_b), seed)
    print_table(*suite.table(figures))
    typer.echo(f"A: {system_a} of {folder_a}; B: {system_b} of {folder_b}.")


def _folder_and_system(text: str) -> tuple[Path, str]:
    """FOLDER:SYSTEM, split at the first colon that is not a Windows drive's."""
    drive, rest = os.path.splitdrive(text)
    folder, _, system = rest.partition(":")
    return Path(drive + folder), system


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
    """The metrics: range, direction, needs, licence, source."""
    from vocable.evaluation.metrics import METRICS

    rows: list[list[Cell]] = [
        [
            *(m.name, m.label, f"{m.bounds[0]:g} to {m.bounds[1]:g}", m.better),
            ", ".join([*["text"] * m.needs_text, *m.packages]),
            *(m.licence, m.citation),
        ]
        for m in METRICS.values()
    ]
    print_table(["name", "metric", "range", "better", "needs", "licence", "source"], rows)
