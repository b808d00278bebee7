"""The commands `vocable eval`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vocable.cli.results import print_table, run_suite, select

if TYPE_CHECKING:
    from vocable.page import Cell

app = typer.Typer(help="Measure tokenizers: tables with intervals, and a page with players.", no_args_is_help=True)

MANIFEST = typer.Argument(help="A JSONL manifest.")
OUT = typer.Option(..., "-o", "--out", help="The folder of the results; an interrupted run resumes in it.")
CORPUS = typer.Option(None, help="Only the clips of this corpus.")
LIMIT = typer.Option(None, min=1, help="The number of clips, chosen at even distances.")
JUDGES = typer.Option(
    Path(".cache/models"), help="The folder of the metrics' models; models that it lacks are loaded from the hub."
)
ASR = typer.Option("base", help="Size of the Whisper model, or a CTranslate2 folder.")
WAVLM = typer.Option(None, help="WavLM x-vector model for voice similarity, as in the paper: a folder or hub id.")
LISTEN = typer.Option(6, help="The number of clips that the page plays.")
JOBS = typer.Option(2, help="Number of processes of one thread each.")
SEED = typer.Option(0, min=0, max=2**32 - 1, help="Seed of intervals, pairs and synthetic speech.")


@app.callback()
def _eval() -> None:
    pass


@app.command()
def reconstruction(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option(None, help="Tokenizers, for example fast@:8,encodec:facebook/encodec_24khz."),
    metrics: str = typer.Option(None, help="Metrics, for example pesq,wer; `vocable eval metrics` lists them."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    judges: Path = JUDGES,
    asr: str = ASR,
    wavlm: str = typer.Option(None, help="The model of the metric speaker-wavlm: a folder or a hub id."),
    utmos: str = typer.Option(None, help="The model of the metric utmos: a folder or a GitHub repository."),
    trust_utmos: bool = typer.Option(
        False, "--trust-utmos", help="Let the metric utmos download and run the code of its GitHub repository."
    ),
    listen: int = LISTEN,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure reconstruction: recordings, tokenizers at several bitrates, Opus and Codec 2."""
    from vocable.evaluation.metrics import Judges
    from vocable.evaluation.reconstruction import DEFAULT_METRICS, SYSTEMS, Reconstruction

    suite = Reconstruction(
        select(manifest, corpus=corpus, limit=limit),
        systems=systems.split(",") if systems else SYSTEMS,
        metrics=metrics.split(",") if metrics else DEFAULT_METRICS,
        judges=Judges(judges, asr, wavlm or Judges.wavlm, utmos or Judges.utmos, trust_utmos),
        listen=listen,
        seed=seed,
    )
    run_suite(suite, out, jobs=jobs)


