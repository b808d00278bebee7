"""Outputs appear whole or not at all: write to a temporary name, then rename. Work in parts goes on as it was begun."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors

#: A disk with so few bytes left is full: libsndfile says "System error" alone.
FULL = 1 << 16
#: What ends all writing to a disk: it is full, it is full for this user, it is read-only.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure.

    The temporary name keeps the suffix, because writers such as soundfile and numpy read the format from it. A link is
    followed. What is not a regular file, such as /dev/stdout, is written to at the end.
    """
    if is_device(Path(path)):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, f"output{Path(path).suffix}")
            yield temporary
            with open(temporary, "rb") as source, open(path, "wb") as device:
                shutil.copyfileobj(source, device)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    # Without the name itself, which may be as long as the file system allows.
    temporary = target.with_name(f".{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors leaves its files readable by their owner alone
        with open(temporary, "rb+") as file:  # else a renamed file may be empty after a power cut
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        foreign = isinstance(error, (RuntimeError, safetensors.SafetensorError))
        full = foreign and shutil.disk_usage(target.parent).free < FULL  # while the temporary file is there
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # libsndfile and safetensors have exceptions of their own for a full disk and a folder without permission.
        if full:
            raise OSError(errno.ENOSPC, "not written: no space left", str(path)) from error
        if foreign:
            raise OSError(f"{path}: not written ({error})") from error
        raise


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files of `atomic_path` that killed processes left directly in these folders."""
    for folder in folders:
        for path in folder.glob(".*.tmp*"):
            if re.match(r"\.[0-9a-f]{12}\.tmp", path.name):
                path.unlink(missing_ok=True)


def is_device(path: Path) -> bool:
    """Whether this is neither a file nor a folder but there: a pipe, a terminal, /dev/null."""
    return path.exists() and not path.is_file() and not path.is_dir()


def walk(folder: Path) -> Iterator[Path]:
    """All files below `folder`, in the order of their paths, without hidden ones (macOS's "._" twins among them).

    Linked folders are followed, but for those that lead back up. Folders below that cannot be listed and links to
    nothing come too, so that whoever opens them names them. Raises OSError if `folder` itself cannot be listed.
    """
    return _walk(folder, ())


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    above = (*above, os.path.realpath(folder))
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        if len(above) == 1:
            raise
        yield folder
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not (path.is_symlink() and os.path.realpath(path) in above):
                yield from _walk(path, above)
        elif not is_device(path):
            yield path


def file_digest(path: Path) -> str:
    """A file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def same_plan_or_refuse(folder: Path, plan: dict[str, Any], what: str, parts: str = "*.npy") -> None:
    """Record in FOLDER/plan.json the plan of a job that can be resumed.

    parts: a pattern of the files that the job leaves. Raises ValueError if the folder holds such files without a plan,
    or another plan; `what` names it in the message, which says what differs.
    """
    path = folder / "plan.json"
    plan = json.loads(json.dumps(plan))
    if not path.exists() and any(folder.glob(parts)):
        raise ValueError(f"{folder} holds other results; choose another folder")
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: damaged; choose another folder") from error
        before = before if isinstance(before, dict) else {}
        if differing := sorted(key for key in plan | before if plan.get(key) != before.get(key)):
            keys = ", ".join(differing)
            raise ValueError(f"{folder} was begun with another {what}; choose another folder (other than then: {keys})")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plan), encoding="utf-8")
