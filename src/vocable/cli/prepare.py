"""The commands `vocable prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocable.cli.bars import bars
from vocable.cli.messages import complain
from vocable.terminal import printable

if TYPE_CHECKING:
    from vocable.corpus.manifest import Utterance

app = typer.Typer(help="Make the manifest of a corpus, or check one.", no_args_is_help=True)

#: Number of names that are printed before "and n more".
FEW = 5

ROOT = typer.Argument(metavar="FOLDER", help="The corpus's folder.")
OUT = typer.Option(..., "-o", "--out", metavar="MANIFEST", help="The JSONL manifest to write.")
SUBSETS = typer.Option([], "--subset", help="Only this folder below FOLDER, such as train-clean-100; can be repeated.")
LANGUAGE = typer.Option(None, help="Language of the recordings, for the manifest: en, de, ...")


@app.command()
def librispeech(root: Path = ROOT, out: Path = OUT, subset: list[str] = SUBSETS) -> None:
    """Make a manifest of LibriSpeech."""
    _prepare("librispeech", root, out, subsets=subset)


@app.command()
def libritts(root: Path = ROOT, out: Path = OUT, subset: list[str] = SUBSETS) -> None:
    """Make a manifest of LibriTTS or LibriTTS-R."""
    _prepare("libritts", root, out, subsets=subset)


@app.command()
def vctk(
    root: Path = ROOT,
    out: Path = OUT,
    subset: list[str] = typer.Option([], help="mic1 or mic2 (default: both)."),
) -> None:
    """Make a manifest of VCTK 0.92, or of the older layout with wav48."""
    _prepare("vctk", root, out, subsets=subset)


@app.command()
def ljspeech(root: Path = ROOT, out: Path = OUT) -> None:
    """Make a manifest of LJ Speech."""
    _prepare("ljspeech", root, out)


@app.command()
def commonvoice(
    root: Path = typer.Argument(metavar="FOLDER", help="The folder of one language, with clips/ in it."),
    out: Path = OUT,
    subset: list[str] = typer.Option(
        [],
        help="Only this list: train, dev, test, validated, other, ...; can be repeated (default: all validated clips).",
    ),
    language: str = typer.Option(
        None, help="Language, for the manifest (default: the lists' locale, or FOLDER's name)."
    ),
) -> None:
    """Make a manifest of Common Voice."""
    _prepare("commonvoice", root, out, subsets=subset, language=language)


@app.command()
def folder(
    root: Path = typer.Argument(
        metavar="FOLDER", help="A folder of audio files, with texts in .txt files beside them."
    ),
    out: Path = OUT,
    speakers_from: str = typer.Option(
        "parent", help="parent: the speaker is the name of the file's folder; none: unknown."
    ),
    language: str = LANGUAGE,
) -> None:
    """Make a manifest of a folder of recordings."""
    _prepare("folder", root, out, speakers_from=speakers_from, language=language)


@app.command()
def huggingface(
    name: str = typer.Argument(metavar="NAME", help="A dataset's hub id, or a local folder."),
    out: Path = typer.Option(..., "-o", "--out", help="The folder to write; an interrupted run is resumed in it."),
    split: str = typer.Option(..., help="Split of the dataset: train, validation, ..."),
    config: str = typer.Option(None, help="Configuration of the dataset, if it has several."),
    audio_column: str = typer.Option(None, help="Column of the audio (default: audio, ...)."),
    text_column: str = typer.Option(None, help="Column of the text (default: text, sentence, transcript, ...)."),
    speaker_column: str = typer.Option(None, help="Column of the speaker (default: speaker_id, speaker, ...)."),
    id_column: str = typer.Option(None, help="Column of the id (default: id, ..., or the row's number)."),
    language: str = LANGUAGE,
    sample_rate: int = typer.Option(
        None, help="Sample rate of the FLAC files in Hz, such as 16000 (default: each file's own)."
    ),
) -> None:
    """Import a Hugging Face dataset.

    The split is read as a stream, and written as FLAC files and manifest.jsonl.
    """
    from vocable.corpus import hub

    named = {"audio": audio_column, "text": text_column, "speaker": speaker_column, "id": id_column}
    columns = {field: column for field, column in named.items() if column}
    with _bar(f"{name}, {split}", None) as advance:
        utterances, unreadable = hub.import_dataset(
            name,
            out=out,
            split=split,
            config=config,
            columns=columns,
            language=language,
            sample_rate=sample_rate,
            progress=advance,
        )
    _sum_up(utterances, unreadable, out / "manifest.jsonl")


@app.command()
def check(
    manifest: Path = typer.Argument(help="A JSONL manifest."),
    out: Path = typer.Option(
        None, "-o", "--out", help="Write a JSON report; an interrupted check with the same report is resumed."
    ),
    clean: Path = typer.Option(None, metavar="MANIFEST", help="Write a manifest of the good recordings."),
    min_seconds: float = typer.Option(0.5, help="Report recordings that are shorter."),
) -> None:
    """Decode every recording, and report the bad ones.

    A recording is bad if it is unreadable, silent, clipped, too short, a duplicate, or of another length than the
    manifest says. The exit code is 0 if all recordings are good, 2 if some are bad.
    """
    from vocable.corpus import check as checking
    from vocable.corpus.manifest import read_manifest, write_manifest

    utterances = read_manifest(manifest)
    hours = sum(u.duration for u in utterances) / 3600
    journal = out.with_name(f".{out.name}.partial") if out else None
    with _bar(f"{hours:.1f} h of speech", len(utterances)) as advance:
        found = checking.check(utterances, min_seconds=min_seconds, journal=journal, progress=advance)
    for problem, named in found.items():
        names = [utterance.id for utterance, _ in named]
        more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
        few = printable(", ".join(names[:FEW]))
        typer.echo(f"{problem.replace('_', ' '):14} {len(names):8}  {few}{more}".rstrip())
    good = checking.clean(utterances, found)
    if out:
        checking.write_report(out, utterances, found)
    if clean:
        write_manifest(clean, good)
    if journal:
        journal.unlink(missing_ok=True)
    typer.echo(f"{len(utterances)} utterances, {hours:.2f} h: {len(good)} are good", err=True)
    if len(good) < len(utterances):
        raise typer.Exit(2)


def _prepare(corpus: str, root: Path, out: Path, **options: Any) -> None:
    """Write the manifest of a corpus of `vocable.corpus.prepare`."""
    from vocable.corpus import prepare
    from vocable.corpus.manifest import write_manifest

    found = prepare.recordings(corpus, root, **options)
    with _bar(f"{len(found)} files", len(found)) as advance:
        utterances, unreadable = prepare.measured(found, progress=advance)
    if not utterances:
        raise ValueError(f"{root}: none of {len(found)} files is readable; the first: {unreadable[0]}")
    write_manifest(out, utterances)
    _sum_up(utterances, unreadable, out)


def _sum_up(utterances: Sequence[Utterance], unreadable: Sequence[str], out: Path) -> None:
    """Print the totals of a manifest and the files that were left out; exit with code 2 if there are any."""
    for reason in unreadable[:FEW]:
        complain(reason)
    if len(unreadable) > FEW:
        complain(f"and {len(unreadable) - FEW} more files that were left out")
    hours = sum(u.duration for u in utterances) / 3600
    speakers = len({u.speaker for u in utterances if u.speaker is not None})
    texts = sum(u.text is not None for u in utterances)
    summary = f"{len(utterances)} utterances, {hours:.2f} h, {speakers} speakers, {texts} with text"
    typer.echo(f"{summary}, in {out}", err=True)
    if unreadable:
        raise typer.Exit(2)


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show a progress bar; yields the function that advances it by one file."""
    with bars(counted=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
