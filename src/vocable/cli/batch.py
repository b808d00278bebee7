"""Many files through one function: which files, where to, a bar, a summary; a bad file does not stop the rest."""

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
class Plan:
    """Which output each input file gets."""

    pairs: dict[Path, Path]
    suffix: str  #: of what is written into a pipe
    passed_over: Counter[str] = field(default_factory=Counter)  #: other files in the folders, by suffix


def plan(inputs: Sequence[str], out: Path, suffixes: Collection[str], out_suffixes: Sequence[str]) -> Plan:
    """Plan the outputs of inputs, which are files, folders (searched below for `suffixes`), globs or pipes.

    One input file may be given an output file, by one of `out_suffixes`, or a pipe; otherwise `out` is a folder, and
    files get the first of them, behind their own suffix where two files differ in nothing else.
    """
    found: dict[Path, Path] = {}
    passed_over: Counter[str] = Counter()
    for path in _expanded(inputs):
        if not path.is_dir():
            found[path] = Path("stdin" if str(path) in STANDARD else path.name)
            continue
        below = {}
        for file in walk(path):
            if file.suffix.lower() in suffixes or file.is_dir():
                below[file] = file.relative_to(path)
            else:
                passed_over[file.suffix.lower()] += 1
        if not below:
            raise ValueError(f"{path}: no file ending in {', '.join(sorted(suffixes))} in this folder")
        found |= below
    sources = {p.resolve() for p in found}
    one_file = out.suffix.lower() in out_suffixes and not out.is_dir()
    if len(found) == 1 and (one_file or is_pipe(out)):
        if out.resolve() in sources and not is_pipe(out):
            raise ValueError(f"{out} is the input itself: name another output")
        return Plan({next(iter(found)): out}, out_suffixes[0], passed_over)
    if is_pipe(out) or (out.suffix and not out.is_dir()):
        raise ValueError(f"{out}: for one input the output ends in {', '.join(out_suffixes)}, for more it is a folder")
    targets = {source: out / name for source, name in _names(found, out_suffixes[0]).items()}
    for target in targets.values():
        if target.resolve() in sources:
            raise ValueError(f"{target} is an input itself: name another output folder")
    return Plan(targets, out_suffixes[0], passed_over)


def _expanded(inputs: Sequence[str]) -> Iterator[Path]:
    """The inputs with globs replaced by what they match."""
    for text in inputs:
        if Path(text).exists() or not glob.has_magic(text):
            yield Path(text)
            continue
        # `**` matches what is in the folders, too.
        matches = [Path(m) for m in sorted(glob.glob(text, recursive=True)) if "**" not in text or Path(m).is_file()]
        if not matches:
            raise ValueError(f"{text}: no file matches")
        yield from matches


def _names(found: dict[Path, Path], suffix: str) -> dict[Path, Path]:
    """Names of outputs that differ on every file system, also where upper and lower case are one."""
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


def run(plan: Plan, work: Callable[[Path, Path], float], done: str) -> None:
    """Call `work(source, target)`, which returns the seconds of audio handled, for each pair.

    Exits with code 2 if any file failed; each failure is one line. What would fail for all files ends the run.
    """
    started, seconds, failed = time.monotonic(), 0.0, 0
    warned: dict[str, list[Path]] = {}
    with bars(counted=True, shown=len(plan.pairs) > 1) as bar:
        task = bar.add_task(done, total=len(plan.pairs))

        def say(line: str) -> None:
            bar.console.print(f"vocable: {printable(line)}", markup=False, highlight=False, soft_wrap=True)

        for number, (source, target) in enumerate(plan.pairs.items()):
            with warnings.catch_warnings(record=True) as caught:
                try:
                    with incoming(source) as read, outgoing(target, plan.suffix) as written:
                        seconds += work(read, written)
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    failed += 1
                    reason = one_line(error)
                    say(reason if reason.startswith(str(source)) else f"{source}: {reason}")
                    left = len(plan.pairs) - number - 1
                    if left and _ends_all(error, source):
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
    others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(plan.passed_over.items()))
    passed_over = f"; passed over: {printable(others)}" if others else ""
    typer.echo(f"{done} {len(plan.pairs) - failed} of {len(plan.pairs)} files: {speed}{passed_over}", err=True)
    if failed:
        raise typer.Exit(2)


def _ends_all(error: BaseException, source: Path) -> bool:
    """Whether the output is full or may not be written to."""
    if not isinstance(error, OSError):
        return False
    forbidden = isinstance(error, (PermissionError, NotADirectoryError, FileExistsError))
    return error.errno in UNWRITABLE or (forbidden and str(error.filename) != str(source))