@app.command()
def slmtokbench(
    train: Path = typer.Argument(help="A JSONL manifest to train the probe on; clips without text are left out."),
    test: Path = typer.Argument(help="A JSONL manifest of other speakers."),
    out: Path = OUT,
    systems: str = typer.Option(None, help="Tokenizers, for example fast@:1,models/twin@:1,units:FOLDER."),
    twin: str = typer.Option(None, help="A system without a teacher, such as models/twin, to test the paper's claims."),
    train_corpus: str = typer.Option(None, help="Only the training clips of this corpus."),
    corpus: str = CORPUS,
    train_limit: int = typer.Option(None, min=1, help="The number of training clips, chosen at even distances."),
    limit: int = LIMIT,
    seconds: float = typer.Option(600.0, help="CPU time for training each probe."),
    hidden: int = typer.Option(256, help="Hidden channels of the probe's BiLSTM (the paper: 1024)."),
    layers: int = typer.Option(1, help="Layers of the probe's BiLSTM (the paper: 2)."),
    judges: Path = JUDGES,
    asr: str = ASR,
    wavlm: str = WAVLM,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure how suitable tokenizers are for speech language models: text alignment and preserved information."""
    from vocable.evaluation.alignment import Budget
    from vocable.evaluation.metrics import Judges
    from vocable.evaluation.slmtokbench import SYSTEMS, SLMTokBench

    suite = SLMTokBench(
        select(train, corpus=train_corpus, limit=train_limit),
        select(test, corpus=corpus, limit=limit),
        systems=systems.split(",") if systems else SYSTEMS,
        twin=twin,
        judges=Judges(judges, asr, wavlm or Judges.wavlm),
        similarity="speaker-wavlm" if wavlm else "speaker",
        budget=Budget(seconds, hidden, layers),
        seed=seed,
    )
    run_suite(suite, out, jobs=jobs)


@app.command()
def conversion(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    system: str = typer.Option("fast", help="A codec."),
    models: Path = typer.Option(None, help="RUN/model of `vocable train lm`, to measure conversion by its NAR too."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    judges: Path = JUDGES,
    asr: str = ASR,
    wavlm: str = WAVLM,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure one-shot voice conversion: words and voice by the number of swapped layers."""
    from vocable.evaluation.conversion import Conversion
    from vocable.evaluation.metrics import Judges
    from vocable.evaluation.pairs import pair_with_others

    suite = Conversion(
        pair_with_others(select(manifest, corpus=corpus, limit=limit), select(manifest, corpus=corpus), seed=seed),
        system=system,
        models=models,
        judges=Judges(judges, asr, wavlm or Judges.wavlm),
        similarity="speaker-wavlm" if wavlm else "speaker",
        seed=seed,
    )
    run_suite(suite, out, jobs=jobs)


@app.command()
def tts(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option(..., help="Folders of `vocable train lm`: RUN/model, or RUN/model@CODEC."),
    prompts: Path = typer.Option(None, help="A manifest to take voices from (default: the speakers' other clips)."),
    metrics: str = typer.Option(None, help="Metrics that need no reference of the same length, such as wer,per."),
    takes: int = typer.Option(8, min=1, help="Takes of each sentence; the best one is used."),
    words: int = typer.Option(
        None, min=1, help="Number of words of each text to speak, from its start (default: all)."
    ),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    judges: Path = JUDGES,
    asr: str = ASR,
    listen: int = LISTEN,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure text to speech in the voice of a prompt, with recordings, the codec, and the NAR on true RVQ-1."""
    from vocable.evaluation.metrics import Judges
    from vocable.evaluation.pairs import pair_with_prompts
    from vocable.evaluation.tts import DEFAULT_METRICS, TextToSpeech

    clips = select(manifest, corpus=corpus, limit=limit)
    voices = select(prompts) if prompts else select(manifest, corpus=corpus)
    pairs, unspoken = pair_with_prompts(clips, voices, seed=seed)
    suite = TextToSpeech(
        pairs,
        systems=systems.split(","),
        metrics=metrics.split(",") if metrics else DEFAULT_METRICS,
        judges=Judges(judges, asr),
        unspoken=unspoken,
        takes=takes,
        words=words,
        listen=listen,
        seed=seed,
    )
    run_suite(suite, out, jobs=jobs)


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
    """Measure the use of codebooks: entries, perplexity, bits after entropy coding."""
    from vocable.evaluation.codes import Codes

    clips = select(manifest, corpus=corpus, limit=limit)
    run_suite(Codes(clips, systems=systems.split(","), seed=seed), out, jobs=jobs)


@app.command()
def disentanglement(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("fast", help="Codecs, for example fast,models/twin."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure which layers contain the speaker, the phone, its pitch and loudness."""
    from vocable.evaluation.disentanglement import Disentanglement

    clips = select(manifest, corpus=corpus, limit=limit)
    run_suite(Disentanglement(clips, systems=systems.split(","), seed=seed), out, jobs=jobs)


@app.command()
def crosslingual(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    english: Path = typer.Option(..., help="A manifest of English clips to compare with, and to take voices from."),
    systems: str = typer.Option("recording,fast@:8,fast@:4,fast@:1", help="Tokenizers."),
    system: str = typer.Option("fast", help="The codec that converts voices."),
    limit: int = typer.Option(None, min=1, help="The number of clips of each manifest, chosen at even distances."),
    judges: Path = JUDGES,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure reconstruction and conversion by language, with a multilingual recognizer."""
    from vocable.evaluation.crosslingual import Crosslingual
    from vocable.evaluation.metrics import Judges

    suite = Crosslingual(
        select(manifest, limit=limit),
        english=select(english, limit=limit),
        systems=systems.split(","),
        system=system,
        judges=Judges(judges, asr),
        seed=seed,
    )
    run_suite(suite, out, jobs=jobs)


@app.command()
def speakers(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("recording,fast@:8", help="Tokenizers."),
    corpus: str = CORPUS,
    limit: int = LIMIT,
    judges: Path = JUDGES,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure reconstruction by groups of speakers: pitch, rate, and every other column of the manifest."""
    from vocable.evaluation.metrics import Judges
    from vocable.evaluation.speakers import Speakers, read_columns

    suite = Speakers(
        select(manifest, corpus=corpus, limit=limit),
        columns=read_columns(manifest),
        systems=systems.split(","),
        judges=Judges(judges, asr),
        seed=seed,
    )
    run_suite(suite, out, jobs=jobs)


@app.command()
def longform(
    manifest: Path = MANIFEST,
    out: Path = OUT,
    systems: str = typer.Option("recording,fast@:8", help="Tokenizers."),
    judges: Path = JUDGES,
    asr: str = ASR,
    jobs: int = JOBS,
    seed: int = SEED,
) -> None:
    """Measure reconstruction of whole long recordings by position."""
    from vocable.evaluation.longform import Longform
    from vocable.evaluation.metrics import Judges

    suite = Longform(select(manifest), systems=systems.split(","), judges=Judges(judges, asr), seed=seed)
    run_suite(suite, out, jobs=jobs)


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
    """Measure the percentage of codes that do not change under noise, echo, clipping, a telephone band, and gain."""
    from vocable.evaluation.robustness import Robustness

    clips = select(manifest, corpus=corpus, limit=limit)
    run_suite(Robustness(clips, systems=systems.split(","), seed=seed), out, jobs=jobs)


@app.command()
def compare(
    a: str = typer.Argument(
        help="FOLDER:SYSTEM of a suite's results, such as results/ours:fast@:1; X+Y joins two systems to one."
    ),
    b: str = typer.Argument(help="The other system, on the same clips."),
    seed: int = SEED,
) -> None:
    """Compare two systems on the same clips: differences with intervals and p-values."""
    from vocable.evaluation import compare as comparison

    (folder_a, system_a), (folder_b, system_b) = map(_folder_and_system, (a, b))
    figures = comparison.compare((folder_a, system_a), (folder_b, system_b), seed=seed)
    print_table(*comparison.table(figures))
    typer.echo(f"A: {system_a} of {folder_a}; B: {system_b} of {folder_b}.")


def _folder_and_system(text: str) -> tuple[Path, str]:
    """Split FOLDER:SYSTEM at the first colon that is not a Windows drive's."""
    drive, rest = os.path.splitdrive(text)
    folder, _, system = rest.partition(":")
    return Path(drive + folder), system


@app.command()
def diagnose(
    results: Path = typer.Argument(
        help="A folder of `vocable eval reconstruction`, with recording, NAME@:1 and NAME@:8."
    ),
) -> None:
    """Diagnose a codec from its figures."""
    from vocable.evaluation.diagnose import diagnose
    from vocable.evaluation.summary import read_summary

    for finding in diagnose(read_summary(results)):
        typer.echo(finding)


@app.command()
def metrics() -> None:
    """List the metrics: range, direction, needs, licence, source."""
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
