"""A tokenized corpus for training: by index, or as a shuffled stream that several ranks and workers share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vocable.codec.tokens import Encoded
from vocable.corpus.tokenize import read_index, read_shard

Example = dict[str, Any]  #: "id": str, "codes": int64 [K', T], "num_samples": int


class TokenDataset(Dataset[Example]):
    """Clips by number, in the corpus's order: for corpora whose list of clips fits in memory, some 100 bytes a clip.

    Reads shards in tar; each clip is one seek and one read.
    """

    def __init__(self, corpus: Path | str) -> None:
        self.corpus = Path(corpus)
        index = read_index(self.corpus)
        if index["plan"]["format"] != "tar":
            raise ValueError(f"{self.corpus}: clips of parquet shards come as a stream: TokenStream")
        self.codec_id: str = index["plan"]["codec_id"]
        self._shards = [self.corpus / "shards" / entry["shard"] for entry in index["shards"]]
        self.ids: list[str] = []
        self.num_frames: list[int] = []  #: of each clip, for batches of like lengths
        places = []
        for number, shard in enumerate(self._shards):
            for name, (start, size, frames) in json.loads(shard.with_suffix(".json").read_text())["clips"].items():
                self.ids.append(name)
                self.num_frames.append(frames)
                places.append((number, start, size))
        self._places = np.array(places, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: int) -> Example:
        shard, start, size = self._places[item].tolist()
        with open(self._shards[shard], "rb") as file:
            file.seek(start)
            return _example(self.ids[item], Encoded.from_bytes(file.read(size), f"{self._shards[shard]}, {item}"))


class TokenStream(IterableDataset[Example]):
    """Clips of all shards, without end, each pass in another order.

    Shards are shuffled and dealt out to ranks and their workers, and clips are shuffled among the `buffer` that are
    held. `state_dict()` is where this reader stands, and `load_state_dict` goes on from there with the same clips, for
    the same numbers of ranks and workers. Each worker of a DataLoader is a reader of its own: torchdata's
    StatefulDataLoader keeps their states, torch's DataLoader does not.
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
        """buffer: 1 leaves each shard in order. passes: end after so many (None: never)."""
        self.corpus = Path(corpus)
        index = read_index(self.corpus)
        self.codec_id: str = index["plan"]["codec_id"]
        self._shards = [self.corpus / "shards" / entry["shard"] for entry in index["shards"]]
        self.seed, self.buffer, self.rank, self.world_size, self.passes = seed, buffer, rank, world_size, passes
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of {world_size}")
        self._pass, self._done = 0, 0  # where it stands: clips of this pass that were given out

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "pass": self._pass, "done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["seed"] != self.seed:
            raise ValueError(f"this position is of seed {state['seed']}, the stream has {self.seed}")
        self._pass, self._done = state["pass"], state["done"]

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        share = self.rank, self.world_size
        if worker is not None:
            share = self.rank * worker.num_workers + worker.id, self.world_size * worker.num_workers
        if len(self._shards) < share[1]:
            raise ValueError(f"{len(self._shards)} shards cannot be dealt out to {share[1]} readers: smaller shards")
        while self.passes is None or self._pass < self.passes:
            for example in itertools.islice(self._one_pass(self._pass, *share), self._done, None):
                self._done += 1
                yield example
            self._pass, self._done = self._pass + 1, 0

    def _one_pass(self, number: int, reader: int, readers: int) -> Iterator[Example]:
        # All readers shuffle the shards alike, so that each shard has one reader in a pass.
        order = np.random.default_rng([self.seed, number]).permutation(len(self._shards))[reader::readers]
        rng = np.random.default_rng([self.seed, number, reader])
        held: list[tuple[str, Encoded]] = []
        for shard in order:
            for clip in read_shard(self._shards[shard]):
                held.append(clip)
                if len(held) >= self.buffer:
                    yield _example(*_take(held, rng))
        while held:
            yield _example(*_take(held, rng))


def _take(held: list[tuple[str, Encoded]], rng: np.random.Generator) -> tuple[str, Encoded]:
    chosen = int(rng.integers(len(held)))
    held[chosen], held[-1] = held[-1], held[chosen]
    return held.pop()


def _example(name: str, clip: Encoded) -> Example:
    return {"id": name, "codes": clip.codes[0], "num_samples": int(clip.num_samples)}


def collate(examples: list[Example], pad: int = 0) -> dict[str, Any]:
    """A batch for a DataLoader: codes int64 [B, K', T], `pad` behind a clip's end; num_frames and num_samples [B]."""
    frames = torch.tensor([example["codes"].shape[1] for example in examples])
    layers = len(examples[0]["codes"])
    codes: Tensor = torch.full((len(examples), layers, int(frames.max())), pad, dtype=torch.int64)
    for row, example, length in zip(codes, examples, frames.tolist(), strict=True):
        row[:, :length] = example["codes"]
    return {
        "ids": [example["id"] for example in examples],
        "codes": codes,
        "num_frames": frames,
        "num_samples": torch.tensor([example["num_samples"] for example in examples]),
    }
