"""Long recordings in chunks: what comes out is what the whole pass gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SPEECH, make_tiny, make_tiny_paper, near_ties
from vocable import audio
from vocable.audio import AudioError
from vocable.codec import long
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded, TokensError

CODECS = {
    "spectral": make_tiny(),
    "seanet": make_tiny_paper(),
    "seanet, forward only": make_tiny_paper(bidirectional=False, residual_layers=2),
}


def cut(waveform: torch.Tensor, seed: int, most: int) -> Iterator[torch.Tensor]:
    """Blocks of random lengths, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    at = 0
    while at < len(waveform):
        size = int(torch.randint(most, (1,), generator=generator))
        yield waveform[at : at + size]
        at += size


def same_codes(codec: SpeechTokenizer, clip: torch.Tensor, a: Encoded, b: Encoded) -> bool:
    """Equal but for near ties, whose residuals carry on into the layers above."""
    different = (a.codes != b.codes).any(1)[0]
    if not different.any():
        return True
    first = (a.codes != b.codes)[0].int().argmax(0)[different]
    return all(bool(near_ties(codec, clip, int(k))[t]) for t, k in zip(different.nonzero(), first, strict=True))


@pytest.mark.parametrize("kind", CODECS)
@settings(max_examples=12, deadline=None)
@given(
    samples=st.integers(1, 40_000),
    chunk=st.sampled_from([1, 7, 20, 50, 1000]),
    most=st.sampled_from([50, 3_000, 90_000]),
)
def test_chunks_equal_the_whole(kind: str, samples: int, chunk: int, most: int) -> None:
    codec = CODECS[kind]
    clip = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    if samples // codec.hop_length > 40 * chunk:
        chunk = 20
    whole = codec.encode(clip)
    pieces = codec.encode_long(cut(clip, samples, most), chunk_frames=chunk)
    assert torch.equal(pieces.num_samples, whole.num_samples) and torch.equal(pieces.num_frames, whole.num_frames)
    assert same_codes(codec, clip, pieces, whole)
    spoken = torch.cat(list(codec.decode_long(whole, chunk_frames=chunk)))
    torch.testing.assert_close(spoken, codec.decode(whole).waveform[0], atol=2e-5, rtol=1e-4)


def test_what_waits_goes_to_a_file_when_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = CODECS["spectral"]
    clip = torch.from_numpy(audio.read(SPEECH, 16_000)[0][:60_000])
    whole = codec.encode_long([clip], chunk_frames=20)
    spoken = torch.cat(list(codec.decode_long(whole, chunk_frames=20)))
    monkeypatch.setattr(long, "SPOOL_BYTES", 5_000)
    filed = codec.encode_long([clip], chunk_frames=20)
    assert torch.equal(filed.codes, whole.codes)
    assert torch.equal(torch.cat(list(codec.decode_long(whole, chunk_frames=20))), spoken)


def test_layers(tmp_path: Path) -> None:
    codec = CODECS["spectral"]
    clip = 0.1 * torch.randn(9_000, generator=torch.Generator().manual_seed(0))
    encoded = codec.encode_long([clip], layers=slice(0, 3))
    assert torch.equal(encoded.codes, codec.encode(clip, layers=slice(0, 3)).codes)
    spoken = torch.cat(list(codec.decode_long(encoded, layers=slice(0, 2))))
    torch.testing.assert_close(spoken, codec.decode(encoded, layers=slice(0, 2)).waveform[0], atol=2e-5, rtol=1e-4)


def test_what_cannot_be_used() -> None:
    codec = CODECS["spectral"]
    for blocks in ([], [torch.zeros(0)]):
        with pytest.raises(AudioError, match="no samples"):
            codec.encode_long(blocks)
    with pytest.raises(AudioError, match="NaN"):
        codec.encode_long([np.zeros(500, np.float32), np.full(5, np.nan, np.float32)])
    two = codec.encode([torch.randn(900), torch.randn(500)])
    # At the call, not at the first block.
    with pytest.raises(TokensError, match="decode each item"):
        codec.decode_long(two)
    with pytest.raises(TokensError, match="load the codec of"):
        CODECS["seanet"].decode_long(two.clips()[0])
    with pytest.raises(TokensError, match="an Encoded, not Tensor"):
        codec.decode_long(two.codes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_frames must be at least 1"):
        codec.decode_long(two.clips()[0], chunk_frames=0)
    for bad, why in (
        (None, "not NoneType"),
        ("speech.wav", "not str"),
        ([0.1, 0.2], "not float"),
        (np.zeros((900, 2), np.float32), r"not \[900, 2\]; drop or average the channel axis"),
        ([np.zeros((900, 2), np.float32)], "channels"),
        ([np.zeros((2, 900), np.float32)], "not"),
    ):
        with pytest.raises(AudioError, match=why):
            codec.encode_long(bad)  # type: ignore[arg-type]


def test_a_recording_as_a_whole_has_any_accepted_shape() -> None:
    codec, clip = CODECS["spectral"], 0.1 * torch.randn(5_000, generator=torch.Generator().manual_seed(0))
    codes = codec.encode_long([clip]).codes
    for same in (clip, clip[None], clip[None, None], clip.numpy(), [clip[None, None, :3000], clip[3000:].numpy()]):
        assert torch.equal(codec.encode_long(same).codes, codes)


@pytest.mark.parametrize("size", [50, 1_000])
def test_a_long_block_is_not_copied_window_by_window(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is joined grows with the recording, not with its square."""
    joined, cat = 0, torch.cat

    def counted(tensors: list[torch.Tensor]) -> torch.Tensor:
        nonlocal joined
        joined += sum(len(t) for t in tensors)
        return cat(tensors)

    monkeypatch.setattr(long.torch, "cat", counted)
    rows = torch.arange(4_000.0)
    blocks = rows.split(size) if size == 50 else [rows]
    windows = list(long._windows(blocks, 1, (3, 4), 10))
    assert len(windows) == 400 and joined <= (2 * len(rows) if size == 50 else 0)
    assert torch.equal(cat([window[lead : lead + own] for window, _, lead, own in windows]), rows)


@pytest.mark.parametrize("kind", ["seanet", "seanet, forward only", "bfloat16"])
def test_forward_recurrences_are_not_spooled(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first samples come before all chunks are read."""
    codec = CODECS.get(kind)
    if codec is None:
        make_tiny_paper(bidirectional=False).save_pretrained(tmp_path)
        codec = SpeechTokenizer.from_pretrained(tmp_path, recurrence=kind)
    clip = 0.1 * torch.randn(64_000, generator=torch.Generator().manual_seed(0))
    encoded = codec.encode(clip)
    monkeypatch.setattr(long, "_Spool", None)
    searched, decode = 0, codec.quantizer.decode

    def counted(codes: torch.Tensor, first: int) -> torch.Tensor:
        nonlocal searched
        searched += codes.shape[2]
        return decode(codes, first)

    monkeypatch.setattr(codec.quantizer, "decode", counted)
    blocks = codec.decode_long(encoded, chunk_frames=10)
    heard = len(next(blocks))
    assert heard > 0 and searched < 80 < 200
    assert heard + sum(map(len, blocks)) == 64_000 and searched == 200
    if kind != "seanet":
        assert codec.encode_long(clip, chunk_frames=10).codes.shape == encoded.codes.shape
