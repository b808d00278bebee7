"""`VocableFeatureExtractor`: recordings to a padded batch for `VocableModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor


class VocableFeatureExtractor(SequenceFeatureExtractor):  # type: ignore[misc]
    """Pads recordings to a batch, and checks their sample rate.

    sampling_rate: of the codec, in Hz. Other arguments are those of every feature extractor of transformers.
    """

    model_input_names: ClassVar[list[str]] = ["input_values", "padding_mask"]

    def __init__(
        self, feature_size: int = 1, sampling_rate: int = 16_000, padding_value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)

    def __call__(
        self,
        raw_audio: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        *,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Return "input_values", float32 [B, L], and "padding_mask", int [B, L], 1 on valid samples.

        raw_audio: one recording [L], or several. sampling_rate: of the recordings, in Hz; None: the codec's, unchecked.
        Other arguments are those of `SequenceFeatureExtractor.pad`. Raises ValueError for another sample rate, for
        recordings that are not mono, and for empty ones.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"the codec takes {self.sampling_rate} Hz, not {sampling_rate}: resample the recordings")
        if not len(raw_audio):
            raise ValueError("there is no recording")
        clips = [np.asarray(clip, np.float32) for clip in ([raw_audio] if np.isscalar(raw_audio[0]) else raw_audio)]
        for clip in clips:
            if clip.ndim != 1 or not len(clip):
                raise ValueError(f"a recording is mono, [L], with one sample or more, not {list(clip.shape)}")
        padded = self.pad(
            BatchFeature({"input_values": clips}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            return_attention_mask=True,
        )
        padded["padding_mask"] = padded.pop("attention_mask")
        return padded.convert_to_tensors(return_tensors) if return_tensors else padded
