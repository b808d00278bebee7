"""The files of shards: each holds the token files of many clips, as members of a tar or as rows of a Parquet table.

A token file holds the bytes of `Encoded.to_bytes`. In a tar it is named after the clip, ID.safetensors, as WebDataset
expects. Neither format stores times or users, so the bytes of a shard follow from its tokens alone.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from vocable.codec.tokens import Encoded, TokensError
from vocable.extras import need

Format = Literal["tar", "parquet"]  #: also the suffix of the file
Place = tuple[
    int, int
]  #: of a clip in its shard: the offset of its token file in bytes (Parquet: its row), and its size


def write_shard(path: Path, tokens: Mapping[str, Encoded]) -> dict[str, Place]:
    """Write the tokens of clips, by id, to `path`, in the format that its suffix names; return the place of each."""
    files = {clip: encoded.to_bytes() for clip, encoded in tokens.items()}
    return (_write_parquet if path.suffix == ".parquet" else _write_tar)(path, files)


def read_shard(path: Path) -> Iterator[tuple[str, Encoded]]:
    """Yield the id and the tokens of each clip, in the shard's order. Raises TokensError for a damaged shard."""
    try:
        for clip, file in (_read_parquet if path.suffix == ".parquet" else _read_tar)(path):
            yield clip, Encoded.from_bytes(file, f"{path}, {clip}")
    except (tarfile.TarError, OSError, MemoryError, OverflowError) as error:
        raise TokensError(f"{path}: not a complete shard ({error or type(error).__name__})") from error


def member_name(clip: str) -> str:
    """Return the name of a clip's file in a tar.

    The name is safe to unpack, and has no dot but that of the suffix: WebDataset ends a sample's name at the first.
    """
    return quote(clip, safe=" +,@=()[]").replace(".", "%2E") + ".safetensors"


def _write_tar(path: Path, files: Mapping[str, bytes]) -> dict[str, Place]:
    places = {}
    with tarfile.open(path, "w") as tar:
        for clip, file in files.items():
            member = tarfile.TarInfo(member_name(clip))  # without time and owner, mode 0644
            member.size = len(file)
            tar.addfile(member, io.BytesIO(file))
            padded = len(file) + -len(file) % tarfile.BLOCKSIZE
            places[clip] = (tar.offset - padded, len(file))  # `offset` is now the end of this member
    return places


def _read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:  # only uncompressed tars, so that no member is larger than the file
        for member in tar:
            file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if file is None or member.offset_data + member.size > size:
                raise TokensError(f"{path}: {member.name!r} is not a plain file of this shard")
            yield unquote(member.name.removesuffix(".safetensors")), file.read()


def _write_parquet(path: Path, files: Mapping[str, bytes]) -> dict[str, Place]:
    pyarrow, parquet = need("pyarrow", "parquet"), need("pyarrow.parquet", "parquet")
    table = pyarrow.table({"id": list(files), "tokens": pyarrow.array(list(files.values()), pyarrow.binary())})
    parquet.write_table(table, path, compression="zstd")
    return {clip: (row, len(file)) for row, (clip, file) in enumerate(files.items())}


def _read_parquet(path: Path) -> Iterator[tuple[str, bytes]]:
    pyarrow, parquet = need("pyarrow", "parquet"), need("pyarrow.parquet", "parquet")
    try:
        for row in parquet.read_table(path, columns=["id", "tokens"]).to_pylist():
            if not (isinstance(row.get("id"), str) and isinstance(row.get("tokens"), bytes)):
                raise TokensError(f"{path}: a row without an id and tokens")
            yield row["id"], row["tokens"]
    except pyarrow.ArrowException as error:
        raise TokensError(f"{path}: not a complete shard ({error})") from error
