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
from vocable.codec.level import condition
from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache
from vocable.semantic.distillation import NO_UNIT
from vocable.semantic.units import UnitCache
from vocable.training.recipe import Recipe

#: Shorter utterances are left out: a fifth of a second holds no syllable.
SHORTEST_SECONDS = 0.2
#: The crops of neighbouring buckets differ by this factor.
BUCKET_RATIO = 0.8


@dataclass
class Batch:
    waveform: Tensor  #: float32 [B, L]
    targets: Tensor | None  #: the teacher's, beside the waveform: features float32 [B, T, D], or units int64 [B, T]
    num_layers: Tensor  #: int64 [B], layers that each clip is decoded from
    phones: Tensor | None  #: int64 [B, T], -100 where none is known
    speakers: Tensor  #: int64 [B], numbers in the order of `CropBatches.speakers`, -100 where none is known


@dataclass
class Bucket:
    """Utterances that are long enough for one length of crop, and too short for the next."""

    crop_frames: int
    utterances: np.ndarray  #: their indices
    chances: np.ndarray  #: of each, in proportion to its duration


class CropBatches:
    """Random crops that begin on a frame, longer utterances proportionally more often; item n is batch n.

    Utterances shorter than a crop come in batches of their own, with shorter crops. A batch can be had in parts, for
    several processes: what is in it does not depend on that.

    recipe: its data, codec, quantizer.dropout and seed. targets: of all utterances. phones: labels of some of them.
    progress: called with the seconds of each clip that is preloaded.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        recipe: Recipe,
        *,
        targets: FeatureCache | UnitCache | None = None,
        phones: UnitCache | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.recipe, self.targets, self.phones = recipe, targets, phones
        self.sample_rate, self.hop_length = recipe.codec.sample_rate, recipe.codec.hop_length
        # A manifest's duration may be rounded up by a sample or two.
        frames = [int((u.duration - 0.001) * self.sample_rate / self.hop_length) for u in utterances]
        shortest = math.ceil(SHORTEST_SECONDS * self.sample_rate / self.hop_length)
        crop_frames = round(recipe.data.crop_seconds * (self.sample_rate / self.hop_length))
        if crop_frames < shortest:
            raise ValueError(f"data.crop_seconds must be at least {SHORTEST_SECONDS}")
        self.utterances = [u for u, count in zip(utterances, frames, strict=True) if count >= shortest]
        self.left_out = len(utterances) - len(self.utterances)
        if not self.utterances:
            raise ValueError(f"no utterance is longer than {SHORTEST_SECONDS} s: there is nothing to train on")
        missing = [u.id for u in self.utterances if targets is not None and u.id not in targets]
        if missing:
            raise ValueError(f"the teacher's cache lacks {len(missing)} utterances ({missing[0]}, ...); make it again")
        #: Speakers that a classifier can tell apart: all but clips whose speaker is unknown.
        self.speakers = sorted({u.speaker for u in self.utterances if u.speaker})
        numbers = {speaker: i for i, speaker in enumerate(self.speakers)}
        self._speaker = np.array([numbers.get(u.speaker or "", NO_UNIT) for u in self.utterances])
        durations = _weighted(self.utterances, recipe.data.language_temperature)
        self.buckets = _buckets(durations, np.array([n for n in frames if n >= shortest]), crop_frames)
        self._chances = np.array([durations[b.utterances].sum() for b in self.buckets]) / durations.sum()
        #: The utterances decoded, int16, or nothing; those of other batches of the same utterances will do.
        self.clips: list[np.ndarray] = []
        if recipe.data.preload:
            pool = ThreadPoolExecutor(recipe.data.workers)
            try:
                for utterance, clip in zip(self.utterances, pool.map(self.decode, self.utterances), strict=True):
                    self.clips.append(clip)
                    progress(utterance.duration)
            finally:
                pool.shutdown(cancel_futures=True)
        self._on_device: _DeviceStore | None = None

    def keep_on(self, device: torch.device) -> None:
        """Move the clips and their targets to a device, where batches are cut from now on. ValueError without clips."""
        if not self.clips:
            raise ValueError("data.on_device keeps all clips in memory: it needs data.preload")
        self._on_device = _DeviceStore(self, device)
        self.clips = []

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, parts: int) -> Batch:
        """The index-th of `parts` equal parts of batch `step`; only its own clips are read."""
        batch_size, num_quantizers = self.recipe.data.batch_size, self.recipe.codec.num_quantizers
        rng = np.random.default_rng([self.recipe.seed, step])
        bucket = self.buckets[rng.choice(len(self.buckets), p=self._chances)]
        chosen = rng.choice(bucket.utterances, batch_size, p=bucket.chances)
        where = rng.random(batch_size)  # of each crop, between the first and the last place it can have
        # Quantizer dropout: n layers with a chance in proportion to 1 / n, since each further layer matters less.
        counts = np.arange(1, num_quantizers + 1)
        drawn = rng.choice(counts, batch_size, p=(1 / counts) / (1 / counts).sum())
        layers = np.where(rng.random(batch_size) < self.recipe.quantizer.dropout, drawn, num_quantizers)

        size = batch_size // parts
        mine = slice(index * size, (index + 1) * size)
        speakers, num_layers = torch.from_numpy(self._speaker[chosen[mine]]), torch.from_numpy(layers[mine])
        if self._on_device is not None:
            waveform, targets, phones = self._on_device.crops(chosen[mine], bucket.crop_frames, where[mine])
            return Batch(waveform, targets, num_layers, phones, speakers)
        crops = [self._crop(int(i), bucket.crop_frames, w) for i, w in zip(chosen[mine], where[mine], strict=True)]
        waveforms, found, labels = zip(*crops, strict=True)
        return Batch(
            waveform=torch.from_numpy(np.stack(waveforms)),
            targets=torch.from_numpy(np.stack(found)) if self.targets else None,
            num_layers=num_layers,
            phones=torch.from_numpy(np.stack(labels)) if self.phones else None,
            speakers=speakers,
        )

    def _crop(self, index: int, frames: int, where: float) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """`frames` frames of an utterance, the teacher's targets for them, and their phones."""
        samples, utterance = self._samples(index), self.utterances[index]
        start = int(where * self._places(index, len(samples), frames))
        waveform = samples[start * self.hop_length : (start + frames) * self.hop_length]
        targets = self.targets(utterance.id, start, frames) if self.targets else None
        return waveform, targets, self._phones_of(utterance.id, start, frames)

    def _places(self, index: int, samples: int, frames: int) -> int:
        """How many places a crop of `frames` frames has in an utterance of so many samples."""
        utterance = self.utterances[index]
        places = samples // self.hop_length - frames + 1
        if places < 1:
            raise ValueError(
                f"{utterance.path}: shorter than the {utterance.duration:g} s that the manifest says; "
                "`vocable prepare check` finds such files"
            )
        return places

    def _phones_of(self, utterance_id: str, start: int, frames: int) -> np.ndarray | None:
        if self.phones is None:
            return None
        if utterance_id not in self.phones:
            return np.full(frames, NO_UNIT, np.int64)
        return self.phones(utterance_id, start, frames)

    def decode(self, utterance: Utterance) -> np.ndarray:
        """A whole utterance as int16."""
        decoded: np.ndarray = (self._read(utterance) * 32768.0).round().clip(-32768, 32767).astype(np.int16)
        return decoded

    def _samples(self, index: int) -> np.ndarray:
        if self.clips:
            return self.clips[index].astype(np.float32) / 32768.0
        return self._read(self.utterances[index])

    def _read(self, utterance: Utterance) -> np.ndarray:
        """A whole utterance as the encoder takes it, float32 [L]."""
        samples, _ = audio.read(utterance.path, self.sample_rate)
        return condition(torch.from_numpy(samples), self.recipe.codec)[0].numpy()


