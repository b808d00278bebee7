"""Encode and decode recordings of any length in bounded memory, chunk by chunk.

The stages before and after the recurrence use a few frames of context on each side of a frame, so they run over chunks
with that much context, and the output of the context is dropped. A forward recurrence passes its state from chunk to
chunk, so a codec without a backward recurrence yields each chunk immediately. A backward recurrence runs over the
chunks from the last to the first; chunks that wait for it are kept in memory up to a limit, then in a temporary file.

Codes and speech are those of one pass over the whole recording, up to rounding errors: codes differ only in near ties.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, cast

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.layers import LSTM, BiLSTM
from vocable.codec.level import PIECE
from vocable.codec.staged import Staged

CHUNK_FRAMES = 1500  #: 30 s
BLOCK = 16 * PIECE  #: samples (30 s) of the blocks that a recording given as one array is cut into
SPOOL_BYTES = 256 * 2**20  #: bytes of chunks that one spool keeps in memory; further chunks are written to a file


def blocks_of(recording: Tensor | np.ndarray | Iterable[Tensor | np.ndarray]) -> Iterable[Tensor | np.ndarray]:
    """Return one recording as blocks [n]: cut an array [L], [1, L] or [1, 1, L] into views, return blocks unchanged.

    Raises AudioError for anything else.
    """
    if isinstance(recording, (Tensor, np.ndarray)):
        while recording.ndim > 1 and len(recording) == 1:
            recording = recording[0]
        if recording.ndim != 1:
            raise AudioError(f"one recording is [L], not {list(recording.shape)}; drop or average the channel axis")
        return [recording[at : at + BLOCK] for at in range(0, len(recording), BLOCK)]
    if not isinstance(recording, Iterable) or isinstance(recording, (str, bytes)):
        raise AudioError(f"blocks are arrays or tensors [n], not {type(recording).__name__}")
    return recording


def run_staged(staged: Staged, blocks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
    """Run a staged module on one clip in blocks [n, ...] of any length; yield its output in chunks."""

    def before(window: Tensor, first_frame: int) -> Tensor:
        return staged.before(window)

    def after(window: Tensor, first_frame: int) -> Tensor:
        return staged.after(window, None, first_frame)

    chunks = _by_window(before, blocks, staged.rows_in, 1, staged.before_context, chunk)
    backward = any(isinstance(layer, BiLSTM) for layer in staged.recurrent_layers)
    chunks = _recur(staged, chunks) if backward else _recur_forward(staged, chunks)
    yield from _by_window(after, chunks, 1, staged.rows_out, staged.after_context, chunk)


def _by_window(
    stage: Callable[[Tensor, int], Tensor],
    blocks: Iterable[Tensor],
    rows_in: int,
    rows_out: int,
    context: tuple[int, int],
    chunk: int,
) -> Iterator[Tensor]:
    """Run `stage` over windows of `chunk` frames with `context` frames on each side; yield the output of the chunks."""
    for window, first, lead, frames in _windows(blocks, rows_in, context, chunk):
        # A copy, because activations work in place, and the next window shares rows with this one.
        out = stage(window[None].clone(), first)[0]
        yield out[lead * rows_out : (lead + frames) * rows_out]


def _windows(
    blocks: Iterable[Tensor], unit: int, context: tuple[int, int], chunk: int
) -> Iterator[tuple[Tensor, int, int, int]]:
    """Cut blocks of any length into windows; yield each window, the index of its first frame, the number of frames of
    left context, and the number of frames of the chunk itself."""
    coming: list[Tensor] = []
    first = start = rows = 0  # first frame of `coming`, first frame of the next chunk, number of rows so far
    left, right = context

    def ready(ended: bool) -> Iterator[tuple[Tensor, int, int, int]]:
        nonlocal coming, first, start
        while rows > start * unit and (ended or rows >= (start + chunk + right) * unit):
            held = coming[0] if len(coming) == 1 else torch.cat(coming)  # a single long block is not copied
            begin, last = max(0, start - left), start + chunk + right
            own = min(chunk, -(-rows // unit) - start)
            yield held[(begin - first) * unit : (last - first) * unit], begin, start - begin, own
            start += own
            begin = max(0, start - left)
            coming, first = [held[(begin - first) * unit :]], begin

    for block in blocks:
        coming.append(block)
        rows += len(block)
        yield from ready(False)
    yield from ready(True)


def _recur_forward(staged: Staged, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run forward recurrent layers and add the residual, chunk by chunk."""
    layers = [cast(LSTM, layer) for layer in staged.recurrent_layers]
    states: list[tuple[Tensor, Tensor] | None] = [None] * len(layers)
    for chunk in chunks:
        y = chunk[None]
        for i, layer in enumerate(layers):
            y, states[i] = layer.step(y, states[i])
        yield staged.skip(chunk, y[0])


def _recur(staged: Staged, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run the recurrent layers over a whole clip and add the residual, chunk by chunk in both directions."""
    first = _Spool()
    for chunk in chunks:
        first.put(len(first), chunk)
    if len(first) == 1:  # a clip of one chunk
        yield staged.recur(first.get(0)[None])[0]
        return
    current = first
    for layer in staged.recurrent_layers:
        following = _Spool()
        if isinstance(layer, BiLSTM):
            back, state = _Spool(), None
            for i in reversed(range(len(current))):
                y, state = layer.backward_lstm.step(current.get(i).flip(0)[None], state)
                back.put(i, y[0].flip(0))
            ahead = layer.forward_lstm
        else:
            back, ahead = _Spool(), cast(LSTM, layer)
        state = None
        for i in range(len(current)):
            y, state = ahead.step(current.get(i)[None], state)
            following.put(i, torch.cat([y[0], back.get(i)], -1) if len(back) else y[0])
        current = following
    for i in range(len(first)):
        yield staged.skip(first.get(i), current.get(i))


class _Spool:
    """A store of numbered chunks: SPOOL_BYTES in memory, the others in a temporary file."""

    def __init__(self) -> None:
        self._held: dict[int, Tensor] = {}
        self._filed: dict[
            int, tuple[int, Tensor]
        ] = {}  #: offset in the file, and a zero-stride template with the chunk's shape, dtype and device
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._held) + len(self._filed)

    def put(self, number: int, chunk: Tensor) -> None:
        self._bytes += chunk.numel() * chunk.element_size()
        if self._bytes <= SPOOL_BYTES:
            self._held[number] = chunk
            return
        self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 (closed with the spool)
        self._filed[number] = self._file.seek(0, 2), chunk.new_empty(()).expand(chunk.shape)
        self._file.write(chunk.float().cpu().contiguous().numpy().tobytes())

    def get(self, number: int) -> Tensor:
        if number in self._held:
            return self._held[number]
        start, like = self._filed[number]
        assert self._file is not None
        self._file.seek(start)
        data = np.frombuffer(self._file.read(4 * like.numel()), np.float32)
        return torch.from_numpy(data.copy()).view(like.shape).to(like)
