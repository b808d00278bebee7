"""`load_codec`: load a codec by the name that the command line and recipes use."""

from __future__ import annotations

import os
from typing import Any

from vocable.codec.base import Codec
from vocable.codec.encodec import Encodec
from vocable.codec.model import SpeechTokenizer

#: Prefix of the names of EnCodec models.
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
    """Load an EnCodec model if `name` is "encodec:ID", otherwise a SpeechTokenizer.

    ID is a folder or a hub id. options: the other arguments of `SpeechTokenizer.from_pretrained`. EnCodec ignores
    `parts` and supports no other option. Raises CheckpointError if there is no such model, ValueError for an
    unsupported option.
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
        raise ValueError(f"EnCodec has no such options: leave out {' and '.join(refused)}")
    return Encodec(str(name).removeprefix(ENCODEC), **common)
