"""Two hundred broken inputs through the API: the right error each time, in one line, and never a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from vocable import audio
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded, TokensError

SPEECH = 0.1 * np.random.default_rng(0).normal(size=4000).astype(np.float32)


def poisoned(value: float, at: int) -> np.ndarray:
    bad = SPEECH.copy()
    bad[at] = value
    return bad


def bad_waveforms() -> Iterator[Any]:
    for value in (np.nan, np.inf, -np.inf):
        for at in (0, 1999, 3999):
            yield poisoned(value, at)
            yield torch.from_numpy(poisoned(value, at))
            yield [SPEECH, poisoned(value, at)]
            yield np.stack([SPEECH, poisoned(value, at)])
    yield from (np.zeros(0, np.float32), torch.zeros(0), [], [np.zeros(0, np.float32)], [SPEECH, np.zeros(0)])
    yield from (np.zeros((2, 0), np.float32), np.zeros((0, 100), np.float32), torch.zeros(0, 0))
    yield from (SPEECH[None, None, None], torch.zeros(1, 2, 100), torch.tensor(1.0), np.float32(1), [SPEECH[None]])
    yield from (SPEECH.reshape(-1, 2), torch.zeros(1000, 6), torch.zeros(2, 1000, 1, 1), torch.zeros(0, 1, 100))
    for kind in (np.int16, np.int32, np.uint8, np.int64, bool, np.complex64):
        yield SPEECH.astype(kind)
        yield [SPEECH.astype(kind)]
    yield from (SPEECH * 32768, (SPEECH * 32768).astype(np.float64), torch.from_numpy(SPEECH * 1e30))
    yield from (None, "speech.wav", b"bytes", 3, 1.5, {}, {"a": SPEECH}, object(), Path("speech.wav"), SPEECH.tolist())
    yield from (np.array([object()]), np.array(["a"]), SPEECH.astype(np.longdouble), [torch.tensor(1.0)])
    yield from (["speech.wav"], [None], [SPEECH, None], [1.0, 2.0], (w for w in [SPEECH]), [[0.1, 0.2]])


def bad_codes() -> Iterator[Any]:
    good = torch.zeros(1, 8, 5, dtype=torch.int64)
    yield from (good.float(), good.bool(), good.to(torch.complex64), good.numpy().astype(np.float64))
    yield from (good - 1, good + 32, good + 10**9, good[0], good[None], good[:, :7], good[:, :0], good[..., :0])
    yield from (good[:0], torch.zeros(1, 9, 5, dtype=torch.int64), torch.tensor(3), torch.zeros(0, dtype=torch.int64))
    yield from ("codes.npz", None, {}, [1, 2], 3)
    yield from (np.zeros((5,), np.int64), np.zeros((8, 5), np.int64), torch.full((1, 8, 5), 32))
    yield from (torch.zeros(8, 1, 5, dtype=torch.int64), np.array([[["a"]]]), np.array([[[None]]]))


def bad_layers() -> Iterator[Any]:
    yield from (0, 1, 8, "0:1", (0, 1), [0], range(1), 1.0, slice(0, 0), slice(3, 2), slice(8, None), slice(0, 9))
    yield from (slice(0, 8, 2), slice(None, None, -1), slice(9, 12), slice(-1, -2), slice(0, 100), True, slice(0, 2.5))


def cases(tokenizer: SpeechTokenizer) -> Iterator[tuple[str, Callable[[], object]]]:
    for i, bad in enumerate(bad_waveforms()):
        yield f"encode {i}", lambda bad=bad: tokenizer.encode(bad)
    for i, bad in enumerate(bad_waveforms()):
        if i % 5 == 0:
            yield f"latents {i}", lambda bad=bad: tokenizer.latents(bad)
            yield f"reconstruct {i}", lambda bad=bad: tokenizer.reconstruct(bad)
    for i, bad in enumerate(bad_codes()):
        yield f"decode {i}", lambda bad=bad: tokenizer.decode(bad)
        yield f"embed {i}", lambda bad=bad: tokenizer.embed(bad)
    encoded = tokenizer.encode(SPEECH)
    for i, bad in enumerate(bad_layers()):
        yield f"encode layers {i}", lambda bad=bad: tokenizer.encode(SPEECH, layers=bad)
        yield f"decode layers {i}", lambda bad=bad: tokenizer.decode(encoded, layers=bad)
        yield f"bitrate {i}", lambda bad=bad: tokenizer.bitrate(bad)
    for i, bad in enumerate(([], [0], [4161], [-1], [4000, 4000], 4000, [[4000]], "a", [None], [999.5])):
        yield f"encode num_samples {i}", lambda bad=bad: tokenizer.encode(SPEECH, num_samples=bad)
        yield f"decode num_samples {i}", lambda bad=bad: tokenizer.decode(encoded.codes, num_samples=bad)
    for rate in (0, -1, "16000"):
        yield f"rate {rate}", lambda rate=rate: tokenizer.encode(SPEECH, sample_rate=rate)
    part = tokenizer.encode(SPEECH, layers=slice(0, 2))
    yield "rows that are not held", lambda: tokenizer.decode(part, layers=slice(0, 4))
    yield "rows that do not fit", lambda: tokenizer.decode(part.codes)


def test_two_hundred_broken_inputs(tiny: SpeechTokenizer) -> None:
    count = 0
    for name, call in cases(tiny):
        with pytest.raises(ValueError) as caught:
            print(name, call())
        message = str(caught.value)
        assert message and "\n" not in message, name
        what, *rest = name.split()
        if what in ("encode", "latents", "reconstruct", "decode", "embed") and len(rest) == 1:
            assert type(caught.value) is (TokensError if what in ("decode", "embed") else audio.AudioError), name
        count += 1
    assert count >= 200, count


def test_broken_audio_files(tmp_path: Path) -> None:
    wav = tmp_path / "good.wav"
    soundfile.write(wav, SPEECH, 16_000)
    data = wav.read_bytes()
    flac = tmp_path / "good.flac"
    soundfile.write(flac, SPEECH, 16_000)
    files = {
        "empty.wav": b"",
        "text.wav": b"this is no audio\n" * 50,
        "header.wav": data[:44],
        "cut.wav": data[: len(data) // 2],
        "cut-header.wav": data[:20],
        "cut.flac": flac.read_bytes()[:600],
        "noise.flac": np.random.default_rng(0).bytes(2000),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for value, name in ((np.nan, "nan.wav"), (np.inf, "inf.wav")):
        soundfile.write(tmp_path / name, poisoned(value, 100), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "zero.wav", np.zeros(0, np.float32), 16_000)
    for name in (*files, "nan.wav", "inf.wav", "zero.wav", "absent.wav", "."):
        with pytest.raises(audio.AudioError) as caught:
            audio.read(tmp_path / name)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value), name


def test_odd_but_good_audio_files(tmp_path: Path, tiny: SpeechTokenizer) -> None:
    path = tmp_path / "odd.wav"
    stereo = np.stack([SPEECH, -0.5 * SPEECH], 1)
    soundfile.write(path, stereo, 44_100, subtype="PCM_U8")
    with pytest.warns(UserWarning, match="2 channels averaged"):
        waveform, rate = audio.read(path, 16_000)
    assert rate == 16_000 and waveform.shape == (round(4000 * 160 / 441),) and waveform.dtype == np.float32
    for name, samples in {"silent": np.zeros(4000), "clipped": np.sign(SPEECH), "one": SPEECH[:1]}.items():
        soundfile.write(path, samples, 16_000)
        decoded = tiny.reconstruct(audio.read(path)[0])
        assert torch.isfinite(decoded.waveform).all(), name
        assert decoded.waveform.shape == (1, len(samples))


def test_nothing_partial_is_left(tmp_path: Path, tiny: SpeechTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: Encoded = tiny.encode(SPEECH)

    class LibrarysOwnError(RuntimeError):
        pass

    def full_disk(*_: object, **__: object) -> None:
        raise LibrarysOwnError("No space left on device")

    (tmp_path / "old.safetensors").write_bytes(b"old")
    monkeypatch.setattr("safetensors.numpy.save_file", full_disk)
    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    monkeypatch.setattr("soundfile.SoundFile.write", full_disk)
    for write in (
        lambda: encoded.save(tmp_path / "old.safetensors"),
        lambda: tiny.save_pretrained(tmp_path),
        lambda: audio.write(tmp_path / "a.wav", SPEECH, 16_000),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("old.safetensors", b"old")]
    with pytest.raises(audio.AudioError, match="NaN"):
        audio.write(tmp_path / "b.wav", poisoned(np.nan, 3), 16_000)
    with pytest.raises(audio.AudioError, match="unknown audio format"):
        audio.write(tmp_path / "b.xyz", SPEECH, 16_000)
