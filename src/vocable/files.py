"""Atomic writing of files, listing of folders, and plans of jobs that can be resumed."""

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

#: A disk with fewer free bytes counts as full, because libsndfile's error for a full disk is only "System error".
FULL = 1 << 16
#: Error numbers after which no file can be written: full disk, full quota, read-only file system.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure.

    The temporary name keeps the suffix, from which soundfile and numpy take the format. Symbolic links are followed. If
    `path` is a device or a pipe, such as /dev/stdout, the temporary file is copied to it.
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
    # The temporary name does not contain the name, which may be as long as the file system allows.
    temporary = target.with_name(f".{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors writes files that only their owner can read
        with open(temporary, "rb+") as file:  # without fsync, a renamed file may be empty after a power failure
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        foreign = isinstance(error, (RuntimeError, safetensors.SafetensorError))
        full = foreign and shutil.disk_usage(target.parent).free < FULL  # before the temporary file is removed
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # libsndfile and safetensors raise their own exceptions for a full disk or missing permission.
        if full:
            raise OSError(errno.ENOSPC, "not written: no space left", str(path)) from error
        if foreign:
            raise OSError(f"{path}: not written ({error})") from error
        raise


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it to `folder` on success, remove it on any failure.

    Raises ValueError at once if `folder` exists and is not an empty folder.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder: name another one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp gives a folder that only its owner can read
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(*folders: Path) -> None:
    """Remove temporary files of `atomic_path` that killed processes left in these folders, not below them."""
    for folder in folders:
        for path in folder.glob(".*.tmp*"):
            if re.match(r"\.[0-9a-f]{12}\.tmp", path.name):
                path.unlink(missing_ok=True)


def is_device(path: Path) -> bool:
    """Return whether a path exists but is neither a file nor a folder: a pipe, a terminal, /dev/null."""
    return path.exists() and not path.is_file() and not path.is_dir()


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files below `folder`, sorted by path, without hidden files and folders (such as "._" files of macOS).

    Symbolic links to folders are followed, except to a folder above the link. Subfolders that cannot be listed and
    broken links are yielded too, so that the caller's error names them. Raises OSError if `folder` cannot be listed.
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
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def same_plan_or_refuse(folder: Path, plan: dict[str, Any], what: str, results: str = "*.npy") -> None:
    """Write the plan of a resumable job to FOLDER/plan.json.

    results: a glob pattern of the job's output files. Raises ValueError if the folder has such files without a plan, or
    another plan; the message contains `what`, a description of the plan, and the keys that differ.
    """
    path = folder / "plan.json"
    plan = json.loads(json.dumps(plan))
    if not path.exists() and any(folder.glob(results)):
        raise ValueError(f"{folder} holds other results; choose another folder")
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: damaged; choose another folder") from error
        before = before if isinstance(before, dict) else {}
        if differing := sorted(key for key in plan | before if plan.get(key) != before.get(key)):
            keys = ", ".join(differing)
            raise ValueError(f"{folder} was begun with another {what}; choose another folder (different: {keys})")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plan), encoding="utf-8")
