"""The level before the encoder: what it is, that codes do not depend on it, and that speech gets it back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.test_long import cut, same_codes
from conftest import SPEECH, make_tiny
from vocable import audio
from vocable.codec.level import LARGEST_GAIN, HighPass, active_level, condition, level_gain
from vocable.codec.model import SpeechTokenizer

RATE = 16_000
CODEC = make_tiny(level=-26.0, high_pass=40.0)


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def decibels(power: float) -> float:
    return 10 * math.log10(power)


# ---- the level -------------------------------------------------------------------------------------------------------


def test_active_level_is_that_of_the_loud_frames() -> None:
    tone = torch.sin(2 * math.pi * 100 / RATE * torch.arange(RATE))
    assert active_level(tone, RATE) == pytest.approx(decibels(0.5), abs=1e-4)
    assert active_level(torch.cat([tone, torch.zeros(5 * RATE)]), RATE) == pytest.approx(decibels(0.5), abs=1e-4)
    assert active_level(torch.cat([tone, 0.03 * tone]), RATE) == pytest.approx(decibels(0.5), abs=1e-4), "-30.5 dB"
    both = active_level(torch.cat([tone, 0.035 * tone]), RATE)
    assert both == pytest.approx(decibels(0.5 * (1 + 0.035**2) / 2), abs=1e-4), "-29.1 dB"


@given(st.integers(1, 2_000), st.floats(-60, 20))
def test_any_clip_has_a_level_which_follows_its_gain(samples: int, change: float) -> None:
    clip = noise(samples, samples)
    louder = active_level(10 ** (change / 20) * clip, RATE)
    assert louder == pytest.approx(active_level(clip, RATE) + change, abs=1e-3)
    assert active_level(cut(clip, samples, 500), RATE) == pytest.approx(active_level(clip, RATE), abs=1e-5)
    if samples < 320:
        assert active_level(clip, RATE) == pytest.approx(decibels(float(clip.square().mean())), abs=1e-3)


def test_gains_and_their_limit() -> None:
    assert active_level(torch.zeros(999), RATE) == -math.inf and level_gain(torch.zeros(999), -26.0, RATE) == 1.0
    assert level_gain(torch.full((640,), 0.5), decibels(0.01), RATE) == pytest.approx(0.2)
    assert level_gain(1e-5 * noise(999), -26.0, RATE) == LARGEST_GAIN
    assert level_gain(1e3 * noise(999), -26.0, RATE) < 1e-3


# ---- the filter ------------------------------------------------------------------------------------------------------


def test_the_filter_is_a_butterworth_of_the_second_order() -> None:
    signal = pytest.importorskip("scipy.signal")
    for cutoff, rate in ((40.0, 16_000), (80.0, 24_000), (3_000.0, 16_000)):
        wave = torch.cat([noise(30_000), torch.ones(40_000)])
        b, a = signal.butter(2, cutoff, "highpass", fs=rate)
        expected = torch.from_numpy(signal.lfilter(b, a, wave.double().numpy())).float()
        torch.testing.assert_close(HighPass(cutoff, rate)(wave), expected, atol=2e-6, rtol=0)
        batch = torch.stack([wave, wave.flip(0)])
        torch.testing.assert_close(HighPass(cutoff, rate)(batch)[0], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("frequency", "least", "most"), [(20, -12.4, -12.2), (40, -3.1, -2.9), (200, -0.1, 0.0)])
def test_what_the_filter_takes_off_a_tone(frequency: int, least: float, most: float) -> None:
    tone = torch.sin(2 * math.pi * frequency / RATE * torch.arange(2 * RATE))
    settled = HighPass(40.0, RATE)(tone)[RATE:]
    assert least < decibels(2 * float(settled.square().mean())) <= most + 1e-3


@settings(deadline=None)
@given(st.integers(1, 80_000), st.sampled_from([3, 700, 50_000]), st.sampled_from([0.0, 40.0, 500.0]))
def test_blocks_are_filtered_as_the_whole(samples: int, most: int, cutoff: float) -> None:
    samples = min(samples, 500 * most)
    clip = noise(samples, samples) + 0.3
    high_pass = HighPass(cutoff, RATE)
    past, blocks = high_pass.start(clip), []
    for block in filter(len, cut(clip, samples, most)):
        block, past = high_pass.step(block, past)
        blocks.append(block)
    torch.testing.assert_close(torch.cat(blocks), high_pass(clip), atol=1e-6, rtol=0)


# ---- the codec -------------------------------------------------------------------------------------------------------


def test_a_codec_without_a_level_takes_clips_as_they_are(tiny: SpeechTokenizer) -> None:
    clip = noise(5_000)
    conditioned, gain = condition(clip, tiny.config)
    assert conditioned is clip and gain == 1.0 and tiny.encode(clip).gain is None
    filtered = make_tiny(high_pass=40.0).encode(clip)
    assert filtered.gain is None and not torch.equal(filtered.codes, tiny.encode(clip).codes)
    with pytest.raises(ValueError, match="gain is a positive number"):
        tiny.encode_long(clip, gain=2.0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 20_000), st.sampled_from([-20.0, 10.0]))
def test_a_clip_and_its_copy_at_another_level(samples: int, change: float) -> None:
    clip, factor = noise(samples, samples), 10 ** (change / 20)
    one, other = CODEC.encode(clip), CODEC.encode(factor * clip)
    assert same_codes(CODEC, clip, one, other)
    torch.testing.assert_close(one.gain, other.gain * factor)
    spoken, level = CODEC.decode(one), CODEC.decode(one, restore_level=False)
    torch.testing.assert_close(spoken.waveform * one.gain[:, None], level.waveform)
    if torch.equal(one.codes, other.codes):  # not so where a near tie was decided otherwise
        torch.testing.assert_close(CODEC.decode(other).waveform, factor * spoken.waveform, rtol=1e-3, atol=1e-6)
    raw = CODEC.decode(one.codes, num_samples=one.num_samples)
    assert torch.equal(raw.waveform, level.waveform), "bare codes speak at the codec's own level"


def test_batched_equals_single() -> None:
    clips = [10 ** (db / 20) * noise(n, n) for n, db in ((1, 0), (319, -30), (9_000, 15), (30_001, -10))]
    clips.append(torch.zeros(700))
    batch = CODEC.encode(clips)
    spoken = CODEC.decode(batch).clips()
    for clip, together, wave in zip(clips, batch.clips(), spoken, strict=True):
        alone = CODEC.encode(clip)
        assert same_codes(CODEC, clip, alone, together) and torch.equal(alone.gain, together.gain)
        torch.testing.assert_close(wave, CODEC.decode(together).waveform[0], atol=1e-4, rtol=1e-4)
    assert batch.gain.dtype == torch.float32 and batch.gain[-1] == 1.0
    assert torch.isfinite(torch.cat(spoken)).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40_000), st.sampled_from([50, 3_000, 90_000]), st.sampled_from([7, 50, 1000]))
def test_blocks_of_a_recording(samples: int, most: int, chunk: int) -> None:
    clip = noise(samples, samples)
    whole, blocks = CODEC.encode(clip), list(cut(clip, samples, most))
    pieces = CODEC.encode_long(blocks, chunk_frames=chunk)
    assert same_codes(CODEC, clip, whole, pieces)
    torch.testing.assert_close(pieces.gain, whole.gain)
    told = CODEC.encode_long(iter(blocks), chunk_frames=chunk, gain=float(whole.gain))
    assert torch.equal(told.codes, pieces.codes) or same_codes(CODEC, clip, told, pieces)
    for restore in (True, False):
        spoken = torch.cat(list(CODEC.decode_long(whole, chunk_frames=chunk, restore_level=restore)))
        expected = CODEC.decode(whole, restore_level=restore).waveform[0]
        torch.testing.assert_close(spoken, expected, atol=2e-5, rtol=1e-4)


def test_what_is_read_once_needs_a_gain() -> None:
    clip = noise(2_000)
    with pytest.raises(ValueError, match="read only once"):
        CODEC.encode_long(iter([clip]))
    for gain in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="gain is a positive number"):
            CODEC.encode_long(iter([clip]), gain=gain)
    with pytest.raises(audio.AudioError, match="no samples"):
        CODEC.encode_long([])
    speech, _ = audio.read(SPEECH, RATE)
    from_file = CODEC.encode_long(audio.read_blocks(SPEECH, RATE, seconds=1.0))
    assert same_codes(CODEC, torch.from_numpy(speech), from_file, CODEC.encode_long(np.asarray(speech)))


def test_latents_are_those_of_the_conditioned_clip() -> None:
    clip = noise(3_000)
    torch.testing.assert_close(CODEC.latents(clip), CODEC.latents(0.1 * clip), atol=1e-4, rtol=1e-4)
