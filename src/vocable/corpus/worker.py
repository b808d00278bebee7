"""A worker: encodes the clips of a shard in batches, and writes the shard and its entry.

The batches, and the order of clips in the shard, follow from the plan alone, and torch runs on one thread, so the same
shard has the same bytes whichever worker writes it, on machines of the same kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from vocable import audio
from vocable.audio import AudioError, ChannelsWarning
from vocable.codec.load import load_codec
from vocable.codec.tokens import Encoded
from vocable.corpus.batches import padded_batches
from vocable.corpus.index import write_entry
from vocable.corpus.manifest import Utterance
from vocable.corpus.plan import Plan, Shard
from vocable.corpus.shards import write_shard
from vocable.files import atomic_path, file_digest


class Worker:
    """Writes shards of a plan, with a codec that is loaded once."""

    def __init__(self, plan: Plan, out: Path) -> None:
        """Load the codec. Raises ValueError if its token id is not that of the plan."""
        self.plan, self.out = plan, out
        self.codec = load_codec(
            plan.codec, device=plan.device, parts="encoder", recurrence=plan.recurrence, compile=plan.compile
        )
        if self.codec.token_id != plan.token_id:
            raise ValueError(
                f"{plan.codec or 'the embedded codec'} makes {self.codec.token_id} here, "
                f"and made {plan.token_id} when this was planned"
            )

    def write(self, shard: Shard) -> int:
        """Write a shard and its entry; return the shard's number."""
        with _one_torch_thread(), _channels_warnings() as downmixed:
            tokens, left_out = self._tokenize(shard.utterances)
        # In the manifest's order; they were encoded in the order of batches.
        tokens = {u.id: tokens[u.id] for u in shard.utterances if u.id in tokens}
        path = self.out / "shards" / f"{shard.name}.{self.plan.format}"
        with atomic_path(path) as temporary:
            places = write_shard(temporary, tokens)
            digest = file_digest(temporary)
        entry = {
            "shard": path.name,
            "sha256": digest,
            "seconds": round(sum(int(t.num_samples) for t in tokens.values()) / self.codec.sample_rate, 6),
            "frames": sum(int(t.num_frames) for t in tokens.values()),
            "clips": {clip: [*place, int(tokens[clip].num_frames)] for clip, place in places.items()},
            "downmixed": len(downmixed),
            "left_out": {u.id: left_out[u.id] for u in shard.utterances if u.id in left_out},
        }
        write_entry(self.out, shard.name, entry)
        return shard.number

    def _tokenize(self, utterances: Sequence[Utterance]) -> tuple[dict[str, Encoded], dict[str, str]]:
        """Return the tokens of clips, by id, and for each clip that was left out, by id, the reason."""
        tokens: dict[str, Encoded] = {}
        left_out: dict[str, str] = {}
        batches = batches_of(utterances, self.plan.batch_seconds)
        # The next batch is read while this one is encoded: libsndfile and soxr release Python's global lock.
        with ThreadPoolExecutor(1) as reader:
            next_batch = reader.submit(self._read, batches[0])
            for i in range(len(batches)):
                waveforms, unreadable = next_batch.result()
                next_batch = reader.submit(self._read, batches[i + 1] if i + 1 < len(batches) else [])
                encoded, not_encodable = self._encode(waveforms)
                tokens |= encoded
                left_out |= unreadable | not_encodable
        return tokens, left_out

    def _read(self, batch: Sequence[Utterance]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return the waveforms of clips, by id, and for each that cannot be read the reason."""
        waveforms, unreadable = {}, {}
        for utterance in batch:
            try:
                waveforms[utterance.id] = audio.read(utterance.path, self.codec.sample_rate)[0]
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                # Without the path, so that the same corpus elsewhere has the same index.
                unreadable[utterance.id] = _reason(error).replace(f"{utterance.path}: ", "")
        return waveforms, unreadable

    def _encode(self, waveforms: Mapping[str, np.ndarray]) -> tuple[dict[str, Encoded], dict[str, str]]:
        """Return the tokens of clips, by id, and for each that cannot be encoded the reason."""
        layers = slice(self.plan.start, self.plan.stop)
        limit = self.plan.batch_seconds * self.codec.sample_rate
        padded = len(waveforms) * max(map(len, waveforms.values()), default=0)
        # Clips may be longer than their manifest says: a batch far over the limit might not fit into memory.
        if len(waveforms) > 1 and padded <= 2 * limit:
            try:
                encoded = self.codec.encode(list(waveforms.values()), layers=layers)
                return dict(zip(waveforms, encoded.clips(), strict=True)), {}
            except (AudioError, MemoryError, RuntimeError) as error:
                if not _is_caused_by_clip(error):
                    raise
                # Some clip of the batch cannot be encoded: below, each is encoded alone.
        tokens, not_encodable = {}, {}
        for clip, waveform in waveforms.items():
            try:
                tokens[clip] = self.codec.encode_long(waveform, layers=layers)
            except (AudioError, MemoryError, RuntimeError) as error:
                if not _is_caused_by_clip(error):
                    raise
                not_encodable[clip] = _reason(error)
        return tokens, not_encodable


def batches_of(utterances: Sequence[Utterance], seconds: float) -> list[list[Utterance]]:
    """Return batches of utterances of similar length, longest first, each of at most `seconds` with padding.

    A longer utterance is a batch of its own.
    """
    longest_first = sorted(utterances, key=lambda u: (-u.duration, u.id))
    return list(padded_batches(longest_first, length=lambda u: u.duration, limit=seconds))


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let torch run on one thread: with several, sums are added in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _channels_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect every ChannelsWarning, one for each clip that was averaged to mono; other warnings are issued."""
    downmixed: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ChannelsWarning)
        yield downmixed
    for warning in caught:
        if warning.category is ChannelsWarning:
            downmixed.append(warning)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _is_caused_by_clip(error: Exception) -> bool:
    """Return whether an error of encoding is caused by a clip's samples or its length, not by the program."""
    return isinstance(error, AudioError) or _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    # numpy and soxr raise MemoryError, torch RuntimeError("... can't allocate memory ...", "... out of memory ...").
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))


def _reason(error: Exception) -> str:
    if _is_out_of_memory(error):
        return "not enough memory for it: cut it into shorter recordings"
    return " ".join(str(error).split())
