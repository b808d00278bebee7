"""`load_codec`: a codec by its name on the command line and in recipes."""

from __future__ import annotations

import os
from typing import Any

from vocable.codec.base import Codec
from vocable.codec.encodec import Encodec
from vocable.codec.model import SpeechTokenizer

#: Begins the names of EnCodec models.
ENCODEC = "encodec:"


def load_codec(
    name: str | os.PathLike[str] | None,
    *,
    device: str = "cpu",
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **options: Any,
) -> Codec:
    """Load an EnCodec model by "encodec:ID", or else a SpeechTokenizer.

    ID is a folder or a hub id. options: the others of `SpeechTokenizer.from_pretrained`; EnCodec has none of them, and
    is always loaded whole. Raises CheckpointError where there is no such model, ValueError for an option that it lacks.
    """
    common: dict[str, Any] = {
        "device": device,
        "revision": revision,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    if not str(name).startswith(ENCODEC):
        return SpeechTokenizer.from_pretrained(name, **common, **options)
    refused = [key for key, value in options.items() if key != "parts" and value not in (None, False, "float32")]
    if refused:
        raise ValueError(f"EnCodec runs as it is: leave out {' and '.join(refused)}")
    return Encodec(str(name).removeprefix(ENCODEC), **common)
