"""A tokenized corpus for training: by index, or as a shuffled stream that ranks and DataLoader workers divide.

Clips come with their ids; speaker and text are in the manifest: `{u.id: u for u in read_manifest(path)}`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vocable.codec.tokens import Encoded, TokensError
from vocable.corpus.index import read_entry, read_index
from vocable.corpus.shards import read_shard

#: "id": str; "codes": int64 [K', T]; "num_samples": int; "gain": float, if the codec brings clips to one level.
Example = dict[str, Any]


class TokenDataset(Dataset[Example]):
    """Clips by index, in the corpus's order, from shards in tar; one seek and one read per clip.

    The list of clips is in memory, about 100 bytes per clip: use TokenStream for larger corpora.
    """

    def __init__(self, corpus: Path | str) -> None:
        """corpus: a folder of `vocable tokenize`. Raises ValueError if it is unfinished, damaged or in Parquet."""
        self.corpus = Path(corpus)
        index = read_index(self.corpus)
        if index["plan"]["format"] != "tar":
            raise ValueError(f"{self.corpus}: clips of Parquet shards cannot be read by index: use TokenStream")
        self.token_id: str = index["plan"]["token_id"]  #: token id of the codec
        self._shards = [self.corpus / "shards" / row["shard"] for row in index["shards"]]
        self.ids: list[str] = []  #: id of each clip
        self.num_frames: list[int] = []  #: frames of each clip, for batches of similar lengths
        places = []
        for number, shard in enumerate(self._shards):
            for clip, (start, size, frames) in read_entry(self.corpus, shard.stem)["clips"].items():
                self.ids.append(clip)
                self.num_frames.append(frames)
                places.append((number, start, size))
        self._places = np.array(places, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.ids)

    def __getitem__(self, item: int) -> Example:
        """Read a clip. Raises TokensError if its shard is damaged."""
        shard, start, size = self._places[item].tolist()
        name = f"{self._shards[shard]}, {self.ids[item]}"
        with open(self._shards[shard], "rb") as file:
            if start + size > os.fstat(file.fileno()).st_size:
                raise TokensError(f"{name}: its place is behind the shard's end; run `vocable verify {self.corpus}`")
            file.seek(start)
            clip = Encoded.from_bytes(file.read(size), name)
        return _example(self.ids[item], clip)


class TokenStream(IterableDataset[Example]):
    """An endless stream of the clips of all shards, in a new order in each pass.

    In each pass the shards are shuffled and divided among the readers, and each reader shuffles its clips within a
    window of `buffer` clips. A reader is a rank or, with `num_workers` of a DataLoader, a worker of a rank. A shard is
    read when its first clip is needed, and is in memory until its last clip is returned.

    `state_dict()` returns the position of this reader, from which `load_state_dict()` resumes with the same clips,
    without reading those before it. A position belongs to one rank; within a pass, the number of readers must be the
    same too. torchdata's StatefulDataLoader saves the positions of its workers. The workers of torch's own DataLoader
    read copies of this object, whose position does not move: `state_dict()` then raises ValueError.
    """

    def __init__(
        self,
        corpus: Path | str,
        *,
        seed: int = 0,
        buffer: int = 1000,
        rank: int = 0,
        world_size: int = 1,
        passes: int | None = None,
    ) -> None:
        """Open the corpus in a folder of `vocable tokenize`.

        buffer: 1 keeps the order within each shard. passes: passes after which an iteration ends; the next iteration
        continues with the next pass (None: no end). Raises ValueError for a corpus without clips.
        """
        self.corpus = Path(corpus)
        index = read_index(self.corpus)
        self.token_id: str = index["plan"]["token_id"]  #: token id of the codec
        self._shards = [
            (self.corpus / "shards" / row["shard"], row["clips"]) for row in index["shards"] if row["clips"]
        ]
        if not self._shards:
            raise ValueError(f"{self.corpus}: holds no clips")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is 0 to {world_size - 1} for a world_size of {world_size}, not {rank}")
        self.buffer, self.rank, self.world_size, self.passes = buffer, rank, world_size, passes
        #: What determines the order of clips: a position is valid only for the same values.
        self._order = {"corpus": index["plan"]["manifest"], "seed": seed, "buffer": buffer, "world_size": world_size}
        self._order["rank"] = rank
        self.seed = seed
        #: The position: the pass, the clips of it that were returned, and the pass before which this iteration ends.
        self._pass, self._done, self._end = 0, 0, passes
        self._readers: int | None = None  #: number of readers of all ranks in the pass of the position
        #: Whether copies of this object in DataLoader workers have returned clips; in memory that they share with it.
        self._copies_read = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as JSON. Raises ValueError if workers of a DataLoader have other positions."""
        if get_worker_info() is None and bool(self._copies_read):
            raise ValueError(
                "the workers of a DataLoader returned clips, and each has its own position: use torchdata's "
                "StatefulDataLoader and keep its state_dict(), or num_workers=0"
            )
        return self._order | {"pass": self._pass, "done": self._done, "end": self._end, "readers": self._readers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Move to a position of `state_dict`.

        Raises ValueError for a position in another order; another number of readers is an error of the next `iter()`.
        """
        # Positions of vocable 0.1 have neither rank nor readers.
        if other := [key for key, value in self._order.items() if state.get(key, value) != value]:
            raise ValueError(f"this position is of a stream with another {', '.join(other)}")
        self._pass, self._done, self._end = state["pass"], state["done"], state["end"]
        self._readers = state.get("readers")

    def __iter__(self) -> Iterator[Example]:
        """Yield clips from the position on. Raises ValueError for more readers than shards, or than before."""
        worker = get_worker_info()
        reader, readers = self.rank, self.world_size
        if worker is not None:
            reader, readers = reader * worker.num_workers + worker.id, readers * worker.num_workers
        if len(self._shards) < readers:
            raise ValueError(
                f"{len(self._shards)} shards cannot be divided among {readers} readers: use fewer workers or ranks, or "
                "tokenize with smaller shards (--shard-minutes)"
            )
        if self._done and self._readers not in (None, readers):
            raise ValueError(
                f"this position is of one of {self._readers} readers, and there are {readers} now: "
                "use as many workers and ranks as before"
            )
        self._readers = readers
        self._copies_read.fill_(worker is not None)
        if self._end is not None and self._pass >= self._end:
            self._end = self._pass + (self.passes or 0)
        while self._end is None or self._pass < self._end:
            for example in self._rest_of_pass(reader, readers):
                self._done += 1
                yield example
            self._pass, self._done = self._pass + 1, 0

    def _rest_of_pass(self, reader: int, readers: int) -> Iterator[Example]:
        """Yield the clips of this pass that are behind the position."""
        remaining: dict[int, int] = {}  # clips still to come, for each shard of which one has come
        in_memory: dict[int, list[tuple[str, Encoded]]] = {}
        for number, (shard, clip) in enumerate(self._order_of_pass(reader, readers)):
            path, clips = self._shards[shard]
            remaining[shard] = remaining.get(shard, clips) - 1
            if number >= self._done:
                if shard not in in_memory:
                    in_memory[shard] = list(read_shard(path))
                    if len(in_memory[shard]) != clips:
                        fault = f"holds {len(in_memory[shard])} clips, not the {clips} of the index"
                        raise TokensError(f"{path}: {fault}; run `vocable verify {self.corpus}`")
                yield _example(*in_memory[shard][clip])
            if not remaining[shard]:
                in_memory.pop(shard, None)

    def _order_of_pass(self, reader: int, readers: int) -> Iterator[tuple[int, int]]:
        """Yield shard and clip of all clips of this pass, in its order."""
        # All readers draw the same order of shards, so that each shard has one reader in a pass.
        order = np.random.default_rng([self.seed, self._pass]).permutation(len(self._shards))[reader::readers]
        rng = np.random.default_rng([self.seed, self._pass, reader])
        window: list[tuple[int, int]] = []
        for place in ((shard, clip) for shard in order.tolist() for clip in range(self._shards[shard][1])):
            window.append(place)
            if len(window) >= self.buffer:
                yield _draw(window, rng)
        while window:
            yield _draw(window, rng)


def _example(clip: str, encoded: Encoded) -> Example:
    gain = {} if encoded.gain is None else {"gain": float(encoded.gain)}
    return {"id": clip, "codes": encoded.codes[0], "num_samples": int(encoded.num_samples)} | gain


def _draw(window: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
    """Remove a random item."""
    chosen = int(rng.integers(len(window)))
    window[chosen], window[-1] = window[-1], window[chosen]
    return window.pop()


def collate(examples: list[Example], *, pad: int = 0) -> dict[str, Any]:
    """Make a batch of examples, for a DataLoader.

    Returns ids (a list), codes int64 [B, K', T] with `pad` after the end of each clip, num_frames and num_samples int64
    [B], and gain float32 [B] if the examples have one.
    """
    frames = torch.tensor([example["codes"].shape[1] for example in examples])
    layers = len(examples[0]["codes"])
    codes: Tensor = torch.full((len(examples), layers, int(frames.max())), pad, dtype=torch.int64)
    for row, example, length in zip(codes, examples, frames.tolist(), strict=True):
        row[:, :length] = example["codes"]
    gain = {"gain": torch.tensor([example["gain"] for example in examples])} if "gain" in examples[0] else {}
    return gain | {
        "ids": [example["id"] for example in examples],
        "codes": codes,
        "num_frames": frames,
        "num_samples": torch.tensor([example["num_samples"] for example in examples]),
    }
