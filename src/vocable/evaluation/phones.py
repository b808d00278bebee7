"""Phones by frame, for information and linear readings: what `hama`, a phone recogniser with CTC, hears in recordings.

Its greedy symbol at the frames where it emits one. No forced alignment, and no text, is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocable.extras import need

SAMPLE_RATE = 16_000
FRAME_RATE = 50.0  #: of its symbols
#: Frames by which hama's symbols come after the sound. One log-mel frame of 10 ms predicts the symbol best from 40 ms
#: before it (30 % right; 17 % from where it stands, 7 % by chance; fitted on 65 training clips, tested on 25 others).
PHONE_LAG = 2


@dataclass(frozen=True)
class Phones:
    """Where phones were heard in a clip, and which."""

    seconds: np.ndarray  #: float64 [N], the middle of the frame
    phones: np.ndarray  #: int64 [N]

    def frames(self, frame_rate: float, num_frames: int) -> np.ndarray:
        """The frames of a tokenizer that they fall into: int64 [N]."""
        frames: np.ndarray = (self.seconds * frame_rate).astype(np.int64).clip(0, num_frames - 1)
        return frames


class PhoneRecogniser:
    """hama, as a function of speech [L] at 16 kHz."""

    def __init__(self) -> None:
        self._model = need("hama", "eval").ASRModel()
        # A phone's name begins with a letter; those of the blank, the word boundary and stray diacritics do not.
        self._is_phone = np.array([token[0].isalpha() for token in self._model.decoder_tokens])
        self.num_phones = len(self._is_phone)

    def __call__(self, waveform: np.ndarray) -> Phones:
        heard = np.asarray(self._model(waveform, SAMPLE_RATE).frame_token_ids)
        frames = np.arange(len(heard)) - PHONE_LAG
        inside = self._is_phone[heard] & (frames >= 0) & (frames < len(waveform) / SAMPLE_RATE * FRAME_RATE)
        return Phones((frames[inside] + 0.5) / FRAME_RATE, heard[inside].astype(np.int64))


def softmax_regression(vectors: Tensor, counts: Tensor, decay: float = 1e-4) -> Tensor:
    """The scores of a multinomial logistic regression, as a linear map and a bias: float64 [D, C] and [C].

    vectors: [N, D]. counts: [N, C], how often each label came with each vector. decay: weight of the squared
    coefficients (of standardised inputs) beside the mean cross-entropy. The problem is convex and starts at zero, so
    no seed is involved.
    """
    vectors, share = vectors.double(), counts.double() / counts.sum()
    mean = share.sum(1) @ vectors
    deviation = (share.sum(1) @ (vectors - mean).square()).sqrt().clamp_min(1e-8)
    inputs = (vectors - mean) / deviation
    weight = torch.zeros(vectors.shape[1], counts.shape[1], dtype=vectors.dtype, requires_grad=True)
    bias = torch.zeros(counts.shape[1], dtype=vectors.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -(share * (inputs @ weight + bias).log_softmax(1)).sum() + decay / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight = (weight / deviation[:, None]).detach()
    return torch.cat([weight, (bias.detach() - mean @ weight)[None]])
