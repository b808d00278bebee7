"""Disturbed copies of speech, aligned with it frame by frame, whose RVQ-1 codes should be those of the clean speech."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

N_FFT = 1024  #: samples in a frame of the frequency warp
WARP = 0.18  #: largest relative change of all frequencies
GAIN = 10.0  #: largest change of the level, in dB
SNR = (5.0, 30.0)  #: range of signal-to-noise ratios, in dB
DECAY = (0.2, 0.8)  #: range of the time in which a room's echo falls by 60 dB, in seconds
NARROW_BAND = 4000  #: cutoff frequency of the narrow band, in Hz


class Disturber:
    """Adds noise, a room's echo, a narrow band, another level and another voice to clips, each with some probability.

    Another voice is a warp of the frequency axis: pitch and formants move together, as between speakers of different
    size, and every frame keeps its time.
    """

    def __init__(self, sample_rate: int, noises: list[np.ndarray], device: torch.device) -> None:
        """noises: recordings, float32 [L] at the sample rate, which are used in addition to white and pink noise."""
        self.sample_rate, self.device = sample_rate, device
        self.noises = [torch.from_numpy(n).to(device) for n in noises]
        self.window = torch.hann_window(N_FFT, device=device)

    @torch.no_grad()
    def __call__(self, waveform: Tensor, generator: torch.Generator) -> Tensor:
        """Return disturbed copies of a batch, float32 [B, L]. generator: on the CPU; it determines the copies."""
        batch, length = waveform.shape

        def draw(low: float = 0.0, high: float = 1.0) -> Tensor:
            """Draw a number for each clip, [B, 1], on the device."""
            return (low + (high - low) * torch.rand(batch, 1, generator=generator)).to(self.device)

        warp = torch.where(draw() < 0.7, draw(-WARP, WARP), 0.0)
        x = self._warped(waveform, 1.0 + warp)
        x = torch.where(draw() < 0.3, self._in_room(x, draw(*DECAY), generator), x)
        noise = self._noise(batch, length, generator)
        power, noise_power = (w.square().mean(1, keepdim=True) for w in (x, noise))
        scale = (power / noise_power.clamp_min(1e-10)).sqrt() * 10 ** (-draw(*SNR) / 20)
        x = torch.where(draw() < 0.7, x + scale * noise, x)
        x = torch.where(draw() < 0.2, self._narrow(x), x)
        return x * 10 ** (draw(-GAIN, GAIN) / 20)

    def _warped(self, waveform: Tensor, factor: Tensor) -> Tensor:
        """Multiply all frequencies by `factor` [B, 1] and keep all times, as a phase vocoder does.

        Bin k of the output has the magnitude of bin k / factor, and its phase advances `factor` times as fast.
        """
        length, hop = waveform.shape[1], N_FFT // 4
        spectrum = torch.stft(waveform, N_FFT, hop, window=self.window, return_complex=True)  # [B, bins, frames]
        bins, frames = spectrum.shape[1:]
        source = torch.arange(bins, device=self.device) / factor  # [B, bins]
        low = source.floor().clamp(max=bins - 1)
        fraction = (source - low)[..., None]  # for linear interpolation between two bins
        below = low.long()[..., None].expand(-1, -1, frames)
        above = (below + 1).clamp(max=bins - 1)
        magnitude, angle = spectrum.abs(), spectrum.angle()
        moved = magnitude.gather(1, below) * (1 - fraction) + magnitude.gather(1, above) * fraction
        moved = moved * (source <= bins - 1)[..., None]
        # The phase of bin k advances by about 2 pi hop k / N_FFT per frame; the deviation from that gives the frequency
        # of its component.
        expected = 2 * math.pi * hop / N_FFT * torch.arange(bins, device=self.device)[:, None]
        deviation = torch.remainder(angle.diff(dim=2) - expected + math.pi, 2 * math.pi) - math.pi
        nearest = source.round().clamp(max=bins - 1).long()[..., None].expand(-1, -1, frames)
        advance = factor[..., None] * (expected + deviation).gather(1, nearest[..., 1:])
        phase = torch.cat([angle.gather(1, nearest)[..., :1], advance], 2).cumsum(2)
        warped: Tensor = torch.istft(torch.polar(moved, phase), N_FFT, hop, window=self.window, length=length)
        return warped

    def _in_room(self, waveform: Tensor, seconds: Tensor, generator: torch.Generator) -> Tensor:
        """Add an echo to clips: decaying noise, 3 dB below the direct sound. seconds: [B, 1], decay by 60 dB."""
        size = int(DECAY[1] * self.sample_rate)
        time = torch.arange(size, device=self.device) / self.sample_rate
        tail: Tensor = self._normal(len(waveform), size, generator) * 10 ** (-3 * time / seconds)
        tail = tail * math.sqrt(0.5) / tail.square().sum(1, keepdim=True).sqrt()
        tail[:, 0] = 1.0
        width = 2 ** (waveform.shape[1] + size - 1).bit_length()
        wet = torch.fft.irfft(torch.fft.rfft(waveform, width) * torch.fft.rfft(tail, width), width)
        in_room: Tensor = wet[:, : waveform.shape[1]]
        return in_room

    def _noise(self, batch: int, length: int, generator: torch.Generator) -> Tensor:
        """Return white, pink or recorded noise for each clip, [B, length]."""
        white = self._normal(batch, length, generator)
        spectrum = torch.fft.rfft(white)
        pink = spectrum / (1 + torch.arange(spectrum.shape[1], device=self.device)).sqrt()
        noise = torch.where(
            (torch.rand(batch, 1, generator=generator) < 0.5).to(self.device), white, torch.fft.irfft(pink, length)
        )
        if self.noises:
            chosen = torch.randint(2 * len(self.noises), (batch,), generator=generator).tolist()
            for row, number in zip(noise, chosen, strict=True):
                if number < len(self.noises):
                    recorded = self.noises[number]
                    begin = int(torch.randint(max(1, len(recorded) - length), (1,), generator=generator))
                    crop = recorded[begin : begin + length]
                    row.copy_(crop.repeat(-(-length // len(crop)))[:length])
        return noise

    def _narrow(self, waveform: Tensor) -> Tensor:
        """Remove all frequencies above NARROW_BAND."""
        spectrum = torch.fft.rfft(waveform)
        spectrum[:, int(spectrum.shape[1] * 2 * NARROW_BAND / self.sample_rate) :] = 0
        narrow: Tensor = torch.fft.irfft(spectrum, waveform.shape[1])
        return narrow

    def _normal(self, batch: int, length: int, generator: torch.Generator) -> Tensor:
        """Draw normal noise [batch, length] on the device, from a generator that the CPU's generator seeds."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        own = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(batch, length, generator=own, device=self.device)
