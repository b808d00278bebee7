"""Lengths from headers. What reading does is tested where it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import SPEECH
from vocable import audio


@pytest.mark.parametrize("suffix", audio.SUFFIXES)
def test_the_header_has_the_length_that_decoding_gives(suffix: str, tmp_path: Path) -> None:
    samples, rate = audio.read(SPEECH)
    path = tmp_path / f"clip{suffix}"
    known = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".aif": {"format": "AIFF"}}
    soundfile.write(path, samples[:12_345], rate, **known.get(suffix, {}))
    assert audio.duration(path) == pytest.approx(12_345 / rate, abs=1e-9)
    decoded, _ = audio.read(path)
    assert len(decoded) == 12_345


def test_no_length(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    with pytest.raises(audio.AudioError, match="no such file"):
        audio.duration(path)
    path.write_bytes(b"hello" * 99)
    with pytest.raises(audio.AudioError, match="not readable as audio"):
        audio.duration(path)
    soundfile.write(path, np.zeros(0), 16_000, format="WAV")
    with pytest.raises(audio.AudioError, match="no samples"):
        audio.duration(path)
    content = bytearray(SPEECH.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # STREAMINFO of a file that was written into a pipe
    path.write_bytes(content)
    with pytest.raises(audio.AudioError, match="does not say how long"):
        audio.duration(path)


@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
def test_blocks_are_the_file(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    samples = audio.resample(audio.read(SPEECH)[0], audio.read(SPEECH)[1], rate)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    twice = audio.read_blocks(path, 16_000, seconds=0.37)
    blocks = list(twice)
    assert all(map(np.array_equal, blocks, twice)), "every iteration reads the file again"
    assert len(blocks) > 5
    whole = audio.read(path, 16_000)[0]
    joined = np.concatenate(blocks)
    assert len(joined) == len(whole)
    np.testing.assert_allclose(joined, whole, atol=1e-5)
    assert audio.write_blocks(tmp_path / "out.flac", blocks, 16_000) == len(whole)
    assert audio.write_blocks(tmp_path / "out.wav", blocks, 16_000) == len(whole)
    np.testing.assert_allclose(audio.read(tmp_path / "out.wav")[0], whole.clip(-1, 1), atol=1 / 32_000)


def test_minutes_in_one_block_become_an_ogg(tmp_path: Path) -> None:
    """libvorbis dies of 150 s in one piece."""
    minutes = np.sin(np.arange(180 * 16_000) / 20).astype(np.float32) / 2
    audio.write(tmp_path / "long.ogg", minutes, 16_000)
    assert len(audio.read(tmp_path / "long.ogg")[0]) == len(minutes)
