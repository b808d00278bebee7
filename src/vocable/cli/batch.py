"""Many files through one function: which files, where to, a bar, a summary; a bad file does not stop the rest."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import typer

from vocable.cli.bars import bars


def plan(inputs: Sequence[str], out: Path, suffixes: Collection[str], out_suffixes: Sequence[str]) -> dict[Path, Path]:
    """Which output each input file gets.

    Inputs are files, folders (searched below for `suffixes`) or globs. One input file may be given an output file, by
    one of `out_suffixes`; otherwise `out` is a folder, and files get the first of them.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            below = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in suffixes and p.is_file()]
            if not below:
                raise ValueError(f"{text}: no file ending in {', '.join(sorted(suffixes))} in this folder")
            found |= {p: p.relative_to(path) for p in below}
        elif path.exists() or not glob.has_magic(text):
            found[path] = Path(path.name)
        else:
            matches = [Path(m) for m in sorted(glob.glob(text, recursive=True)) if Path(m).is_file()]
            if not matches:
                raise ValueError(f"{text}: no file matches")
            found |= {p: Path(p.name) for p in matches}
    sources = {p.resolve() for p in found}
    if len(found) == 1 and out.suffix.lower() in out_suffixes and not out.is_dir():
        if out.resolve() in sources:
            raise ValueError(f"{out} is the input itself: name another output")
        return {next(iter(found)): out}
    if out.suffix and not out.is_dir():
        raise ValueError(f"{out}: for one input the output ends in {', '.join(out_suffixes)}, for more it is a folder")
    outputs: dict[Path, Path] = {}
    for source, relative in found.items():
        target = out / relative.with_suffix(out_suffixes[0])
        if target in outputs:
            raise ValueError(f"{outputs[target]} and {source} would both become {target}; rename one")
        if target.resolve() in sources:
            raise ValueError(f"{target} is an input itself: name another output folder")
        outputs[target] = source
    return {source: target for target, source in outputs.items()}


def run(pairs: dict[Path, Path], work: Callable[[Path, Path], float], done: str) -> None:
    """Call `work(source, target)`, which returns the seconds of audio handled, for each pair.

    Exits with code 2 if any file failed; each failure is one line.
    """
    started, seconds, failed = time.monotonic(), 0.0, 0
    with bars(counted=True, shown=len(pairs) > 1) as bar:
        task = bar.add_task(done, total=len(pairs))
        for source, target in pairs.items():
            try:
                seconds += work(source, target)
            except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: out of memory
                failed += 1
                reason = " ".join(str(error).split())
                named = reason if reason.startswith(str(source)) else f"{source}: {reason}"
                bar.console.print(f"vocable: {named}", markup=False, highlight=False, soft_wrap=True)
            bar.advance(task)
    took = time.monotonic() - started
    speed = f"{seconds:.1f} s of audio in {took:.1f} s, {seconds / max(took, 1e-9):.0f} x real time"
    typer.echo(f"{done} {len(pairs) - failed} of {len(pairs)} files: {speed}", err=True)
    if failed:
        raise typer.Exit(2)
