"""`ConversionStream`: voice conversion while the source comes.

RVQ-1 of the codec's stream goes to the NAR in blocks of frames, each with frames of context before it and of look-ahead
after it. The NAR's codes go to the codec's decoder. Blocks begin at fixed frames, so the result does not depend on the
arrays that the source is cut into.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Decoded, Encoded
from vocable.lm.nar import CHUNK, NAR

BLOCK, BEFORE, AFTER = 12, 100, 12  #: default frames of a block, of context before it, and of look-ahead after it


class ConversionStream:
    """Converts one recording to a voice while it comes. Made by `VoiceConverter.stream`.

    As many samples come out as went in. The speech has the codec's level, as that of `VoiceConverter.convert`.
    """

    def __init__(self, codec: SpeechTokenizer, nar: NAR, voice: Tensor, *, block: int, before: int, after: int) -> None:
        """voice: codes int64 [K, P]. block, before, after: in frames.

        Raises ValueError for a codec that cannot stream, for lengths below 1, 0 and 0, and for more frames than the NAR
        writes at once.
        """
        most = round(CHUNK * codec.frame_rate)
        if block < 1 or min(before, after) < 0 or before + block + after > most:
            raise ValueError(
                f"block is 1 or more, before and after are 0 or more, and their sum is at most {most} frames, not "
                f"{block}, {before} and {after}"
            )
        self.codec, self.nar, self.voice = codec, nar, voice
        self.block, self.before, self.after = block, before, after
        self._encoder, self._decoder = codec.stream(layers=slice(0, 1)), codec.stream()
        self._begin()

    @property
    def delay(self) -> int:
        """Delay in samples, from input to converted speech: at most, because a block waits for its last frame."""
        assert self.codec.delay is not None
        return self.codec.delay + (self.block - 1 + self.after) * self.codec.hop_length

    def convert(self, block: Tensor | np.ndarray) -> Decoded:
        """Convert the next samples, float [n] at the codec's rate; return the speech that later samples do not change.

        The result may have no samples. Raises AudioError as `Stream.encode` does.
        """
        self._add(self._encoder.encode(block))
        pieces = []
        while len(self._semantic) - self._start >= self.block + self.after:
            pieces.append(self._decoded(self.block))
        return _joined(pieces)

    def flush(self) -> Decoded:
        """End the recording: return the last speech. The stream then begins anew."""
        self._add(self._encoder.flush()[0])
        pieces = []
        while (left := len(self._semantic) - self._start) > 0:
            pieces.append(self._decoded(min(self.block, left)))
        pieces.append(self._decoder.flush()[1].waveform[0])
        self._begin()
        return _joined(pieces)

    def _begin(self) -> None:
        """Begin a new recording."""
        self._semantic = torch.zeros(0, dtype=torch.int64, device=self.codec.device)  #: frames that may be needed
        self._start = 0  #: the first of these frames that has not been decoded
        self._samples = 0  #: samples of the frames that have not been decoded

    def _add(self, encoded: Encoded) -> None:
        self._encoded = encoded
        self._semantic = torch.cat([self._semantic, encoded.codes[0, 0]])
        self._samples += int(encoded.num_samples)

    def _decoded(self, frames: int) -> Tensor:
        """Write and decode the next frames; return their speech, float32 [n]."""
        begin, stop = max(0, self._start - self.before), self._start + frames
        window = self._semantic[begin : stop + self.after]
        codes = self.nar.fill(window, self.voice)[None, :, self._start - begin : stop - begin]
        samples = min(frames * self.codec.hop_length, self._samples)
        filled = dataclasses.replace(
            self._encoded,
            codes=codes,
            num_frames=torch.tensor([frames], device="cpu"),
            num_samples=torch.tensor([samples], device="cpu"),
            layers=slice(0, self.codec.num_quantizers),
            gain=None,
        )
        self._semantic, self._start = self._semantic[begin:], stop - begin
        self._samples -= samples
        return self._decoder.decode(filled).waveform[0]


def _joined(pieces: list[Tensor]) -> Decoded:
    """Return pieces of speech, float32 [n], as one recording."""
    waveform = torch.cat(pieces) if pieces else torch.zeros(0, device="cpu")
    return Decoded(waveform[None], torch.tensor([len(waveform)], device="cpu"))
