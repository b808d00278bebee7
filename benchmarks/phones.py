"""How much content is in RVQ-1: the phones that a linear classifier reads from it.

The phones are what `hama`, a phone recogniser with CTC, hears in the original speech: its greedy symbol at the frames
where it emits one. No forced alignment, and no text, is involved.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vocable import SpeechTokenizer

RVQ1 = slice(0, 1)
SAMPLE_RATE, HOP_LENGTH = 16_000, 320  #: of the recogniser, and so of the codecs that are compared
#: Frames by which hama's symbols come after the sound. One log-mel frame of 10 ms predicts the symbol best from 40 ms
#: before it (30 % right; 17 % from where it stands, 7 % by chance; fitted on 65 training clips, tested on 25 others).
PHONE_LAG = 2
#: Weight of the squared coefficients of the phone classifier, beside the mean cross-entropy.
DECAY = 1e-4


class PhoneRecogniser:
    """hama, as a function of speech [L] at 16 kHz."""

    def __init__(self) -> None:
        from hama import ASRModel

        self._model = ASRModel()
        # A phone's name begins with a letter; those of the blank, the word boundary and stray diacritics do not.
        self._is_phone = torch.tensor([token[0].isalpha() for token in self._model.decoder_tokens])
        self.num_phones = len(self._is_phone)

    def __call__(self, waveform: np.ndarray) -> tuple[Tensor, Tensor]:
        """The frames in which a phone was heard, and which one: two of int64 [N]."""
        heard = torch.tensor(self._model(waveform, SAMPLE_RATE).frame_token_ids)
        frames = torch.arange(len(heard)) - PHONE_LAG
        inside = self._is_phone[heard] & (frames >= 0) & (frames < -(-len(waveform) // HOP_LENGTH))
        return frames[inside], heard[inside]


class PhoneReader:
    """The best linear reading of phones from one codec's RVQ-1.

    The codebook has N vectors, so counts by code are all that the fit needs of the speech, and what the classifier
    reads is a table with a row for each code.
    """

    def __init__(self, tok: SpeechTokenizer, num_phones: int) -> None:
        if (tok.sample_rate, tok.hop_length) != (SAMPLE_RATE, HOP_LENGTH):
            raise ValueError(f"{tok.id}: phones need frames of {HOP_LENGTH} samples at {SAMPLE_RATE} Hz")
        self.vectors = tok.embed(torch.arange(tok.codebook_size)[None, None], layers=RVQ1)[0].T.double()  # [N, D]
        #: How often each phone came with each code.
        self.counts = torch.zeros(tok.codebook_size, num_phones, dtype=torch.float64)

    def learn(self, codes: Tensor, frames: Tensor, phones: Tensor) -> None:
        """Add a clip to the counts. codes: RVQ-1's [T]; frames, phones: the recogniser's."""
        self.counts.index_put_((codes[frames], phones), torch.ones(1, dtype=torch.float64), accumulate=True)

    def fit(self) -> None:
        self.phone_by_code = softmax_regression(self.vectors, self.counts).argmax(1)  # [N]
        #: The same phone for every frame, the most common one of the fit, is what knowing nothing earns.
        self.commonest = self.counts.sum(0).argmax()

    def right(self, codes: Tensor, frames: Tensor, phones: Tensor) -> float:
        """How many phones of a clip the classifier reads from its codes [T]."""
        return float((self.phone_by_code[codes[frames]] == phones).sum())


def softmax_regression(vectors: Tensor, counts: Tensor) -> Tensor:
    """The scores [N, C] of a multinomial logistic regression. vectors: [N, D]. counts: [N, C], labels by vector.

    The problem is convex and starts at zero, so no seed is involved.
    """
    share = counts / counts.sum()
    mean = share.sum(1) @ vectors
    deviation = (share.sum(1) @ (vectors - mean).square()).sqrt().clamp_min(1e-8)
    inputs = (vectors - mean) / deviation
    weight = torch.zeros(vectors.shape[1], counts.shape[1], dtype=vectors.dtype, requires_grad=True)
    bias = torch.zeros(counts.shape[1], dtype=vectors.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -(share * (inputs @ weight + bias).log_softmax(1)).sum() + DECAY / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (inputs @ weight + bias).detach()
