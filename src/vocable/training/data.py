"""Batches for the codec trainer. Batch n follows from the seed and n alone, so a resumed run sees the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache
from vocable.semantic.units import UnitCache

#: Shorter utterances are left out: a fifth of a second holds no syllable.
SHORTEST_SECONDS = 0.2
#: The crops of neighbouring buckets differ by this factor.
BUCKET_RATIO = 0.8


@dataclass
class Batch:
    waveform: Tensor  #: float32 [B, L]
    targets: Tensor | None  #: the teacher's, beside the waveform: features float32 [B, T, D], or units int64 [B, T]
    num_layers: Tensor  #: int64 [B], layers that each clip is decoded from


@dataclass
class Bucket:
    """Utterances that are long enough for one length of crop, and too short for the next."""

    crop_frames: int
    utterances: np.ndarray  #: their indices
    chances: np.ndarray  #: of each, in proportion to its duration


class CropBatches:
    """Random crops that begin on a frame, longer utterances proportionally more often; item n is batch n.

    Utterances shorter than a crop come in batches of their own, with shorter crops. A batch can be had in parts, for
    several processes: what is in it does not depend on that. workers: threads that decode the clips to preload.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        *,
        sample_rate: int,
        hop_length: int,
        crop_frames: int,
        batch_size: int,
        num_quantizers: int,
        dropout: float,
        seed: int,
        preload: bool,
        workers: int = 1,
        targets: FeatureCache | UnitCache | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        # A manifest's duration may be rounded up by a sample or two.
        frames = [int((u.duration - 0.001) * sample_rate / hop_length) for u in utterances]
        shortest = math.ceil(SHORTEST_SECONDS * sample_rate / hop_length)
        if crop_frames < shortest:
            raise ValueError(f"data.crop_seconds must be at least {SHORTEST_SECONDS}")
        self.utterances = [u for u, count in zip(utterances, frames, strict=True) if count >= shortest]
        self.left_out = len(utterances) - len(self.utterances)
        if not self.utterances:
            raise ValueError(f"no utterance is longer than {SHORTEST_SECONDS} s: there is nothing to train on")
        missing = [u.id for u in self.utterances if targets is not None and u.id not in targets]
        if missing:
            raise ValueError(f"the teacher's cache lacks {len(missing)} utterances ({missing[0]}, ...); make it again")
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.batch_size, self.num_quantizers, self.dropout, self.seed = batch_size, num_quantizers, dropout, seed
        self.targets = targets
        durations = np.array([u.duration for u in self.utterances])
        self.buckets = _buckets(durations, np.array([n for n in frames if n >= shortest]), crop_frames)
        self._chances = np.array([durations[b.utterances].sum() for b in self.buckets]) / durations.sum()
        #: The utterances decoded, int16, or nothing; those of other batches of the same utterances will do.
        self.clips: list[np.ndarray] = []
        if preload:
            pool = ThreadPoolExecutor(workers)
            try:
                for utterance, clip in zip(self.utterances, pool.map(self.decode, self.utterances), strict=True):
                    self.clips.append(clip)
                    progress(utterance.duration)
            finally:
                pool.shutdown(cancel_futures=True)

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, parts: int) -> Batch:
        """The index-th of `parts` equal parts of batch `step`; only its own clips are read."""
        rng = np.random.default_rng([self.seed, step])
        bucket = self.buckets[rng.choice(len(self.buckets), p=self._chances)]
        chosen = rng.choice(bucket.utterances, self.batch_size, p=bucket.chances)
        where = rng.random(self.batch_size)  # of each crop, between the first and the last place it can have
        # Quantizer dropout: n layers with a chance in proportion to 1 / n, since each further layer matters less.
        counts = np.arange(1, self.num_quantizers + 1)
        drawn = rng.choice(counts, self.batch_size, p=(1 / counts) / (1 / counts).sum())
        layers = np.where(rng.random(self.batch_size) < self.dropout, drawn, self.num_quantizers)

        size = self.batch_size // parts
        mine = slice(index * size, (index + 1) * size)
        crops = [self._crop(int(i), bucket.crop_frames, w) for i, w in zip(chosen[mine], where[mine], strict=True)]
        return Batch(
            waveform=torch.from_numpy(np.stack([waveform for waveform, _ in crops])),
            targets=torch.from_numpy(np.stack([t for _, t in crops if t is not None])) if self.targets else None,
            num_layers=torch.from_numpy(layers[mine]),
        )

    def _crop(self, index: int, frames: int, where: float) -> tuple[np.ndarray, np.ndarray | None]:
        """`frames` frames of an utterance, and the teacher's targets for them."""
        samples, utterance = self._samples(index), self.utterances[index]
        places = len(samples) // self.hop_length - frames + 1
        if places < 1:
            raise ValueError(
                f"{utterance.path}: shorter than the {utterance.duration:g} s that the manifest says; "
                "`vocable prepare check` finds such files"
            )
        start = int(where * places)
        waveform = samples[start * self.hop_length : (start + frames) * self.hop_length]
        return waveform, self.targets(utterance.id, start, frames) if self.targets else None

    def decode(self, utterance: Utterance) -> np.ndarray:
        """A whole utterance as int16."""
        samples = audio.read(utterance.path, self.sample_rate)[0]
        decoded: np.ndarray = (samples * 32768.0).round().clip(-32768, 32767).astype(np.int16)
        return decoded

    def _samples(self, index: int) -> np.ndarray:
        if self.clips:
            return self.clips[index].astype(np.float32) / 32768.0
        return audio.read(self.utterances[index].path, self.sample_rate)[0]


def _buckets(durations: np.ndarray, frames: np.ndarray, crop_frames: int) -> list[Bucket]:
    """One bucket for all that a whole crop fits into, then as many as there are shorter utterances for."""
    buckets: list[Bucket] = []
    crop, above = crop_frames, math.inf
    while (frames < above).any():
        chosen = np.flatnonzero((frames >= crop) & (frames < above))
        if len(chosen):
            buckets.append(Bucket(crop, chosen, durations[chosen] / durations[chosen].sum()))
        crop, above = max(1, int(crop * BUCKET_RATIO)), crop
    return buckets
