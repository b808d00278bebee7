"""Files as they come: whole, cut, in one another, with headers that lie; what is written; rates."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import SPEECH
from vocable import audio
from vocable.containers import _frame_size

SAMPLES, RATE = audio.read(SPEECH)

#: What libsndfile writes into files of each suffix that it reads.
FORMATS: dict[str, dict[str, str]] = {suffix: {} for suffix in (".wav", ".w64", ".rf64", ".flac", ".ogg", ".mp3")}
FORMATS |= {".opus": {"format": "OGG", "subtype": "OPUS"}, ".oga": {"format": "OGG"}, ".wave": {"format": "WAV"}}
FORMATS |= {".aiff": {}, ".aif": {"format": "AIFF"}, ".aifc": {"format": "AIFF", "subtype": "ULAW"}, ".caf": {}}
FORMATS |= {".au": {}, ".snd": {"format": "AU"}, ".sph": {"format": "NIST"}, ".nist": {}}


@pytest.fixture(params=FORMATS)
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """12,346 samples in each format."""
    path = tmp_path / f"clip{request.param}"
    soundfile.write(path, SAMPLES[:12_346], RATE, **FORMATS[request.param])
    return path


def test_the_header_has_the_length_that_decoding_gives(clip: Path) -> None:
    assert audio.duration(clip) == pytest.approx(12_346 / RATE, abs=1e-9)
    decoded, _ = audio.read(clip)
    assert len(decoded) == 12_346
    assert clip.suffix in audio.SUFFIXES


def test_a_cut_file_is_refused(clip: Path) -> None:
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    with pytest.raises(audio.AudioError, match="cut short"):
        audio.read(clip)
    with pytest.raises(audio.AudioError, match="cut short"):
        list(audio.read_blocks(clip, RATE))


def test_several_recordings_in_a_file_are_read_or_refused(clip: Path) -> None:
    clip.write_bytes(2 * clip.read_bytes())
    if clip.suffix == ".mp3":
        samples, _ = audio.read(clip)
        assert 2 * 12_346 <= len(samples) < 2 * 12_346 + 3000
        assert audio.duration(clip) == len(samples) / RATE
    else:
        with pytest.raises(audio.AudioError, match="one after the other"):
            audio.read(clip)


def test_the_second_recording_is_in_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "both.mp3"
    halves = SAMPLES[:32_000], SAMPLES[32_000:64_000]
    for half in halves:
        soundfile.write(tmp_path / "half.mp3", half, RATE)
        with open(path, "ab") as file:
            file.write((tmp_path / "half.mp3").read_bytes())
    samples, _ = audio.read(path)
    for half in halves:
        score = np.correlate(samples, half[8000:24_000] / np.linalg.norm(half[8000:24_000]))
        assert score.max() > 0.95 * np.linalg.norm(half[8000:24_000])


def frames_of(mp3: bytes) -> list[bytes]:
    """The MPEG frames of a file, the Xing header first."""
    frames, at = [], 0
    while at < len(mp3):
        frames.append(mp3[at : at + _frame_size(mp3[at : at + 4])])
        at += len(frames[-1])
    assert b"Xing" in frames[0] or b"Info" in frames[0]
    return frames


ID3 = b"ID3\x04\0\0\0\0\x0f\x50" + bytes(15 * 128 + 80)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("variable", [False, True])
def test_mp3_without_a_header(rate: int, variable: bool, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp3"
    speech = np.concatenate([0 * SAMPLES[:64_000], SAMPLES])  # the bit rate of silence is no guide to that of speech
    speech = np.repeat(speech, rate // 16_000)
    mode = {"bitrate_mode": "VARIABLE" if variable else "CONSTANT", "compression_level": 0.5}
    soundfile.write(path, speech, rate, **mode)
    whole, _ = audio.read(path)
    assert len(whole) == len(speech)
    _, *frames = frames_of(path.read_bytes())
    stream = b"".join(frames)
    path.write_bytes(stream)
    samples, _ = audio.read(path)
    assert 0 <= len(samples) - len(whole) < 3000, "a Xing header also says what is padding"
    assert audio.duration(path) == len(samples) / rate
    middle = slice(len(whole) // 2, len(whole) // 2 + 999)
    [delay] = (d for d in range(3000) if np.allclose(samples[d:][middle], whole[middle], atol=1e-4))
    np.testing.assert_allclose(samples[delay : delay + len(whole)], whole, atol=1e-4)
    for content in (ID3 + stream + b"TAG" + bytes(125), b"\0\xff\xfb" * 999 + stream, ID3 + ID3 + stream):
        path.write_bytes(content)
        assert len(audio.read(path)[0]) == len(samples)
    path.write_bytes(stream[:-20])
    with pytest.raises(audio.AudioError, match="cut short"):
        audio.read(path)


def test_mp3_streams_that_do_not_fit(tmp_path: Path) -> None:
    path, other = tmp_path / "it's.mp3", tmp_path / "other.mp3"
    soundfile.write(path, SAMPLES, RATE)
    soundfile.write(other, SAMPLES, 24_000)
    path.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(audio.AudioError, match="different sample rates") as caught:
        audio.read(path)
    names = " ".join(map(shlex.quote, ("it's.mp3", "it's.flac")))
    assert str(caught.value).endswith(f"convert it: ffmpeg -i {names}")


def test_flac_of_unknown_length(tmp_path: Path) -> None:
    content = bytearray(SPEECH.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # STREAMINFO of a file that was written into a pipe
    path = tmp_path / "pipe.flac"
    path.write_bytes(content)
    np.testing.assert_array_equal(audio.read(path)[0], SAMPLES)
    np.testing.assert_array_equal(np.concatenate(list(audio.read_blocks(path, RATE, seconds=1.3))), SAMPLES)
    assert audio.duration(path) == len(SAMPLES) / RATE
    path.write_bytes(content[:-999])
    for read in (audio.read, audio.duration):
        with pytest.raises(audio.AudioError, match="cut short"):
            read(path)
    path.write_bytes(SPEECH.read_bytes() + b"TAG" + bytes(125))
    assert len(audio.read(path)[0]) == len(SAMPLES)


@pytest.mark.parametrize("riff", [0, 36, 2**32 - 1, None])
def test_a_wav_that_was_not_finished(riff: int | None, tmp_path: Path) -> None:
    """Its recorder died before it wrote the sizes."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, SAMPLES, RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = bytes(4)
    if riff is not None:
        content[4:8] = riff.to_bytes(4, "little")
    path.write_bytes(content)
    assert audio.duration(path) == len(SAMPLES) / RATE
    np.testing.assert_allclose(audio.read(path)[0], SAMPLES, atol=1e-4)


