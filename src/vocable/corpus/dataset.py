"""A tokenized corpus for training: by index, or as a shuffled stream that several ranks and workers share.

Clips come with their ids; what else is known of them is in the manifest: `{u.id: u for u in read_manifest(path)}`.
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
from vocable.corpus.tokenize import read_entry, read_index, read_shard

#: "id": str, "codes": int64 [K', T], "num_samples": int; "gain": float, of a codec that brings clips to a level
Example = dict[str, Any]


class TokenDataset(Dataset[Example]):
    """Clips by number, in the corpus's order: for corpora whose list of clips fits in memory, some 100 bytes a clip.

    Reads shards in tar; each clip is one seek and one read.
    """

    def __init__(self, corpus: Path | str) -> None:
        self.corpus = Path(corpus)
        index = read_index(self.corpus)
        if index["plan"]["format"] != "tar":
            raise ValueError(f"{self.corpus}: clips of parquet shards come as a stream: TokenStream")
        self.token_id: str = index["plan"]["token_id"]
        self._shards = [self.corpus / "shards" / entry["shard"] for entry in index["shards"]]
        self.ids: list[str] = []
        self.num_frames: list[int] = []  #: of each clip, for batches of like lengths
        places = []
        for number, shard in enumerate(self._shards):
            for name, (start, size, frames) in read_entry(self.corpus, shard.stem)[0]["clips"].items():
                self.ids.append(name)
                self.num_frames.append(frames)
                places.append((number, start, size))
        self._places = np.array(places, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: int) -> Example:
        shard, start, size = self._places[item].tolist()
        name = f"{self._shards[shard]}, {self.ids[item]}"
        with open(self._shards[shard], "rb") as file:
            if start + size > os.fstat(file.fileno()).st_size:
                raise TokensError(f"{name}: lies behind the shard's end; run `vocable tokenize verify`")
            file.seek(start)
            clip = Encoded.from_bytes(file.read(size), name)
        return _example(self.ids[item], clip)


class TokenStream(IterableDataset[Example]):
    """Clips of all shards, without end, each pass in another order.

    Shards are shuffled and dealt out to ranks and their workers, and clips are shuffled within a window of `buffer`. A
    shard is read whole when its first clip is due, and kept until its last was given out.

    `state_dict()` is where this reader stands, and `load_state_dict` goes on from there with the same clips; what was
    given out before is not read again. A position is one rank's, and within a pass one of a number of readers. Each
    worker of a DataLoader is a reader of its own: torchdata's StatefulDataLoader keeps their states. With torch's and
    workers, every `iter()` begins where this object stands, which does not move; `state_dict` then raises ValueError.
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
        """buffer: 1 leaves each shard in order. passes: end after so many, and go on with the next at the next `iter()`
        (None: never end). Raises ValueError for a corpus without clips."""
        self.corpus = Path(corpus)
        index = read_index(self.corpus)
        self.token_id: str = index["plan"]["token_id"]
        self._shards = [(self.corpus / "shards" / e["shard"], e["clips"]) for e in index["shards"] if e["clips"]]
        if not self._shards:
            raise ValueError(f"{self.corpus}: holds no clips")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of {world_size}")
        self.buffer, self.rank, self.world_size, self.passes = buffer, rank, world_size, passes
        #: What the order of clips follows from: a position is valid only for the same values.
        self._order = {"corpus": index["plan"]["manifest"], "seed": seed, "buffer": buffer, "world_size": world_size}
        self._order["rank"] = rank
        self.seed = seed
        self._pass, self._done, self._end = 0, 0, passes  # where it stands: clips of this pass that were given out
        self._readers: int | None = None  # of all ranks, among whom the pass that it stands in was dealt out
        #: Whether workers of a DataLoader read copies of this object; in shared memory, where they can note it.
        self._copies_read = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Raises ValueError where the workers of a DataLoader stand elsewhere than this object."""
        if get_worker_info() is None and bool(self._copies_read):
            raise ValueError(
                "the workers of a DataLoader gave out clips, and each stands elsewhere: take torchdata's "
                "StatefulDataLoader and keep its state_dict(), or num_workers=0"
            )
        return self._order | {"pass": self._pass, "done": self._done, "end": self._end, "readers": self._readers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for a position in another order; `iter()` does for another number of readers."""
        # Vocable 0.1 noted neither rank nor readers.
        if other := [key for key, value in self._order.items() if state.get(key, value) != value]:
            raise ValueError(f"this position is of a stream with another {', '.join(other)}")
        self._pass, self._done, self._end = state["pass"], state["done"], state["end"]
        self._readers = state.get("readers")

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        reader, readers = self.rank, self.world_size
        if worker is not None:
            reader, readers = reader * worker.num_workers + worker.id, readers * worker.num_workers
        if len(self._shards) < readers:
            raise ValueError(
                f"{len(self._shards)} shards cannot be dealt out to {readers} readers: take fewer workers or ranks, or "
                "tokenize with smaller shards (--shard-minutes)"
            )
        if self._done and self._readers not in (None, readers):
            raise ValueError(
                f"this position is of one of {self._readers} readers, and there are {readers} now: "
                "take as many workers and ranks as before"
            )
        self._readers = readers
        self._copies_read.fill_(worker is not None)
        if self._end is not None and self._pass >= self._end:
            self._end = self._pass + (self.passes or 0)
        while self._end is None or self._pass < self._end:
            for example in self._one_pass(reader, readers):
                self._done += 1
                yield example
            self._pass, self._done = self._pass + 1, 0

    def _one_pass(self, reader: int, readers: int) -> Iterator[Example]:
        """What is left of the pass that it stands in."""
        left: dict[int, int] = {}  # of each shard that was begun, clips that are still to come
        held: dict[int, list[tuple[str, Encoded]]] = {}
        for number, (shard, clip) in enumerate(self._places(reader, readers)):
            path, clips = self._shards[shard]
            left[shard] = left.get(shard, clips) - 1
            if number >= self._done:
                if shard not in held:
                    held[shard] = list(read_shard(path))
                    if len(held[shard]) != clips:
                        found = f"holds {len(held[shard])} clips, not the {clips} of the index"
                        raise TokensError(f"{path}: {found}; run `vocable tokenize verify`")
                yield _example(*held[shard][clip])
            if not left[shard]:
                held.pop(shard, None)

    def _places(self, reader: int, readers: int) -> Iterator[tuple[int, int]]:
        """Shard and clip, in this pass's order."""
        # All readers shuffle the shards alike, so that each shard has one reader in a pass.
        order = np.random.default_rng([self.seed, self._pass]).permutation(len(self._shards))[reader::readers]
        rng = np.random.default_rng([self.seed, self._pass, reader])
        window: list[tuple[int, int]] = []
        for place in ((shard, clip) for shard in order.tolist() for clip in range(self._shards[shard][1])):
            window.append(place)
            if len(window) >= self.buffer:
                yield _take(window, rng)
        while window:
            yield _take(window, rng)


def _example(name: str, clip: Encoded) -> Example:
    gain = {} if clip.gain is None else {"gain": float(clip.gain)}
    return {"id": name, "codes": clip.codes[0], "num_samples": int(clip.num_samples)} | gain


def _take(window: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
    chosen = int(rng.integers(len(window)))
    window[chosen], window[-1] = window[-1], window[chosen]
    return window.pop()


def collate(examples: list[Example], pad: int = 0) -> dict[str, Any]:
    """A batch for a DataLoader: codes int64 [B, K', T], `pad` behind a clip's end; num_frames and num_samples [B].

    Where the examples have a gain: gain, float32 [B].
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
