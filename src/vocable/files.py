"""Outputs appear whole or not at all: write to a temporary name, then rename. Work in parts goes on as it was begun."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure.

    The temporary name keeps the suffix, because writers such as soundfile and numpy read the format from it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors leaves its files readable by their owner alone
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # libsndfile and safetensors have exceptions of their own for a full disk and a folder without permission.
        if isinstance(error, (RuntimeError, safetensors.SafetensorError)):
            raise OSError(f"{path}: not written ({error})") from error
        raise


def file_digest(path: Path) -> str:
    """A file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def same_plan_or_refuse(folder: Path, plan: dict[str, Any], what: str, parts: str = "*.npy") -> None:
    """Note in `folder` what is being made there; ValueError if it was begun as something else, a plan of `what`.

    parts: a pattern of the files that the work leaves.
    """
    path = folder / "plan.json"
    plan = json.loads(json.dumps(plan))
    if not path.exists() and any(folder.glob(parts)):
        raise ValueError(f"{folder} holds other results; choose another folder")
    if path.exists() and json.loads(path.read_text()) != plan:
        raise ValueError(f"{folder} was begun with another {what}; choose another folder")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plan))
