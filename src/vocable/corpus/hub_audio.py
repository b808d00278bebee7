"""The recording in a row of a Hugging Face dataset: in the row itself, or in a file that the row names.

A row may name only files of its own dataset: a hostile row must not make this machine copy a private file, or send a
request to a host of its network.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vocable import audio

#: Archives and compressed files that fsspec may open to reach a recording.
ARCHIVES = ("zip", "tar", "gzip", "bz2", "xz", "zstd", "lz4")


def read_cell(value: dict[str, Any] | None, *, source: str, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read the recording in a cell {"bytes", "path"}: float32 [L], and the sample rate in Hz.

    source: hub id or folder of the dataset, in which `path` names a file if "bytes" is None. Raises ValueError for a
    cell without a readable recording, and OSError if every row would fail, such as for a lost connection.
    """
    content, path = (value or {}).get("bytes"), (value or {}).get("path")
    if content is None and path is None:
        raise ValueError("holds no audio")
    if content is None:
        content = fetch(str(path), source=source)
    with tempfile.TemporaryDirectory() as folder:
        # libsndfile recognizes most formats by content, and the rest by the suffix.
        copy = Path(folder, "audio").with_suffix(Path(path or "").suffix[:9])
        copy.write_bytes(content)
        try:
            return audio.read(copy, sample_rate)
        except audio.AudioError as error:
            raise ValueError(str(error).replace(str(copy), path or "audio")) from error


def fetch(path: str, *, source: str) -> bytes:
    """Return the content of the file that a row names.

    Raises ValueError if the file is missing or outside of the dataset, and OSError if every row would fail.
    """
    import fsspec

    if not is_inside(path, source=source):
        raise ValueError(f"{path}: outside of the dataset")
    try:
        with fsspec.open(path, "rb") as file:
            content: bytes = file.read()
            return content
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: not readable ({error or type(error).__name__})") from error
    except OSError as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (404, 410):
            raise ValueError(f"{path}: no longer on the hub") from error
        raise


def is_inside(path: str, *, source: str) -> bool:
    """Return whether a file is in the dataset `source`: below its folder or, for a hub id, on the hub."""
    from fsspec.core import url_to_fs
    from fsspec.utils import get_protocol

    *archives, file = path.split("::")  # the archive of "zip://a.flac::/folder/b.zip" is its last part
    if not all(get_protocol(archive) in ARCHIVES for archive in archives):
        return False
    if not Path(source).exists():
        return bool(get_protocol(file) == "hf")
    # Links are not resolved: the hub's cache consists of links.
    return get_protocol(file) in ("file", "local") and Path(os.path.normpath(url_to_fs(file)[1])).is_relative_to(
        os.path.abspath(source)  # noqa: PTH100  (removes "..", which Path.absolute keeps)
    )
