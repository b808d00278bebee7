"""Batches of random crops. Batch n depends only on the seed and n, so a resumed run sees the same batches."""

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
from vocable.training.device_store import INT16_SCALE, DeviceStore
from vocable.training.recipe import Recipe

#: Shorter utterances are left out: a fifth of a second does not hold a syllable.
SHORTEST_SECONDS = 0.2
#: The crop length of a bucket is this fraction of that of the next longer bucket.
BUCKET_RATIO = 0.8


@dataclass
class Batch:
    """Crops of B clips, L samples or T frames each."""

    waveform: Tensor  #: float32 [B, L]
    targets: Tensor | None  #: the teacher's: features float32 [B, T, D], or units int64 [B, T]
    num_layers: Tensor  #: int64 [B], layers that each clip is decoded from
    phones: Tensor | None  #: int64 [B, T], -100 where none is known
    speakers: Tensor  #: int64 [B], indices into `CropBatches.speakers`, -100 where none is known


@dataclass
class Bucket:
    """Utterances that are long enough for one crop length and too short for the next longer one."""

    crop_frames: int
    utterances: np.ndarray  #: int64 [N], indices of utterances
    probabilities: np.ndarray  #: float64 [N], of each utterance, in proportion to its duration


class CropBatches:
    """Random crops that begin on a frame; `batches[n]` is batch n. Every hour of speech is equally likely.

    Utterances shorter than a crop are in batches of their own, with shorter crops. A batch can be read as several
    micro-batches, one for each process say;  its contents do not depend on their number.

    recipe: its data, codec, quantizer.dropout and seed are used. targets: features or units of all utterances. phones:
    labels of some of them. progress: called with the seconds of each utterance that is preloaded.

    Raises ValueError if no utterance is long enough, if crops are too short, or if `targets` lacks utterances.
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
        #: Names of the speakers in the manifest, which `Batch.speakers` numbers.
        self.speakers = sorted({u.speaker for u in self.utterances if u.speaker})
        numbers = {speaker: i for i, speaker in enumerate(self.speakers)}
        self._speaker_numbers = np.array([numbers.get(u.speaker or "", NO_UNIT) for u in self.utterances])
        weights = _sampling_weights(self.utterances, recipe.data.language_temperature)
        self.buckets = _make_buckets(weights, np.array([n for n in frames if n >= shortest]), crop_frames)
        self._bucket_probabilities = np.array([weights[b.utterances].sum() for b in self.buckets]) / weights.sum()
        #: The decoded utterances (int16) if preloaded, else empty. `CropBatches` of the same utterances may share them.
        self.clips: list[np.ndarray] = []
        if recipe.data.preload:
            pool = ThreadPoolExecutor(recipe.data.workers)
            try:
                for utterance, clip in zip(self.utterances, pool.map(self.decode, self.utterances), strict=True):
                    self.clips.append(clip)
                    progress(utterance.duration)
            finally:
                pool.shutdown(cancel_futures=True)
        self._store: DeviceStore | None = None

    def keep_on(self, device: torch.device) -> None:
        """Move the preloaded clips and their targets to a device, where crops are cut from now on.

        Raises ValueError if the clips are not preloaded.
        """
        if not self.clips:
            raise ValueError("data.on_device keeps all clips in memory: it needs data.preload")
        self._store = DeviceStore(
            self.clips,
            self.utterances,
            hop_length=self.hop_length,
            targets=self.targets,
            phones=self.phones,
            device=device,
        )
        self.clips = []

    def __getitem__(self, step: int) -> Batch:
        return self.micro_batch(step, 0, 1)

    def micro_batch(self, step: int, index: int, count: int) -> Batch:
        """Return number `index` of the `count` equal micro-batches of batch `step`; only its own clips are read."""
        batch_size, num_quantizers = self.recipe.data.batch_size, self.recipe.codec.num_quantizers
        rng = np.random.default_rng([self.recipe.seed, step])
        bucket = self.buckets[rng.choice(len(self.buckets), p=self._bucket_probabilities)]
        chosen = rng.choice(bucket.utterances, batch_size, p=bucket.probabilities)
        positions = rng.random(batch_size)  # of each crop, from 0 at the first possible start to 1 at the last
        # Quantizer dropout: n layers with a probability in proportion to 1 / n, since each further layer matters less.
        counts = np.arange(1, num_quantizers + 1)
        drawn = rng.choice(counts, batch_size, p=(1 / counts) / (1 / counts).sum())
        layers = np.where(rng.random(batch_size) < self.recipe.quantizer.dropout, drawn, num_quantizers)

        size = batch_size // count
        own = slice(index * size, (index + 1) * size)
        waveform, targets, phones = self._crops(chosen[own], positions[own], bucket.crop_frames)
        return Batch(
            waveform=waveform,
            targets=targets,
            num_layers=torch.from_numpy(layers[own]),
            phones=phones,
            speakers=torch.from_numpy(self._speaker_numbers[chosen[own]]),
        )

    def decode(self, utterance: Utterance) -> np.ndarray:
        """Read a whole utterance as int16 [L]."""
        limit = int(INT16_SCALE)
        decoded: np.ndarray = (self._read(utterance) * INT16_SCALE).round().clip(-limit, limit - 1).astype(np.int16)
        return decoded

    def _crops(
        self, chosen: np.ndarray, positions: np.ndarray, frames: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Cut a crop of `frames` frames from each chosen utterance: waveforms, targets and phones."""
        if self._store is not None:
            lengths = self._store.lengths
            starts = [self._start(int(i), lengths[i], p, frames) for i, p in zip(chosen, positions, strict=True)]
            return self._store.crops(chosen, np.array(starts), frames)
        crops = [self._crop(int(i), p, frames) for i, p in zip(chosen, positions, strict=True)]
        waveforms, targets, phones = zip(*crops, strict=True)
        return (
            torch.from_numpy(np.stack(waveforms)),
            torch.from_numpy(np.stack(targets)) if self.targets else None,
            torch.from_numpy(np.stack(phones)) if self.phones else None,
        )

    def _crop(
        self, index: int, position: float, frames: int
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Cut `frames` frames from an utterance: the waveform, the teacher's targets and the phones."""
        utterance = self.utterances[index]
        samples = self.clips[index].astype(np.float32) / INT16_SCALE if self.clips else self._read(utterance)
        start = self._start(index, len(samples), position, frames)
        waveform = samples[start * self.hop_length : (start + frames) * self.hop_length]
        targets = self.targets(utterance.id, start, frames) if self.targets else None
        return waveform, targets, self._phones_of(utterance.id, start, frames)

    def _start(self, index: int, num_samples: int, position: float, frames: int) -> int:
        """Return the first frame of a crop at `position`, 0 to 1, in an utterance of `num_samples` samples."""
        utterance = self.utterances[index]
        num_starts = num_samples // self.hop_length - frames + 1
        if num_starts < 1:
            raise ValueError(
                f"{utterance.path}: shorter than the {utterance.duration:g} s that the manifest says; "
                "`vocable prepare check` finds such files"
            )
        return int(position * num_starts)

    def _phones_of(self, utterance_id: str, start: int, frames: int) -> np.ndarray | None:
        if self.phones is None:
            return None
        if utterance_id not in self.phones:
            return np.full(frames, NO_UNIT, np.int64)
        return self.phones(utterance_id, start, frames)

    def _read(self, utterance: Utterance) -> np.ndarray:
        """Read a whole utterance at the level that the encoder expects, float32 [L]."""
        samples, _ = audio.read(utterance.path, self.sample_rate)
        return condition(torch.from_numpy(samples), self.recipe.codec)[0].numpy()


def _sampling_weights(utterances: Sequence[Utterance], temperature: float) -> np.ndarray:
    """Return unnormalized probabilities of utterances, float64 [N]: the duration times a factor for its language.

    A language with a fraction p of the hours then has a probability in proportion to p ** temperature.
    """
    durations = np.array([u.duration for u in utterances])
    languages = np.array([u.language or "" for u in utterances])
    hours = {language: durations[languages == language].sum() for language in set(languages.tolist())}
    fractions = np.array([hours[language] for language in languages.tolist()]) / durations.sum()
    weights: np.ndarray = durations * fractions ** (temperature - 1.0)
    return weights


def _make_buckets(weights: np.ndarray, frames: np.ndarray, crop_frames: int) -> list[Bucket]:
    """Make a bucket of the utterances that hold a whole crop, and further ones for shorter utterances.

    weights: unnormalized probabilities. frames: length of each utterance.
    """
    buckets: list[Bucket] = []
    crop, above = crop_frames, math.inf
    while (frames < above).any():
        chosen = np.flatnonzero((frames >= crop) & (frames < above))
        if len(chosen):
            buckets.append(Bucket(crop, chosen, weights[chosen] / weights[chosen].sum()))
        crop, above = max(1, int(crop * BUCKET_RATIO)), crop
    return buckets
