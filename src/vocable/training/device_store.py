"""A corpus in the memory of the training device, where the crops of a batch are cut all at once.

The crops are the same as those that are cut on the CPU. There, threads that cut crops in Python slow down the
thread that feeds the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vocable.corpus.manifest import Utterance
from vocable.semantic.cache import FeatureCache
from vocable.semantic.distillation import NO_UNIT
from vocable.semantic.units import UnitCache

INT16_SCALE = 32768.0  #: int16 of a sample of 1.0


class DeviceStore:
    """The clips of a corpus, concatenated, with their targets and phones, on a device.

    clips: int16 [L] for each utterance. targets, phones: of the same utterances, or None.
    """

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        utterances: Sequence[Utterance],
        *,
        hop_length: int,
        targets: FeatureCache | UnitCache | None,
        phones: UnitCache | None,
        device: torch.device,
    ) -> None:
        self.hop_length, self.device = hop_length, device
        self.lengths = [len(clip) for clip in clips]  #: samples of each clip
        self.starts = np.cumsum([0, *self.lengths[:-1]])
        self.samples = torch.from_numpy(np.concatenate(clips)).to(device)
        self.targets = _DeviceFrames(targets, utterances, device) if targets else None
        self.phones = _DeviceFrames(phones, utterances, device) if phones else None

    def crops(self, chosen: np.ndarray, starts: np.ndarray, frames: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Cut a crop of `frames` frames from each of the `chosen` clips, from frame `starts` on.

        chosen: indices of clips, int64 [B]. starts: int64 [B]. Returns waveforms, float32 [B, L], their targets and
        their phones.
        """
        begin = torch.from_numpy(self.starts[chosen] + starts * self.hop_length).to(self.device)
        waveform = self.samples[begin[:, None] + torch.arange(frames * self.hop_length, device=self.device)]
        targets = self.targets.crops(chosen, starts, frames) if self.targets else None
        phones = self.phones.crops(chosen, starts, frames) if self.phones else None
        return waveform.float() / INT16_SCALE, targets, phones


class _DeviceFrames:
    """The rows of a feature or unit cache for some utterances, on a device."""

    def __init__(self, cache: FeatureCache | UnitCache, utterances: Sequence[Utterance], device: torch.device) -> None:
        self.rows = torch.from_numpy(np.concatenate(cache.shards)).to(device)
        shard_starts = np.cumsum([0, *map(len, cache.shards[:-1])])
        places = [cache.places.get(u.id, (0, 0, 0)) for u in utterances]
        self.starts = np.array([shard_starts[shard] + start for shard, start, _ in places])
        self.lengths = np.array([length for _, _, length in places])
        self.mean = torch.from_numpy(cache.mean).to(device) if isinstance(cache, FeatureCache) else None

    def crops(self, chosen: np.ndarray, starts: np.ndarray, frames: int) -> Tensor:
        """Return the rows of each crop, as `FeatureCache` and `UnitCache` do for a single one."""
        frame = starts[:, None] + np.arange(frames)
        inside = frame < self.lengths[chosen, None]
        index = np.where(inside, self.starts[chosen, None] + frame, 0)
        device = self.rows.device
        rows, known = self.rows[torch.from_numpy(index).to(device)], torch.from_numpy(inside).to(device)
        if self.mean is None:
            return rows.long().masked_fill(~known, NO_UNIT)
        return (rows.float() - self.mean) * known[..., None]
