"""The JSON files of a tokenized corpus: an entry for each shard, and the index of all shards.

OUT/shards/00000.json   an entry: the shard's checksum, its clips and their places, the clips left out and why
OUT/index.json          the index: the settings, the shards with their checksums, the totals
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vocable.corpus.manifest import read_json_object
from vocable.files import atomic_path, file_digest

#: JSON with the keys shard, sha256, seconds, frames, clips (id -> [offset, size, frames]), downmixed, left_out.
Entry = dict[str, Any]
#: JSON with the keys plan, clips, frames, hours, downmixed, left_out, shards (a list of rows, one per shard).
Index = dict[str, Any]

DELETE_SHARD = "delete it and run `vocable tokenize` again"
RUN_AGAIN = "run `vocable tokenize` again"

#: Keys of an entry that are copied to its row of the index.
COMMON_KEYS = ("shard", "sha256", "seconds", "frames")


def entry_path(out: Path, name: str) -> Path:
    """Return the path of the entry of the shard `name`, such as 00000."""
    return out / "shards" / f"{name}.json"


def write_entry(out: Path, name: str, entry: Entry) -> None:
    """Write the entry of a shard."""
    _write(entry_path(out, name), entry)


def read_entry(out: Path, name: str) -> Entry:
    """Read the entry of a shard. Raises ValueError if the file is damaged."""
    path = entry_path(out, name)
    entry = read_json_object(path, advice=DELETE_SHARD)
    try:
        valid = (
            _has_common_keys(entry)
            and all(len(place) == 3 and all(map(_is_count, place)) for place in entry["clips"].values())
            and all(isinstance(reason, str) for reason in entry["left_out"].values())
            and _is_count(entry.get("downmixed", 0))
        )
    except (KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ValueError(f"{path}: damaged: {DELETE_SHARD}")
    return entry


def write_index(out: Path, plan: Mapping[str, Any], names: Iterable[str]) -> Index:
    """Write the index of the shards `names`, from their entries, and return it. plan: the settings, as JSON."""
    index: Index = {"plan": plan, "clips": 0, "frames": 0, "hours": 0.0, "downmixed": 0, "left_out": {}, "shards": []}
    for name in names:
        entry = read_entry(out, name)
        index["clips"] += len(entry["clips"])
        index["frames"] += entry["frames"]
        index["hours"] += entry["seconds"] / 3600
        index["downmixed"] += entry.get("downmixed", 0)
        index["left_out"] |= entry["left_out"]
        row = {key: entry[key] for key in COMMON_KEYS}
        row |= {"clips": len(entry["clips"]), "entry_sha256": file_digest(entry_path(out, name))}
        index["shards"].append(row)
    index["hours"] = round(index["hours"], 6)
    _write(out / "index.json", index)
    return index


def read_index(out: Path) -> Index:
    """Read the index of a tokenized corpus. Raises ValueError if the corpus is not finished or the file is damaged.

    Vocable 0.1 wrote the codec's id, "codec_id", into the plan; it is returned as "token_id", as in `Encoded`.
    """
    path = out / "index.json"
    if not path.is_file():
        unfinished = (out / "plan.json").is_file()
        raise ValueError(
            f"{out}: {'not finished: run the same command again' if unfinished else 'not a tokenized corpus'}"
        )
    index = read_json_object(path, advice=RUN_AGAIN)
    try:
        if "codec_id" in index["plan"]:
            index["plan"]["token_id"] = index["plan"].pop("codec_id")
        texts = [index["plan"][key] for key in ("token_id", "format", "manifest")]
        valid = all(isinstance(text, str) for text in texts) and isinstance(index["shards"], list)
        for row in index["shards"]:
            valid = valid and _has_common_keys(row) and _is_count(row["clips"]) and isinstance(row["entry_sha256"], str)
    except (KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ValueError(f"{path}: damaged: {RUN_AGAIN}")
    return index


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _has_common_keys(row: dict[str, Any]) -> bool:
    """Return whether COMMON_KEYS have values as `vocable tokenize` writes them.

    The pattern of the shard's name allows no path: a hostile index must not make the reader open files elsewhere.
    """
    return (
        re.fullmatch(r"\d{5,}\.(tar|parquet)", row["shard"]) is not None
        and isinstance(row["sha256"], str)
        and isinstance(row["seconds"], (int, float))
        and _is_count(row["frames"])
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
