"""A clip's codes are the same alone and in any batch of mixed lengths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import differing_frames, tell_apart
from vocable import audio
from vocable.codec.config import PRESETS
from vocable.codec.model import SpeechTokenizer
from vocable.codec.staged import run_batch


def random_clip(rng: np.random.Generator, samples: int) -> torch.Tensor:
    """Filtered noise with a speech-like level: no two frames alike."""
    noise = np.convolve(rng.normal(0, 1, samples + 8), np.ones(8) / 8, "valid")[:samples]
    return torch.from_numpy(0.2 * noise).float()


@pytest.mark.parametrize("name", ["tiny", "tiny_paper", pytest.param("paper", marks=pytest.mark.slow)])
def test_random_mixes_from_one_sample(name: str, request: pytest.FixtureRequest) -> None:
    tiny: SpeechTokenizer = request.getfixturevalue(name)
    rng = np.random.default_rng(0)
    frames = ties = 0
    for mix in range(30 if name == "paper" else 50):
        lengths = [int(n) for n in np.exp(rng.uniform(0, np.log(24_000), rng.integers(2, 6)))]
        lengths[0] = mix % 3 * 319 + 1
        clips = [random_clip(rng, n) for n in lengths]
        together = tiny.encode(clips)
        assert together.num_samples.tolist() == lengths
        for i, clip in enumerate(clips):
            alone = tiny.encode(clip)
            n = int(alone.num_frames[0])
            assert n == -(-lengths[i] // 320) == int(together.num_frames[i])
            ties += differing_frames(tiny, clip, alone.codes[0], together.codes[i, :, :n])
            frames += n
            assert not together.codes[i, :, n:].any()
        decoded = tiny.decode(together)
        for i, clip in enumerate(decoded.clips()):
            n = int(together.num_frames[i])
            alone = tiny.decode(together.codes[i : i + 1, :, :n], num_samples=[lengths[i]]).waveform[0]
            torch.testing.assert_close(clip, alone, atol=1e-4, rtol=1e-4)
    assert ties * 8 <= max(1, frames * 8 // 10_000)


@pytest.mark.parametrize("name", ["tiny", "tiny_paper"])
@torch.no_grad()
def test_padded_and_apart_are_the_same(name: str, request: pytest.FixtureRequest) -> None:
    """The way of GPUs and of training, and that of CPUs."""
    tiny: SpeechTokenizer = request.getfixturevalue(name)
    frames = torch.tensor([40, 1, 75, 70])
    lengths = frames * 320 - torch.tensor([1, 319, 0, 100])
    batch = torch.stack([random_clip(np.random.default_rng(i), 75 * 320) for i in range(4)])
    batch *= torch.arange(75 * 320) < lengths[:, None]
    padded, apart = tiny.encoder(batch, lengths), run_batch(tiny.encoder, batch, lengths)
    spoken, spoken_apart = tiny.decoder(padded, frames), run_batch(tiny.decoder, padded, frames)
    for i, n in enumerate(frames.tolist()):
        torch.testing.assert_close(apart[i, :n], padded[i, :n], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(spoken_apart[i, : n * 320], spoken[i, : n * 320], atol=1e-4, rtol=1e-4)


def test_real_speech_mixes_with_the_embedded_model(fast: SpeechTokenizer, real_clips: list) -> None:
    rng = np.random.default_rng(1)
    frames = ties = 0
    for _ in range(6):
        clips = []
        for path in rng.choice(real_clips, 4, replace=False):
            samples, _ = audio.read(path)
            clips.append(torch.from_numpy(samples[: int(rng.integers(1, 48_000))]))
        together = fast.encode(clips)
        for i, clip in enumerate(clips):
            alone = fast.encode(clip)
            n = int(alone.num_frames[0])
            ties += differing_frames(fast, clip, alone.codes[0], together.codes[i, :, :n])
            frames += n
    assert ties * 8 <= max(1, frames * 8 // 10_000)


@pytest.fixture(scope="module")
def paper() -> SpeechTokenizer:
    """The paper's model in its full size, with random weights."""
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(dataclasses.replace(PRESETS["paper"], codebook_size=128)).eval()
    tell_apart(tokenizer, torch.stack([random_clip(np.random.default_rng(i), 32_000) for i in range(12)]))
    return tokenizer


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["tiny", "tiny_paper"]), st.integers(1, 4000), st.integers(1, 8))
def test_lengths(name: str, samples: int, stop: int) -> None:
    tiny = test_lengths.models[name]  # type: ignore[attr-defined]
    clip = random_clip(np.random.default_rng(samples), samples)
    encoded = tiny.encode(clip, layers=slice(0, stop))
    assert encoded.codes.shape == (1, stop, -(-samples // 320))
    decoded = tiny.decode(encoded)
    assert decoded.waveform.shape == (1, samples)
    assert torch.isfinite(decoded.waveform).all()


@pytest.fixture(autouse=True, scope="module")
def _models(tiny: SpeechTokenizer, tiny_paper: SpeechTokenizer) -> None:
    test_lengths.models = {"tiny": tiny, "tiny_paper": tiny_paper}  # type: ignore[attr-defined]


def test_padding_behind_num_samples_is_ignored(tiny: SpeechTokenizer) -> None:
    rng = np.random.default_rng(2)
    clip = random_clip(rng, 5000)
    dirty = torch.cat([clip, torch.ones(3000)])[None]
    encoded = tiny.encode(dirty, num_samples=[5000])
    assert torch.equal(encoded.codes, tiny.encode(clip).codes)
    assert tiny.decode(encoded).waveform.shape == (1, 5000)