class _DeviceStore:
    """The clips of a corpus and their targets as a few long tensors on a device, where crops are cut by index.

    Crops are the same as those that are cut on the CPU. A GPU takes all of a batch at once; threads that cut crops in
    Python hold up the thread that feeds the GPU.
    """

    def __init__(self, batches: CropBatches, device: torch.device) -> None:
        self.batches, self.device = batches, device
        self.lengths = [len(clip) for clip in batches.clips]
        self.starts = np.cumsum([0, *self.lengths[:-1]])
        self.samples = torch.from_numpy(np.concatenate(batches.clips)).to(device)
        self.targets = _DeviceFrames(batches.targets, batches.utterances, device) if batches.targets else None
        self.phones = _DeviceFrames(batches.phones, batches.utterances, device) if batches.phones else None

    def crops(self, chosen: np.ndarray, frames: int, where: np.ndarray) -> tuple[Tensor, Tensor | None, Tensor | None]:
        hop = self.batches.hop_length
        places = [self.batches._places(int(i), self.lengths[i], frames) for i in chosen]
        starts = (where * places).astype(np.int64)
        begin = torch.from_numpy(self.starts[chosen] + starts * hop).to(self.device)
        waveform = self.samples[begin[:, None] + torch.arange(frames * hop, device=self.device)]
        targets = self.targets.crops(chosen, starts, frames) if self.targets else None
        phones = self.phones.crops(chosen, starts, frames) if self.phones else None
        return waveform.float() / 32768.0, targets, phones


class _DeviceFrames:
    """What a cache holds of some utterances, on a device."""

    def __init__(self, cache: FeatureCache | UnitCache, utterances: Sequence[Utterance], device: torch.device) -> None:
        self.rows = torch.from_numpy(np.concatenate(cache.shards)).to(device)
        begins = np.cumsum([0, *map(len, cache.shards[:-1])])
        places = [cache.places.get(u.id, (0, 0, 0)) for u in utterances]
        self.begin = np.array([begins[shard] + start for shard, start, _ in places])
        self.length = np.array([length for _, _, length in places])
        self.mean = torch.from_numpy(cache.mean).to(device) if isinstance(cache, FeatureCache) else None

    def crops(self, chosen: np.ndarray, starts: np.ndarray, frames: int) -> Tensor:
        place = starts[:, None] + np.arange(frames)
        inside = place < self.length[chosen, None]
        index = np.where(inside, self.begin[chosen, None] + place, 0)
        device = self.rows.device
        rows, known = self.rows[torch.from_numpy(index).to(device)], torch.from_numpy(inside).to(device)
        if self.mean is None:
            return rows.long().masked_fill(~known, NO_UNIT)
        return (rows.float() - self.mean) * known[..., None]


def _weighted(utterances: Sequence[Utterance], temperature: float) -> np.ndarray:
    """The chance of each utterance, not normalized: its duration, times what its language's share of the hours asks."""
    durations = np.array([u.duration for u in utterances])
    languages = np.array([u.language or "" for u in utterances])
    hours = {language: durations[languages == language].sum() for language in set(languages.tolist())}
    shares = np.array([hours[language] for language in languages.tolist()]) / durations.sum()
    weighted: np.ndarray = durations * shares ** (temperature - 1.0)
    return weighted


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
