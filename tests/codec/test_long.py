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
    with pytest.raises(TokensError, match="one by one"):
        next(codec.decode_long(two))
    with pytest.raises(TokensError, match="load that one"):
        next(CODECS["seanet"].decode_long(two.clips()[0]))
