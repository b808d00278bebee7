"""A codec gives the same whatever surrounds it: autocast, a default device, threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_tiny, make_tiny_paper
from vocable.codec.config import SpectralConfig
from vocable.codec.layers import no_autocast
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded

CAUSAL = SpectralConfig(fine_dim=16, frame_dim=24, causal=True, content_blocks=1, phase_noise=0.1)
MAKE: dict[str, Callable[[], SpeechTokenizer]] = {
    "spectral": make_tiny,
    "causal": lambda: make_tiny(spectral=CAUSAL, level=-26.0, high_pass=40.0),
    "seanet": make_tiny_paper,
}


def clips() -> list[torch.Tensor]:
    generator = torch.Generator("cpu").manual_seed(0)
    return [0.1 * torch.randn(n, generator=generator, device="cpu") for n in (9_000, 700, 4_321)]


def everything(codec: SpeechTokenizer) -> list[torch.Tensor]:
    batch = clips()
    encoded = codec.encode(batch)
    long = codec.encode_long(batch[0], chunk_frames=10)
    return [
        encoded.codes,
        long.codes,
        codec.latents(batch[0]),
        codec.embed(encoded.codes),
        codec.decode(encoded).waveform,
        torch.cat(list(codec.decode_long(long, chunk_frames=10))),
    ]


@pytest.mark.parametrize("kind", MAKE)
def test_autocast_changes_no_bit(kind: str) -> None:
    codec = MAKE[kind]()
    expected = everything(codec)
    with torch.autocast("cpu", torch.bfloat16):
        got = everything(codec)
        block = next(codec.decode_long(codec.encode(clips()[0])))
        assert torch.is_autocast_enabled("cpu") and torch.is_grad_enabled(), "not switched off between blocks"
        assert block.dtype == torch.float32 and not block.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("kind", MAKE)
def test_a_default_device_changes_nothing(kind: str, tmp_path: Path) -> None:
    MAKE[kind]().save_pretrained(tmp_path)
    codec = SpeechTokenizer.from_pretrained(tmp_path)
    expected, out = everything(codec), codec(torch.stack([clips()[0][:700], clips()[1]]), torch.tensor([700, 350]))
    codec.encode(clips()).save(tmp_path / "tokens.npz")
    with torch.device("meta"):  # stands for a GPU: whatever lands there cannot be used
        loaded = SpeechTokenizer.from_pretrained(tmp_path)
        got = everything(loaded)
        again = loaded(torch.stack([clips()[0][:700], clips()[1]]), torch.tensor([700, 350], device="cpu"))
        tokens = Encoded.load(tmp_path / "tokens.npz")
        assert loaded.encode([np.zeros(500, np.float32)], num_samples=[400]).num_samples.tolist() == [400]
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert torch.equal(tokens.codes, expected[0]) and loaded.id == codec.id
    torch.testing.assert_close(again.waveform, out.waveform)


def test_a_device_without_autocast() -> None:
    with no_autocast(torch.device("meta")):
        assert torch.empty(3, device="meta").shape == (3,)


@pytest.mark.parametrize("kind", MAKE)
def test_eight_threads_share_a_codec(kind: str) -> None:
    codec = MAKE[kind]()
    generator = torch.Generator().manual_seed(1)
    work = [0.1 * torch.randn(1_000 + 700 * i, generator=generator) for i in range(8)]

    def one(clip: torch.Tensor) -> list[torch.Tensor]:
        encoded = codec.encode([clip, clip[:500]])
        long = codec.encode_long(clip, chunk_frames=7)
        return [encoded.codes, codec.decode(encoded).waveform, *codec.decode_long(long, chunk_frames=5)]

    with ThreadPoolExecutor(8) as pool:
        together = [future.result() for future in [pool.submit(one, clip) for clip in work * 2]]
    for clip, got in zip(work * 2, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one(clip), got, strict=True))


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_what_lies_behind_a_clip_s_end_does_not_count(kind: str, garbage: float) -> None:
    codec = MAKE[kind]()
    lengths = torch.tensor([3_000, 801])
    clean = 0.1 * torch.randn(2, 3_000, generator=torch.Generator().manual_seed(0))
    clean[1, 801:] = 0
    dirty = clean.clone()
    dirty[1, 801:] = garbage
    results = []
    for batch in (clean, dirty):
        codec.zero_grad()
        out = codec(batch.requires_grad_(), lengths)
        (out.waveform.square().sum() + out.losses["commitment"] + out.semantic.square().mean()).backward()
        results.append([out.waveform, out.codes, batch.grad, *(p.grad for p in codec.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert not dirty.grad[1, 801:].any()
