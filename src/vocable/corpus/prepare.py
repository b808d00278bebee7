"""Find the recordings of public corpora, and of folders of audio files, for a manifest.

Each corpus is a function that yields the recordings below a folder, with the speaker and text that the corpus gives.
The first line of its docstring is the layout of files that it expects: the error for a folder without recordings quotes
it. `recordings` calls such a function by its name, `measured` adds the durations.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.corpus.parallel import in_threads
from vocable.files import walk


def librispeech(root: Path, subsets: Sequence[str] = ()) -> Iterator[Utterance]:
    """SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac, texts in SPEAKER-CHAPTER.trans.txt beside them"""
    for folder in _below(root, subsets):
        for path in _audio_files(folder):
            if match := re.fullmatch(r"(\d+)-(\d+)-\d+", path.stem):
                texts = _librispeech_texts(path.with_name(f"{match[1]}-{match[2]}.trans.txt"))
                yield _utterance(path, "librispeech", match[1], texts.get(path.stem), "en")


def libritts(root: Path, subsets: Sequence[str] = ()) -> Iterator[Utterance]:
    """SUBSET/SPEAKER/CHAPTER/SPEAKER_CHAPTER_000000_000000.wav, each with a .normalized.txt"""
    for folder in _below(root, subsets):
        for path in _audio_files(folder):
            if match := re.fullmatch(r"(\d+)_\d+_\d+_\d+", path.stem):
                text = _text(path.with_name(f"{path.stem}.normalized.txt"))
                yield _utterance(path, "libritts", match[1], text, "en")


def vctk(root: Path, subsets: Sequence[str] = ()) -> Iterator[Utterance]:
    """wav48_silence_trimmed/p225/p225_001_mic1.flac (or the older wav48/p225/p225_001.wav), txt/p225/p225_001.txt

    The subsets are the two microphones, mic1 and mic2, which recorded the same words; the older layout has one.
    """
    if unknown := set(subsets) - {"mic1", "mic2"}:
        raise ValueError(f"the subsets of vctk are mic1 and mic2, not {min(unknown)!r}")
    for path in _audio_files(root / "wav48_silence_trimmed") or _audio_files(root / "wav48"):
        match = re.fullmatch(r"(([ps]\d+)_\d+)(?:_(mic[12]))?", path.stem)
        if match and (not subsets or match[3] in subsets):
            text = _text(root / "txt" / match[2] / f"{match[1]}.txt")
            yield _utterance(path, "vctk", match[2], text, "en")


def ljspeech(root: Path) -> Iterator[Utterance]:
    """wavs/LJ001-0001.wav, texts in metadata.csv"""
    rows = (line.rstrip("\n").split("|") for line in _lines(root / "metadata.csv"))
    texts = {row[0]: row[-1] for row in rows}  # the last column spells out numbers and abbreviations
    for path in _audio_files(root / "wavs"):
        yield _utterance(path, "ljspeech", "LJ", texts.get(path.stem), "en")


def commonvoice(root: Path, subsets: Sequence[str] = (), language: str | None = None) -> Iterator[Utterance]:
    """clips/*.mp3, listed in train.tsv, dev.tsv, test.tsv, validated.tsv (subsets train, dev, ...)

    subsets: default: all clips that listeners confirmed; `other` and `invalidated` can be named too. language: default:
    the locale in the lists, or the folder's name.
    """
    seen = set()
    for subset in subsets or ("train", "dev", "test", "validated"):
        if subset in subsets and not (root / f"{subset}.tsv").is_file():
            raise ValueError(f"{root}: no {subset}.tsv here")
        # Not the csv module: quotation marks in these files are part of the sentences.
        rows = (line.rstrip("\n").split("\t") for line in _lines(root / f"{subset}.tsv"))
        columns = next(rows, [])
        if columns and not {"path", "sentence", "client_id"} <= set(columns):
            raise ValueError(f"{root}/{subset}.tsv lists no clips: it has no columns path, sentence and client_id")
        for fields in rows:
            row = dict.fromkeys(columns, "") | dict(zip(columns, fields, strict=False))
            path = (root / "clips" / row["path"]).with_suffix(".mp3")
            if path not in seen:  # validated.tsv repeats the clips of train, dev and test
                seen.add(path)
                tag = language or row.get("locale") or root.name
                yield _utterance(path, "commonvoice", row["client_id"], row["sentence"], tag)


def folder(root: Path, speakers_from: str = "parent", language: str | None = None) -> Iterator[Utterance]:
    """audio files in any folders, the text of each, if there is one, in a .txt of the same name beside it

    speakers_from: "parent": the speaker is the name of the file's folder; "none": unknown.
    """
    if speakers_from not in ("parent", "none"):
        raise ValueError(f"--speakers-from is parent or none, not {speakers_from!r}")
    skipped: Counter[str] = Counter()
    for path in _audio_files(root, skipped):
        speaker = path.parent.name if speakers_from == "parent" else None
        found = _utterance(path, root.name, speaker, _text(path.with_suffix(".txt")), language)
        yield replace(found, id=path.relative_to(root).with_suffix("").as_posix())
    skipped.pop(".txt", None)
    if skipped:
        others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(skipped.items()))
        warnings.warn(f"{root}: files without a suffix of an audio format were ignored: {others}", stacklevel=3)


#: The function of each corpus, by the name that `vocable prepare` has for it.
CORPORA: dict[str, Callable[..., Iterator[Utterance]]] = {
    "librispeech": librispeech,
    "libritts": libritts,
    "vctk": vctk,
    "ljspeech": ljspeech,
    "commonvoice": commonvoice,
    "folder": folder,
}


def recordings(corpus: str, root: str | os.PathLike[str], **options: Any) -> list[Utterance]:
    """Return the recordings of a corpus of CORPORA below the folder `root`, with unique ids, and with durations of 0.

    options: those of the corpus's function. Raises ValueError for a folder that does not exist or holds no recordings.
    """
    if corpus not in CORPORA:
        raise ValueError(f"no corpus {corpus!r}; there are {', '.join(CORPORA)}")
    root = Path(root).resolve()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    found = list(CORPORA[corpus](root, **options))
    if not found:
        layout = (CORPORA[corpus].__doc__ or "").split("\n")[0]
        raise ValueError(f"{root}: no recordings found; the layout of {corpus} is {layout}")
    return with_unique_ids(found, root)


def measured(
    utterances: Iterable[Utterance], *, progress: Callable[[], None] = lambda: None
) -> tuple[list[Utterance], list[str]]:
    """Return the utterances with the durations of their files, and one line for each file that cannot be read.

    progress: called after each file.
    """
    readable, unreadable = [], []
    for utterance in in_threads(_measure, utterances):
        if isinstance(utterance, str):
            unreadable.append(utterance)
        else:
            readable.append(utterance)
        progress()
    return readable, unreadable


def read_source(source: Path, *, root: str | os.PathLike[str] | None = None) -> tuple[list[Utterance], list[str]]:
    """Return the utterances of a manifest or of a folder of audio files, and one line for each unreadable file.

    root: the folder that the paths of a manifest are relative to.
    """
    if source.is_dir():
        return measured(recordings("folder", source))
    return read_manifest(source, root=root), []


def with_unique_ids(utterances: Sequence[Utterance], root: Path) -> list[Utterance]:
    """Return the utterances with unique ids: an id that occurs twice is replaced by the path below `root`."""
    utterances, clashing = list(utterances), True
    while clashing:
        count = Counter(u.id for u in utterances)
        paths = [u.path.relative_to(root).as_posix() if count[u.id] > 1 else u.id for u in utterances]
        clashing = any(u.id != path for u, path in zip(utterances, paths, strict=True))
        utterances = [replace(u, id=path) for u, path in zip(utterances, paths, strict=True)]
    return utterances


def _measure(utterance: Utterance) -> Utterance | str:
    try:
        return replace(utterance, duration=round(audio.duration(utterance.path), 6))
    except (ValueError, OSError) as error:
        return str(error)


def _utterance(path: Path, corpus: str, speaker: str | None, text: str | None, language: str | None) -> Utterance:
    return Utterance(path.stem, path, 0.0, speaker or None, text or None, corpus, language)


def _below(root: Path, subsets: Sequence[str]) -> list[Path]:
    """Return the folders of the subsets, `root` if there are none. Raises ValueError for a subset without a folder."""
    for subset in subsets:
        if not (root / subset).is_dir():
            there = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "no folders"
            raise ValueError(f"{root}: no subset {subset!r} here; there are {there}")
    return [root / subset for subset in dict.fromkeys(subsets)] or [root]


def _audio_files(folder: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """Return the audio files below a folder, in order, and the folders that cannot be listed.

    skipped: counts the other files, by suffix.
    """
    found = []
    for path in walk(folder) if folder.is_dir() else ():
        if path.suffix.lower() in audio.SUFFIXES or path.is_dir():
            found.append(path)
        elif skipped is not None:
            skipped[path.suffix.lower()] += 1
    return found


@lru_cache(maxsize=1)  # the files of a chapter follow one another
def _librispeech_texts(path: Path) -> dict[str, str]:
    pairs = (line.strip().partition(" ") for line in _lines(path))
    return {name: text for name, _, text in pairs}


def _text(path: Path) -> str:
    """Return the text of a file on one line, "" if there is no file."""
    return " ".join(" ".join(_lines(path)).split())


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file; none if there is no file. Raises ValueError if it is not UTF-8."""
    if path.is_file():
        try:
            with open(path, encoding="utf-8-sig") as file:
                yield from file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8; convert it, or move it away") from error
