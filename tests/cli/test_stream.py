"""`vocable stream` on real pipes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.test_causal import HOP, make_causal, noise
from vocable.codec.model import SpeechTokenizer
from vocable.codec.token_frames import read_frames
from vocable.codec.tokens import Encoded, TokensError
from vocable.pcm import pcm_bytes, read_pcm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    codec = make_causal(encoder_look_ahead=2, content_blocks=1, codec={"level": -26.0, "high_pass": 40.0})
    codec.save_pretrained(folder)
    return folder


def vocable(*arguments: object, data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vocable", "stream", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, timeout=300)


def as_wav(pcm: bytes, rate: int, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm)
    return out.getvalue()


@pytest.mark.slow
def test_encode_decode_and_loop(folder: Path) -> None:
    pcm = pcm_bytes(noise(20 * HOP + 5).numpy())
    clip = torch.from_numpy(np.frombuffer(pcm, "<i2").astype(np.float32) / 32_768)
    codec = SpeechTokenizer.from_pretrained(folder)
    stream = codec.stream()
    expected = Encoded.joined([stream.encode(clip), stream.flush()[0]])
    spoken = codec.decode(expected).waveform[0]
    for options, data in ((), pcm), (("--json",), as_wav(pcm, 16_000)):
        made = vocable("encode", "-m", folder, *options, data=data)
        assert made.returncode == 0, made.stderr
        if options:
            lines = [json.loads(line) for line in made.stdout.splitlines()]
            assert lines[0]["token_id"] == codec.token_id and lines[-1]["num_samples"] == 5 and len(lines) == 22
        frames = Encoded.joined(list(read_frames(io.BytesIO(made.stdout))))
        assert torch.equal(frames.codes, expected.codes) and torch.equal(frames.num_samples, expected.num_samples)
        torch.testing.assert_close(frames.gain, expected.gain, atol=0, rtol=3e-4)
    heard = vocable("decode", "-m", folder, data=made.stdout)
    assert heard.returncode == 0, heard.stderr
    speech = np.frombuffer(heard.stdout, "<i2") / 32_768
    assert len(speech) == len(clip) and np.abs(speech - spoken.numpy()).max() < 1e-3
    looped = vocable("loop", "-m", folder, data=pcm)
    assert looped.returncode == 0 and len(looped.stdout) == len(pcm)
    assert b"delay 9 ms, load " in looped.stderr


@pytest.mark.slow
def test_what_stops_the_command(folder: Path, tiny_folder: Path) -> None:
    offline = vocable("loop", "-m", tiny_folder, data=b"")
    assert offline.returncode == 2 and b"cannot stream" in offline.stderr and offline.stderr.count(b"\n") == 1
    garbage = vocable("decode", "-m", folder, data=b"no frames at all")
    assert garbage.returncode == 2 and b"no token frames" in garbage.stderr and garbage.stderr.count(b"\n") == 1
    command = [sys.executable, "-m", "vocable", "stream", "loop", "-m", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(bytes(60 * HOP))
        process.stdin.flush()
        assert process.stdout.read(2 * HOP), "sent frame by frame, before the input ends"
        process.stdout.close()
        process.stdin.write(bytes(60 * HOP))
        process.stdin.close()
        stderr = process.stderr.read()
    assert process.returncode == 1 and not stderr, "as other commands do, and as head expects"


def test_pcm() -> None:
    pcm = pcm_bytes(np.array([0.0, 0.5, -1.0, 2.0, 1 / 65_536], np.float32))
    assert np.frombuffer(pcm, "<i2").tolist() == [0, 16_384, -32_768, 32_767, 0]
    blocks = list(read_pcm(io.BytesIO(pcm + b"\x01"), 16_000, None, 2))
    assert [len(block) for block in blocks] == [2, 2, 1], "half a sample at the end is dropped"
    stereo = as_wav(np.array([[100, 300], [0, -200]], "<i2").tobytes(), 16_000, 2)
    assert (np.concatenate(list(read_pcm(io.BytesIO(stereo), 16_000, None, 7))) * 32_768).tolist() == [200, -100]
    slow = np.concatenate(list(read_pcm(io.BytesIO(as_wav(bytes(16_000), 8_000)), 16_000, None, 320)))
    assert len(slow) == 16_000
    with pytest.raises(ValueError, match="no WAV file of 16-bit PCM; convert it"):
        list(read_pcm(io.BytesIO(b"RIFF0000WAVEfmt "), 16_000, None, 7))


@pytest.mark.parametrize("damage", [b"", b"VTF1", b"VTF1\x05\0\0\0{}", b'{"layers": 3}\n', b"RIFF"])
def test_bytes_that_are_no_frames(damage: bytes) -> None:
    with pytest.raises(TokensError, match="no token frames"):
        list(read_frames(io.BytesIO(damage)))