@pytest.mark.parametrize(
    ("suffix", "at", "size"), [(".wav", 4, 4), (".wav", 40, 4), (".aiff", 4, 4), (".au", 8, 4), (".w64", 16, 8)]
)
def test_files_out_of_a_pipe_do_not_know_their_size(suffix: str, at: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, SAMPLES, RATE)
    content = bytearray(path.read_bytes())
    content[at : at + size] = b"\xff" * size
    path.write_bytes(content)
    assert len(audio.read(path)[0]) == len(SAMPLES)


def test_a_wav_whose_header_is_out_of_date(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, SAMPLES, RATE)
    content = bytearray(path.read_bytes())
    tagged = content + ID3
    content[4:8], content[40:44] = (20_036).to_bytes(4, "little"), (20_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(audio.AudioError, match=r"bytes follow the end.*ffmpeg -ignore_length 1 -i"):
        audio.read(path)
    path.write_bytes(tagged)
    assert len(audio.read(path)[0]) == len(SAMPLES)


@pytest.mark.parametrize("rate", [1, 999, 10_000_000])
def test_rates_that_no_speech_has(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, SAMPLES[:1600], rate)
    for read in (audio.read, audio.duration, lambda path: next(iter(audio.read_blocks(path, RATE)))):
        with pytest.raises(audio.AudioError, match=f"in its header, {rate} Hz"):
            read(path)
    with pytest.raises(audio.AudioError, match="a sample rate is"):
        audio.resample(SAMPLES[:1600], rate, RATE)
    with pytest.raises(audio.AudioError, match="a sample rate is"):
        audio.write(path, SAMPLES, rate)


def test_rates_of_numpy(tmp_path: Path) -> None:
    there = audio.resample(SAMPLES, np.int64(16_000), np.float32(8000))
    np.testing.assert_array_equal(there, audio.resample(SAMPLES, 16_000, 8000))
    for rate in (16_000.0, np.float64(16_000), np.int32(16_000)):
        audio.write(tmp_path / "x.wav", SAMPLES, rate)
        assert audio.read(tmp_path / "x.wav", rate)[1] == 16_000
    for rate in ("16000", None, float("nan")):
        with pytest.raises(audio.AudioError, match="a sample rate is"):
            audio.resample(SAMPLES, rate, 8000)
    with pytest.raises(audio.AudioError, match="whole number"):
        audio.write(tmp_path / "x.wav", SAMPLES, 16_000.5)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, bool, object, complex])
def test_integers_are_not_written_as_noise(dtype: type, tmp_path: Path) -> None:
    with pytest.raises(audio.AudioError, match="floats with full scale"):
        audio.write(tmp_path / "x.wav", np.array([0, 1000, -2000, 30_000, -1]).astype(dtype), RATE)
    with pytest.raises(audio.AudioError, match="floats with full scale"):
        audio.write(tmp_path / "x.wav", torch.tensor([0, 1000, -2000]), RATE)
    assert not list(tmp_path.iterdir())
    for floats in (torch.tensor([0.5], dtype=torch.bfloat16), np.array([0.5], np.float16), [0.5]):
        audio.write(tmp_path / "x.wav", floats, RATE)
        assert audio.read(tmp_path / "x.wav")[0].tolist() == [0.5]


def test_a_recording_that_does_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(audio.soxr, "resample", full)
    with pytest.raises(audio.AudioError, match="does not fit in memory"):
        audio.read(SPEECH, 8000)


def test_channels_are_said_in_the_same_words_for_all_files(tmp_path: Path) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.stack([SAMPLES] * 2, 1), RATE)
    with pytest.warns(audio.ChannelsWarning) as caught:
        read = [audio.read(tmp_path / f"{name}.wav")[0] for name in "ab"]
    assert {str(w.message) for w in caught} == {"2 channels averaged to mono"}
    np.testing.assert_allclose(read[0], SAMPLES, atol=1e-4)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are Unicode here")
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    audio.write(path, SAMPLES, RATE)
    assert len(audio.read(path)[0]) == len(SAMPLES) and audio.duration(path) == len(SAMPLES) / RATE


def test_what_is_no_audio_is_told_how_to_become_it(tmp_path: Path) -> None:
    path = tmp_path / "a talk.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(999))
    with pytest.raises(audio.AudioError, match=r"not readable as audio.*ffmpeg -i 'a talk.m4a' 'a talk.flac'"):
        audio.read(path)
    with pytest.raises(audio.AudioError, match="is a folder"):
        audio.read(tmp_path)


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
