"""Batches for the codec trainer. Batch n follows from the seed and n alone, so a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache


@dataclass
class Batch:
    waveform: Tensor  #: float32 [B, L]
    features: Tensor | None  #: the teacher's, float32 [B, T, D], frame by frame beside the waveform
    num_layers: Tensor  #: int64 [B], layers that each clip is decoded from


class CropBatches:
    """Random crops that begin on a frame, longer utterances proportionally more often; item n is batch n."""

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
        features: FeatureCache | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        crop_seconds = crop_frames * hop_length / sample_rate
        #: Too short to cut a crop from. A manifest's duration may be rounded up by a sample or two.
        self.utterances = [u for u in utterances if u.duration > crop_seconds + 0.01]
        self.left_out = len(utterances) - len(self.utterances)
        if not self.utterances:
            raise ValueError(f"no utterance is longer than the crop of {crop_seconds:g} s; lower data.crop_seconds")
        missing = [u.id for u in self.utterances if features is not None and u.id not in features]
        if missing:
            raise ValueError(f"the feature cache lacks {len(missing)} utterances ({missing[0]}, ...); extract it again")
        self.sample_rate, self.hop_length, self.crop_frames = sample_rate, hop_length, crop_frames
        self.batch_size, self.num_quantizers, self.dropout, self.seed = batch_size, num_quantizers, dropout, seed
        self.features = features
        durations = np.array([u.duration for u in self.utterances])
        self._chances = durations / durations.sum()
        self._clips: list[np.ndarray] = []
        for utterance in self.utterances if preload else []:
            samples = audio.read(utterance.path, sample_rate)[0]
            self._clips.append((samples * 32768.0).round().clip(-32768, 32767).astype(np.int16))
            progress(utterance.duration)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        waveforms, features = [], []
        for index in rng.choice(len(self.utterances), self.batch_size, p=self._chances):
            samples = self._samples(int(index))
            if len(samples) < self.crop_frames * self.hop_length:
                path, seconds = self.utterances[index].path, self.utterances[index].duration
                raise ValueError(f"{path}: shorter than the {seconds:g} s that the manifest says; mend the manifest")
            start = int(rng.integers(0, len(samples) // self.hop_length - self.crop_frames + 1))
            begin = start * self.hop_length
            waveforms.append(samples[begin : begin + self.crop_frames * self.hop_length])
            if self.features is not None:
                features.append(self.features(self.utterances[index].id, start, self.crop_frames))
        # Quantizer dropout: n layers with a chance in proportion to 1 / n, since each further layer matters less.
        counts = np.arange(1, self.num_quantizers + 1)
        drawn = rng.choice(counts, self.batch_size, p=(1 / counts) / (1 / counts).sum())
        layers = np.where(rng.random(self.batch_size) < self.dropout, drawn, self.num_quantizers)
        return Batch(
            waveform=torch.from_numpy(np.stack(waveforms)),
            features=torch.from_numpy(np.stack(features)) if features else None,
            num_layers=torch.from_numpy(layers),
        )

    def _samples(self, index: int) -> np.ndarray:
        if self._clips:
            return self._clips[index].astype(np.float32) / 32768.0
        return audio.read(self.utterances[index].path, self.sample_rate)[0]
