"""The STFT of a codec, its inverse, and the noise on the phases of the decoder. Frames are [B, F, bins]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vocable.codec.layers import no_autocast
from vocable.codec.rvq import Float32Module
from vocable.codec.step import Step


class STFT(Float32Module):
    """STFT with `n_fft` samples per frame and a hop of `hop` samples, and its inverse, as real matrix products.

    Unlike torch.stft, real matrix products can be exported to any runtime. n_fft - hop zeros of padding make exactly
    L / hop frames of L samples.

    Offline, a frame is centred on its hop, half of the padding is on each side of the clip, and the window is a Hann
    window. A causal frame ends with its hop, all padding is before the clip, and the window rises over n_fft - hop
    samples and falls over the last hop. Phases are relative to the peak of the window, so that the phases of
    neighbouring bins of a partial are equal, and do not depend on the size of a causal frame.
    """

    window: Tensor
    steady: Tensor
    analysis: Tensor
    synthesis: Tensor

    def __init__(self, n_fft: int, hop: int, causal: bool = False) -> None:
        super().__init__()
        if n_fft % hop:
            raise ValueError(f"n_fft ({n_fft}) must be a multiple of the STFT hop ({hop})")
        self.n_fft, self.hop = n_fft, hop
        self.edge = n_fft - hop if causal else (n_fft - hop) // 2  #: zeros before the clip
        #: Lower limit of the summed squared window, which overlap-add divides by. The last hop of a causal clip belongs
        #: to one frame only, whose window falls to 0, and dividing by it would amplify noise.
        self.floor = 0.25 if causal else 1e-4
        bins = n_fft // 2 + 1
        with torch.device("cpu"):  # never on the meta device, because no checkpoint holds these buffers
            peak = n_fft - hop if causal else n_fft // 2
            samples = torch.arange(n_fft, dtype=torch.float64) - peak
            angle = 2 * math.pi * samples[:, None] * torch.arange(bins) / n_fft
            window = _causal_window(n_fft, hop) if causal else torch.hann_window(n_fft, dtype=torch.float64)
            # Each bin except the first and the last also represents its negative frequency.
            twice = torch.full((bins,), 2.0, dtype=torch.float64)
            twice[0] = twice[-1] = 1.0
            analysis, synthesis = torch.empty(2, n_fft, 2 * bins)
            for columns, part in ((slice(bins), torch.cos), (slice(bins, None), lambda x: -x.sin())):
                wave = part(angle)  # one at a time, to halve the memory
                analysis[:, columns] = window[:, None] * wave / math.sqrt(n_fft)
                synthesis[:, columns] = wave * twice * window[:, None] / math.sqrt(n_fft)
        self.register_buffer("window", window.float(), persistent=False)
        steady = window.float().square().view(-1, hop).sum(0)
        #: The summed squared window of the samples of a hop, if all frames that overlap them are there.
        self.register_buffer("steady", steady.clamp_min(self.floor), persistent=False)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis.T, persistent=False)

    def forward(self, waveform: Tensor, step: Step | None = None) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts: [B, L], L a multiple of the hop -> two of [B, L / hop, n_fft / 2 + 1].

        step: the streams whose next samples the waveform is; their state is the samples before it.
        """
        waveform = waveform.float()
        if step is None:
            padded = F.pad(waveform, (self.edge, self.n_fft - self.hop - self.edge))
        else:
            padded = step.extend("stft", waveform, self.edge)
        frames = padded.unfold(1, self.n_fft, self.hop)
        with no_autocast(waveform.device):
            real, imag = (frames @ self.analysis).chunk(2, dim=-1)
        return real, imag

    def inverse(self, real: Tensor, imag: Tensor, mask: Tensor | None, step: Step | None = None) -> Tensor:
        """Invert `forward`: overlap-add, divided by the summed squared window, without the padding.

        The inverse is exact except in the last hop of a causal clip. step: streams whose next frames these are; their
        state is the sum of the frames so far, and their output is delayed by n_fft - hop samples. `mask` [B, F, 1] then
        begins with the frames before these that overlap them.
        """
        with no_autocast(real.device):
            frames = torch.cat([real, imag], -1).float() @ self.synthesis
        count, before = frames.shape[1], 0 if step is None else self.n_fft // self.hop - 1
        if step is not None and mask is None:  # every sample is in as many frames as overlap
            return step.overlap("stft", self._overlap_add(frames), count * self.hop) / self.steady.repeat(count)
        weight = self.window.square().expand(1, count + before, -1)
        if mask is not None:
            frames, weight = frames * mask[:, before:], weight * mask
        summed, weight = self._overlap_add(frames), self._overlap_add(weight)
        if step is None:
            begin = self.edge
        else:
            summed, begin = step.overlap("stft", summed, count * self.hop), 0
            weight = weight[:, self.n_fft - self.hop :]
        end = begin + count * self.hop
        return summed[:, begin:end] / weight[:, begin:end].clamp_min(self.floor)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Overlap-add frames: [B, F, n_fft] -> [B, (F - 1) * hop + n_fft]."""
        # Piece i of the n_fft / hop pieces of a frame begins i hops after the frame.
        pieces = frames.view(*frames.shape[:2], -1, self.hop)
        count = pieces.shape[2]
        summed = sum(F.pad(pieces[:, :, i], (0, 0, i, count - 1 - i)) for i in range(count))
        assert isinstance(summed, Tensor)
        return summed.flatten(1)


def _causal_window(n_fft: int, hop: int) -> Tensor:
    """Return a window that rises as a sine over n_fft - hop samples and falls as a cosine over the last hop."""
    rise = torch.sin(math.pi / 2 * (torch.arange(n_fft - hop, dtype=torch.float64) + 0.5) / (n_fft - hop))
    fall = torch.cos(math.pi / 2 * (torch.arange(hop, dtype=torch.float64) + 0.5) / hop)
    return torch.cat([rise, fall])


class PhaseNoise(Float32Module):
    """Noise on the decoder's phase vectors: adds a vector of length `length` and pseudo-random direction to each one.

    Where the phase is predictable, the phase vector is long, and the noise hardly changes its direction. Elsewhere, as
    in fricatives, the noise makes the phase random; otherwise it would be the same in all frames, which is audible as
    a tone at the frame rate. The direction depends only on the frame's index and the bin, so decoding in chunks gives
    the same speech as decoding at once.
    """

    directions: Tensor

    PERIOD = 1021  #: fine frames (10 s) after which the directions repeat

    def __init__(self, bins: int, length: float) -> None:
        super().__init__()
        with torch.device("cpu"):
            angle = 2 * math.pi * _hash(torch.arange(self.PERIOD * bins)).view(self.PERIOD, bins)
            directions = length * torch.stack([angle.cos(), angle.sin()])
        self.register_buffer("directions", directions.float(), persistent=False)

    def forward(self, cosine: Tensor, sine: Tensor, first: int | Tensor) -> tuple[Tensor, Tensor]:
        """Add noise to phase vectors (cosine, sine), both [B, F, bins].

        first: index of the first frame in its clip, one number or int64 [B, 1].
        """
        rows = (first + torch.arange(cosine.shape[1], device=cosine.device)) % self.PERIOD
        return cosine + self.directions[0, rows], sine + self.directions[1, rows]


def _hash(numbers: Tensor) -> Tensor:
    """Return a pseudo-random number in [0, 1) for each integer, by two rounds of multiply and xor-shift in 32 bits.

    torch's generators are not used, because their numbers may change between versions.
    """
    x = numbers.to(torch.int64) + 1
    for factor in (0x9E3779B1, 0x85EBCA6B):
        x = (x * factor) & 0xFFFFFFFF
        x = x ^ (x >> 15)
    return x.double() / 2**32
