from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vocable.training import disturb
from vocable.training.disturb import Disturber

RATE = 16_000
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(count: int, length: int = 8000) -> torch.Tensor:
    return 0.1 * torch.randn(count, length, generator=generator(1))


@pytest.fixture(scope="module")
def recorded() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) for n in (1000, 8000, 20_000)]


def test_copies_follow_from_the_generator(recorded: list[np.ndarray]) -> None:
    disturber, given = Disturber(RATE, recorded, CPU), clips(6)
    before = given.clone()
    first, again, other = (disturber(given, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(given, before), "the clean clips stay"
    assert first.shape == given.shape and first.dtype == torch.float32


@pytest.mark.parametrize("length", [640, 5121, 16_000])
def test_what_comes_out_is_finite(length: int, recorded: list[np.ndarray]) -> None:
    disturber = Disturber(RATE, recorded, CPU)
    given = clips(4, length)
    given[0] = 0.0
    for seed in range(5):
        out = disturber(given, generator(seed))
        assert out.shape == given.shape and torch.isfinite(out).all()
        assert out.abs().max() < 100 * given.abs().max()


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_a_warp_moves_frequencies_and_not_times(factor: float) -> None:
    disturber, frequency, length = Disturber(RATE, [], CPU), 1000.0, 16_000
    time = torch.arange(length) / RATE
    spans = torch.tensor([[0.25, 0.4], [0.5, 0.8]])
    burst = (time > spans[:, :1]) & (time < spans[:, 1:])
    tone = burst * torch.sin(2 * math.pi * frequency * time)
    warped = disturber._warped(tone, torch.full((2, 1), factor))
    spectrum = torch.fft.rfft(warped).abs()
    dominant = spectrum.argmax(1) * RATE / length
    assert ((dominant - factor * frequency).abs() <= 5).all()
    energy = warped.square()
    middle = (energy * time).sum(1) / energy.sum(1)
    torch.testing.assert_close(middle, spans.mean(1), atol=0.01, rtol=0)
    near = (time > spans[:, :1] - 0.035) & (time < spans[:, 1:] + 0.035)
    assert ((energy * near).sum(1) > 0.97 * energy.sum(1)).all()
    assert energy.sum() < 1.2 * tone.square().sum()
    if factor == 1.0:
        torch.testing.assert_close(warped, tone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_warp_moves_a_formant(factor: float) -> None:
    length = 32_000
    bins = torch.arange(length // 2 + 1) * RATE / length
    band = torch.exp(-(((bins - 2000) / 150) ** 2))
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(4, length, generator=generator())) * band, length)
    power = torch.fft.rfft(Disturber(RATE, [], CPU)._warped(noise, torch.full((4, 1), factor))).abs().square()
    centre = (power * bins).sum(1) / power.sum(1)
    torch.testing.assert_close(centre, torch.full((4,), 2000 * factor), rtol=0.03, atol=0)


class NoiseAlone(Disturber):
    """Adds noise that is known, and changes the level, and nothing else."""

    def _warped(self, waveform: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        assert ((factor - 1).abs() <= disturb.WARP).all()
        return waveform

    def _in_room(self, waveform: torch.Tensor, seconds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        low, high = disturb.DECAY
        assert ((seconds >= low) & (seconds <= high)).all()
        return waveform

    def _narrow(self, waveform: torch.Tensor) -> torch.Tensor:
        return waveform

    def _noise(self, batch: int, length: int, generator: torch.Generator) -> torch.Tensor:
        self.noise = 7.0 * self._normal(batch, length, generator)
        return self.noise


def test_noise_and_level_keep_to_their_ranges() -> None:
    disturber, given = NoiseAlone(RATE, [], CPU), clips(200, 2000)
    out = disturber(given, generator())
    parts = torch.stack([given, disturber.noise], 2).double()
    speech, noise = torch.linalg.lstsq(parts, out.double()[..., None]).solution[..., 0].T
    level = 20 * speech.log10()
    assert (level.abs() <= disturb.GAIN + 1e-3).all() and level.max() > 8 and level.min() < -8
    noisy = noise.abs() > 1e-5 * speech
    assert 0.6 < noisy.float().mean() < 0.8
    powers = (speech[:, None] * given).square().mean(1), (noise[:, None] * disturber.noise).square().mean(1)
    ratio = 10 * (powers[0] / powers[1])[noisy].log10()
    low, high = disturb.SNR
    assert ((ratio >= low - 1e-2) & (ratio <= high + 1e-2)).all() and ratio.min() < low + 2 and ratio.max() > high - 2


def test_rooms_and_narrow_bands() -> None:
    disturber, given = Disturber(RATE, [], CPU), clips(3, 8000)
    click = torch.zeros(2, 16_000)
    click[:, 1000] = 1.0
    wet = disturber._in_room(click, torch.tensor([[0.2], [0.8]]), generator())
    assert not wet[:, :1000].abs().gt(1e-4).any() and wet[:, 1000] == pytest.approx(1.0, abs=1e-4)
    assert wet[:, 1001:].square().sum(1).tolist() == pytest.approx([0.5, 0.5], rel=0.1), "3 dB below the direct sound"
    late = wet[:, 1000 + 3200 :].square().sum(1)
    assert late[0] < 1e-5 and late[1] > 1e-2
    before, after = torch.fft.rfft(given), torch.fft.rfft(disturber._narrow(given))
    assert after[:, 2000:].abs().max() < 1e-3, "4 kHz in half a second"
    torch.testing.assert_close(after[:, :2000], before[:, :2000], atol=1e-3, rtol=0)


def test_recorded_noises_are_used(recorded: list[np.ndarray]) -> None:
    """Half of the clips get one, from anywhere in it, and the short one is repeated."""
    constant = [np.full(n, 3.0, np.float32) for n in (100, 5000)]
    noise = Disturber(RATE, constant, CPU)._noise(100, 800, generator())
    assert 30 < int((noise == 3.0).all(1).sum()) < 70
    varied = Disturber(RATE, [np.arange(5000, dtype=np.float32)], CPU)._noise(50, 800, generator())
    begins = {float(row[0]) for row in varied if row[1] - row[0] == 1 == row[9] - row[8]}
    assert len(begins) > 10 and max(begins) > 3000
