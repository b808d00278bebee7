"""Phone labels of frames, from `hama`, a phone recogniser with a CTC head.

A label is the most likely symbol at a frame where it is not the blank. No forced alignment and no text is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.extras import need

FRAME_RATE = 50.0  #: of hama's symbols, per second
#: Frames by which hama's symbols are later than the sound. One log-mel frame of 10 ms predicts the symbol best if it is
#: 40 ms before it (30 % correct; 17 % without a lag, 7 % by chance; fitted on 65 training clips, tested on 25 others).
PHONE_LAG = 2


@dataclass(frozen=True)
class Phones:
    """The phones that were recognised in a clip, with their times."""

    seconds: np.ndarray  #: float64 [N], the middle of each phone's frame
    phones: np.ndarray  #: int64 [N], indices of hama's symbols

    def frames(self, frame_rate: float, num_frames: int) -> np.ndarray:
        """Return the frame of a tokenizer that contains each phone: int64 [N]."""
        frames: np.ndarray = (self.seconds * frame_rate).astype(np.int64).clip(0, num_frames - 1)
        return frames


class PhoneRecogniser:
    """hama, as a function of speech: float32 [L] at 16 kHz -> `Phones`."""

    def __init__(self) -> None:
        self._model = need("hama", "eval").ASRModel()
        # The names of phones begin with a letter; those of the blank, the word boundary and lone diacritics do not.
        self._is_phone = np.array([token[0].isalpha() for token in self._model.decoder_tokens])
        self.num_phones = len(self._is_phone)

    def __call__(self, waveform: np.ndarray) -> Phones:
        """Recognise the phones of one clip."""
        symbols = np.asarray(self._model(waveform, SAMPLE_RATE).frame_token_ids)
        frames = np.arange(len(symbols)) - PHONE_LAG
        inside = self._is_phone[symbols] & (frames >= 0) & (frames < len(waveform) / SAMPLE_RATE * FRAME_RATE)
        return Phones((frames[inside] + 0.5) / FRAME_RATE, symbols[inside].astype(np.int64))
