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
MEMORY_SECONDS = 10.0  #: time constant of the running level of a stream
PRIOR_SECONDS = 0.5  #: seconds of speech at the codec's level that the running level begins with
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
    """A causal second-order Butterworth filter.

    cutoff: the frequency in Hz that is attenuated by 3 dB; 0 returns signals unchanged. Torch has no recursive filters,
    so signals are convolved with the impulse response.
    """

    def __init__(self, cutoff: float, sample_rate: int) -> None:
        self.response = _impulse_response(cutoff, sample_rate) if cutoff else torch.ones(1, device="cpu")
        self.reach = len(self.response) - 1  #: the number of past samples that a sample depends on

    def __call__(self, waveform: Tensor) -> Tensor:
        """Filter whole clips, float [..., L]."""
        return self.step(waveform, self.start(waveform))[0]

    def start(self, block: Tensor) -> Tensor:
        """Return the state before the first block, zeros: [..., n] -> [..., reach]."""
        return block.new_zeros(*block.shape[:-1], self.reach)

    def step(self, block: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Filter the next block of a signal, [..., n], n > 0, from the state `past`, the last `reach` samples.

        Return the filtered block and the new state.
        """
        if not self.reach:
            return block, past
        filtered = []
        for piece in torch.split(block, PIECE, -1):
            held = torch.cat([past, piece], -1)
            size = 2 ** (held.shape[-1] - 1).bit_length()  # the circular convolution wraps only into `past`
            product = torch.fft.rfft(held, size) * torch.fft.rfft(self.response.to(block), size)
            filtered.append(torch.fft.irfft(product, size)[..., self.reach : held.shape[-1]])
            past = held[..., piece.shape[-1] :]
        return filtered[0] if len(filtered) == 1 else torch.cat(filtered, -1), past


class RunningLevel:
    """The gain of each frame of a stream, from the level of its speech so far.

    The level is the mean power of active frames, as in `active_level`. The weight of a frame in the mean falls by a
    factor of e in MEMORY_SECONDS of active speech. The loudest frame, which decides which frames are active, falls by
    the same factor in the same time. A stream begins as if PRIOR_SECONDS of speech at `level` came before it, so its
    gain begins at 1.
    """

    def __init__(self, level: float, sample_rate: int, hop: int) -> None:
        self.power = 10 ** (level / 10)  #: power of active speech after the gain
        self.decay = math.exp(-hop / sample_rate / MEMORY_SECONDS)
        self.prior = PRIOR_SECONDS * sample_rate / hop  #: frames

    def start(self, batch: int, device: torch.device) -> Tensor:
        """Return the state of new streams, float32 [B, 3]: loudest power, sum of active powers, their number."""
        return torch.tensor([[self.power, self.power * self.prior, self.prior]], device=device).repeat(batch, 1)

    def step(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gain of the next frame, float32 [B, hop] -> [B, 1], and the new state."""
        power = frame.square().mean(1, keepdim=True)
        loudest = torch.maximum(state[:, :1] * self.decay, power)
        active = power > loudest * 10 ** (-ACTIVE_RANGE / 10)
        added = state[:, 1:] * self.decay + torch.cat([power, torch.ones_like(power)], 1)
        total = torch.where(active, added, state[:, 1:])
        gain = (self.power * total[:, 1:] / total[:, :1]).sqrt().clamp_max(LARGEST_GAIN)
        return gain, torch.cat([loudest, total], 1)


def gain_curve(before: Tensor, gain: Tensor, hop: int) -> Tensor:
    """Return the gain of each sample of T frames: float32 [B, T], twice -> [B, T * hop].

    Within a frame the gain changes linearly from that of the frame before it, `before`, to its own, so it never jumps.
    """
    ramp = torch.arange(1, hop + 1, device=gain.device) / hop
    return (before[..., None] + (gain - before)[..., None] * ramp).flatten(1)


def sample_gains(gain: Tensor, hop: int, frames: slice = slice(None)) -> Tensor:
    """Return the gain of each sample of `frames`: float32 [B] -> [B, 1]; [B, T] -> [B, T' * hop]."""
    if gain.ndim == 1:
        return gain[:, None]
    before = torch.cat([gain[:, :1], gain[:, :-1]], 1)
    return gain_curve(before[:, frames], gain[:, frames], hop)


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
    clip = HighPass(config.high_pass, config.sample_rate)(clip)
    if config.level is None:
        return clip, 1.0
    gain = level_gain(clip, config.level, config.sample_rate)
    return clip * gain, gain
