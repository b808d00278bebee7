"""Files in the requests and in the results of jobs: recordings and tokens."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vocable import audio
from vocable.codec.tokens import Encoded, TokensError
from vocable.serve.jobs import Refused, TokenFormat, Tokens, TooLarge

#: Seconds of a recording that are read at once. They fit into memory at any rate and number of channels.
READ_SECONDS = 1.0


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raise Refused, with the message on one line, for what the package raises for bad input."""
    try:
        yield
    except Refused:
        raise
    except ValueError as error:
        raise Refused(" ".join(str(error).split())) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise TooLarge("there is not enough memory for this: send less at once") from error
        raise


def read_recording(data: bytes, *, sample_rate: int, longest: float) -> np.ndarray:
    """Read an audio file as mono float32 [L] at `sample_rate`, in bounded memory.

    Raises AudioError for a file that cannot be read, TooLarge for one of more than `longest` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recording")
        path.write_bytes(data)
        blocks, samples = [], 0
        try:
            for block in audio.read_blocks(path, sample_rate, READ_SECONDS):
                blocks.append(block)
                samples += len(block)
                if samples > longest * sample_rate:
                    raise TooLarge(f"the recording lasts more than {longest:g} s, which is the limit: cut it")
        except audio.AudioError as error:
            raise audio.AudioError(str(error).replace(f"{folder}/", "the ")) from error
    return np.concatenate(blocks)


def read_tokens(data: bytes, format: str) -> Encoded:
    """Read a .safetensors token file, or a line of a .jsonl one. Raises TokensError for anything else."""
    if format == "safetensors":
        return Encoded.from_bytes(data, "the tokens")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.jsonl")
        try:
            path.write_text(json.dumps(json.loads(data)))  # on one line
        except (ValueError, RecursionError) as error:
            raise TokensError("the tokens are not JSON") from error
        try:
            return Encoded.load(path)
        except TokensError as error:
            raise TokensError(str(error).replace(f"{path}", "the tokens")) from error


def tokens_of(encoded: Encoded, format: TokenFormat, warnings: tuple[str, ...] = ()) -> Tokens:
    """Write the codes of one clip as a file."""
    _, layers, frames = encoded.codes.shape
    seconds = int(encoded.num_samples) / encoded.sample_rate
    return Tokens(_token_file(encoded, format), encoded.token_id, (layers, frames), seconds, warnings)


def _token_file(encoded: Encoded, format: TokenFormat) -> bytes:
    if format == "safetensors":
        return encoded.to_bytes()
    if format == "npy":
        file = io.BytesIO()
        np.save(file, encoded.codes[0].cpu().numpy().astype(np.uint16), allow_pickle=False)
        return file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.jsonl")
        encoded.save(path)
        return path.read_bytes()
