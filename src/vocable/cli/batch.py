"""Apply a function to many files: output names, a progress bar, errors of single files, a summary."""

from __future__ import annotations

import glob
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from vocable.cli.bars import bars
from vocable.cli.messages import one_line
from vocable.cli.pipes import STANDARD, incoming, is_pipe, outgoing
from vocable.files import UNWRITABLE, walk
from vocable.terminal import printable


@dataclass(frozen=True)
class FilePairs:
    """Input files and their output files."""

    pairs: dict[Path, Path]  #: input file -> output file
    suffix: str  #: suffix of the format that is written to a pipe
    ignored: Counter[str] = field(default_factory=Counter)  #: number of other files in the folders, by suffix


def pair_files(inputs: Sequence[str], out: Path, suffixes: Collection[str], out_suffixes: Sequence[str]) -> FilePairs:
    """Choose the output files of inputs: files, folders (searched for files with `suffixes`), globs or pipes.

    out: for one input file, a file with one of `out_suffixes`, or a pipe; otherwise a folder. Output files in a folder
    get the first of `out_suffixes`, after the input's own suffix if two names would otherwise be the same. Raises
    ValueError if there are no input files, or an output would replace an input.
    """
    found: dict[Path, Path] = {}
    ignored: Counter[str] = Counter()
    for path in _expanded(inputs):
        if not path.is_dir():
            found[path] = Path("stdin" if str(path) in STANDARD else path.name)
            continue
        below = {}
        for file in walk(path):
            if file.suffix.lower() in suffixes or file.is_dir():
                below[file] = file.relative_to(path)
            else:
                ignored[file.suffix.lower()] += 1
        if not below:
            raise ValueError(f"{path}: no file ending in {', '.join(sorted(suffixes))} in this folder")
        found |= below
    sources = {p.resolve() for p in found}
    one_file = out.suffix.lower() in out_suffixes and not out.is_dir()
    if len(found) == 1 and (one_file or is_pipe(out)):
        if out.resolve() in sources and not is_pipe(out):
            raise ValueError(f"{out} is the input itself: name another output")
        return FilePairs({next(iter(found)): out}, out_suffixes[0], ignored)
    if is_pipe(out) or (out.suffix and not out.is_dir()):
        raise ValueError(f"{out}: for one input the output ends in {', '.join(out_suffixes)}, for more it is a folder")
    targets = {source: out / name for source, name in _names(found, out_suffixes[0]).items()}
    for target in targets.values():
        if target.resolve() in sources:
            raise ValueError(f"{target} is an input itself: name another output folder")
    return FilePairs(targets, out_suffixes[0], ignored)


def _expanded(inputs: Sequence[str]) -> Iterator[Path]:
    """Yield the inputs, with globs replaced by the matching paths."""
    for text in inputs:
        if Path(text).exists() or not glob.has_magic(text):
            yield Path(text)
            continue
        # `**` matches folders and the files in them, so the folders are dropped.
        matches = [Path(m) for m in sorted(glob.glob(text, recursive=True)) if "**" not in text or Path(m).is_file()]
        if not matches:
            raise ValueError(f"{text}: no file matches")
        yield from matches


def _names(found: dict[Path, Path], suffix: str) -> dict[Path, Path]:
    """Return output names that differ on every file system, including case-insensitive ones."""
    names = {source: relative.with_suffix(suffix) for source, relative in found.items()}
    count = Counter(str(name).casefold() for name in names.values())
    taken: dict[str, Path] = {}
    for source, relative in found.items():
        if count[str(names[source]).casefold()] > 1:
            names[source] = relative.with_name(relative.name + suffix)
        while (other := taken.setdefault(str(names[source]).casefold(), source)) is not source:
            if found[other] == relative:
                both = f"{other} and {source} would both become {names[source]}"
                raise ValueError(f"{both}; give the folder above them as the input, or rename one")
            names[source] = names[source].with_name(f"{names[source].stem}~{suffix}")  # a.wav beside A.wav
    return names


def run(files: FilePairs, work: Callable[[Path, Path], float], done: str) -> None:
    """Call `work(source, target)` for each pair, which returns the seconds of audio processed, and print a summary.

    done: the verb of the summary. Prints one line for each file that fails, and exits with code 2 if there are any. An
    error that all files would have, such as a full disk, ends the run.
    """
    started, seconds, failed = time.monotonic(), 0.0, 0
    warned: dict[str, list[Path]] = {}
    with bars(counted=True, shown=len(files.pairs) > 1) as bar:
        task = bar.add_task(done, total=len(files.pairs))

        def say(line: str) -> None:
            bar.console.print(f"vocable: {printable(line)}", markup=False, highlight=False, soft_wrap=True)

        for number, (source, target) in enumerate(files.pairs.items()):
            with warnings.catch_warnings(record=True) as caught:
                try:
                    with incoming(source) as read, outgoing(target, files.suffix) as written:
                        seconds += work(read, written)
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    failed += 1
                    reason = one_line(error)
                    say(reason if reason.startswith(str(source)) else f"{source}: {reason}")
                    left = len(files.pairs) - number - 1
                    if left and _all_would_fail(error, source):
                        failed += left
                        say(f"{target.parent} cannot be written to: {left} more files were not tried")
                        break
            for warning in caught:
                warned.setdefault(str(warning.message), []).append(source)
            bar.advance(task)
        for message, sources in warned.items():
            count = f"{len(sources)} files, the first " if len(sources) > 1 else ""
            say(f"warning: {count}{sources[0]}: {message}")
    took = time.monotonic() - started
    speed = f"{seconds:.1f} s of audio in {took:.1f} s, {seconds / max(took, 1e-9):.0f} x real time"
    others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(files.ignored.items()))
    ignored = f"; ignored: {printable(others)}" if others else ""
    typer.echo(f"{done} {len(files.pairs) - failed} of {len(files.pairs)} files: {speed}{ignored}", err=True)
    if failed:
        raise typer.Exit(2)


def _all_would_fail(error: BaseException, source: Path) -> bool:
    """Return whether an error means that no output can be written."""
    if not isinstance(error, OSError):
        return False
    forbidden = isinstance(error, (PermissionError, NotADirectoryError, FileExistsError))
    return error.errno in UNWRITABLE or (forbidden and str(error.filename) != str(source))
