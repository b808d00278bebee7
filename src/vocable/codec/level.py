"""Conditioning of a clip before the encoder: a high-pass filter, then a gain that sets the level of its speech.

Codes then do not depend on the level of a recording or on noise below the voice. The config fields `high_pass` and
`level` switch the filter and the gain on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from vocable.codec.config import CodecConfig

FRAME_SECONDS = 0.02
ACTIVE_RANGE = 30.0  #: frames at most this many dB below the loudest frame count as speech
#: The largest gain, 40 dB, brings speech from -66 to -26 dBov. A quieter clip is noise, which must not become as loud
#: as speech: the rounding noise of 16-bit files, -101 dBov, stays below -60 dBov. Attenuation has no limit.
LARGEST_GAIN = 100.0
RESPONSE_END = 1e-7  #: fraction of its first value at which the filter's impulse response is cut off
PIECE = 30_000  #: samples per FFT of the filter


def active_level(waveform: Tensor | Iterable[Tensor], sample_rate: int) -> float:
    """Return the level of active speech in dBov: 0 is a root mean square of 1.0; -inf for digital silence.

    waveform: float [L], or its blocks [n]. The level is the root mean square of the 20 ms frames whose power is at most
    30 dB below that of the strongest frame. The last frame may be shorter, so every clip has a level.
    """
    frame = round(FRAME_SECONDS * sample_rate)
    rest = torch.zeros(0, device="cpu")
    energies = []
    for block in [waveform] if isinstance(waveform, Tensor) else waveform:
        held = torch.cat([rest.to(block), block])
        whole = len(held) // frame * frame
        energies.append(held[:whole].view(-1, frame).square().sum(1).cpu().double())
        rest = held[whole:]
    energies.append(rest.square().sum()[None].cpu().double())
    energy = torch.cat(energies)
    samples = torch.full_like(energy, frame)
    samples[-1] = max(1, len(rest))
    power = energy / samples
    active = power > power.max() * 10 ** (-ACTIVE_RANGE / 10)
    if not active.any():
        return -math.inf
    return 10 * math.log10(float(energy[active].sum() / samples[active].sum()))


def level_gain(waveform: Tensor | Iterable[Tensor], level: float, sample_rate: int) -> float:
    """Return the gain that brings a clip's active level to `level` dBov: at most LARGEST_GAIN, 1.0 for digital silence.

    waveform: as in `active_level`.
    """
    found = active_level(waveform, sample_rate)
    return 1.0 if found == -math.inf else min(LARGEST_GAIN, 10 ** ((level - found) / 20))


class HighPass:
    """A causal second-order Butterworth filter for a signal in blocks: [..., n] -> [..., n].

    cutoff: the frequency in Hz that is attenuated by 3 dB; 0 returns blocks unchanged. Torch has no recursive filters,
    so blocks are convolved with the impulse response.
    """

    def __init__(self, cutoff: float, sample_rate: int) -> None:
        self.response = _impulse_response(cutoff, sample_rate) if cutoff else None
        self.past: Tensor | None = None  #: the last input samples: one fewer than the impulse response has

    def __call__(self, block: Tensor) -> Tensor:
        """Filter the next block; the filter remembers the last samples of the one before."""
        if self.response is None or not block.shape[-1]:
            return block
        response = self.response.to(block)
        reach = len(response) - 1
        past = block.new_zeros(*block.shape[:-1], reach) if self.past is None else self.past
        filtered = []
        for piece in torch.split(block, PIECE, -1):
            held = torch.cat([past, piece], -1)
            size = 2 ** (held.shape[-1] - 1).bit_length()  # the circular convolution wraps only into `past`
            product = torch.fft.rfft(held, size) * torch.fft.rfft(response, size)
            filtered.append(torch.fft.irfft(product, size)[..., reach : held.shape[-1]])
            past = held[..., piece.shape[-1] :]
        self.past = past
        return torch.cat(filtered, -1)


def high_pass(waveform: Tensor, cutoff: float, sample_rate: int) -> Tensor:
    """Filter whole clips, float [..., L], as `HighPass` does."""
    return HighPass(cutoff, sample_rate)(waveform)


@lru_cache(maxsize=8)
def _impulse_response(cutoff: float, sample_rate: int) -> Tensor:
    """Return the filter's impulse response, designed by the bilinear transform: float32 [N]."""
    k = math.tan(math.pi * cutoff / sample_rate)
    scale = 1 / (1 + math.sqrt(2) * k + k * k)
    b = (scale, -2 * scale, scale)
    a1, a2 = 2 * (k * k - 1) * scale, (1 - math.sqrt(2) * k + k * k) * scale
    # The response decays with the radius of the poles, whose square is a2.
    length = 3 + math.ceil(math.log(RESPONSE_END) / (0.5 * math.log(a2)))
    response = [0.0, 0.0]
    for n in range(length):
        response.append((b[n] if n < 3 else 0.0) - a1 * response[-1] - a2 * response[-2])
    with torch.inference_mode(False):  # the cached tensor must not be an inference tensor
        return torch.tensor(response[2:], dtype=torch.float64, device="cpu").float()


def condition(clip: Tensor, config: CodecConfig) -> tuple[Tensor, float]:
    """Filter a clip, float [L] at the codec's rate, and set its level; return it and the applied gain.

    If the config has neither `level` nor `high_pass`, the clip does not change and the gain is 1.0.
    """
    clip = high_pass(clip, config.high_pass, config.sample_rate)
    if config.level is None:
        return clip, 1.0
    gain = level_gain(clip, config.level, config.sample_rate)
    return clip * gain, gain
