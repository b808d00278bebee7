"""The console command, in this process (importing torch costs seconds) but through its front door."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.codec.tokens import Encoded


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tiny_folder: Path):
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run_command(*arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    samples, rate = audio.read(SPEECH)
    soundfile.write(path, samples[:12_345], rate)
    return path


def test_encode_decode_reconstruct(run, clip: Path, tiny_folder: Path, tmp_path: Path) -> None:
    tokens, out, direct = tmp_path / "clip.safetensors", tmp_path / "out.wav", tmp_path / "direct.wav"
    code, _, err = run("encode", clip, "-o", tokens, "-m", tiny_folder)
    assert code == 0 and "encoded 1 of 1 files" in err
    assert Encoded.load(tokens).codes.shape == (1, 8, 39)
    assert run("decode", tokens, "-o", out, "-m", tiny_folder)[0] == 0
    assert run("reconstruct", clip, "-o", direct, "-m", tiny_folder)[0] == 0
    assert out.read_bytes() == direct.read_bytes()
    assert soundfile.info(out).frames == 12_345
    assert run("reconstruct", clip, "-o", out, "--layers", ":1", "-m", tiny_folder)[0] == 0
    assert out.read_bytes() != direct.read_bytes()


def test_many_files_and_a_bad_one(run, clip: Path, tiny_folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "deep").mkdir(parents=True)
    (corpus / "a.wav").write_bytes(clip.read_bytes())
    (corpus / "deep" / "b.wav").write_bytes(clip.read_bytes())
    (corpus / "bad.wav").write_bytes(b"no audio")
    (corpus / "notes.txt").write_text("not looked at")
    out = tmp_path / "tokens"
    code, _, err = run("encode", corpus, "-o", out, "-m", tiny_folder, "--format", "npz", "--layers", "1:3")
    assert code == 2
    assert "bad.wav: not readable as audio" in err and "encoded 2 of 3 files" in err and "Traceback" not in err
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == ["a.npz", "deep/b.npz"]
    code, _, err = run("decode", out / "*.npz", out / "deep", "-o", tmp_path / "wavs", "-m", tiny_folder)
    assert code == 0 and sorted(p.name for p in (tmp_path / "wavs").iterdir()) == ["a.wav", "b.wav"]


def test_stereo_44100_is_mixed_with_a_warning(run, tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=(44_100, 2)), 44_100, subtype="PCM_U8")
    code, _, err = run("encode", path, "-o", tmp_path / "t.jsonl", "-m", tiny_folder)
    assert code == 0 and "warning" in err and "2 channels averaged to mono" in err
    assert Encoded.load(tmp_path / "t.jsonl").num_samples.tolist() == [16_000]


def test_info(run, tiny_folder: Path) -> None:
    code, out, _ = run("info", tiny_folder, "--json")
    facts = json.loads(out)
    assert (
        code == 0
        and facts["id"] == make_tiny().id
        and facts["token_id"] == make_tiny().token_id
        and facts["frame_rate"] == 50.0
    )
    assert "50 Hz" in run("info", tiny_folder)[1]


def test_twenty_broken_calls(run, clip: Path, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Each: exit code 2, one line that names the trouble, no traceback, no partial file."""
    monkeypatch.chdir(tmp_path)
    samples = audio.read(clip)[0]
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        bad = samples.copy()
        bad[99] = value
        soundfile.write(f"{name}.wav", bad, 16_000, subtype="FLOAT")
    soundfile.write("none.wav", samples[:0], 16_000)
    Path("empty.wav").touch()
    Path("text.wav").write_text("hello" * 99)
    Path("cut.wav").write_bytes(clip.read_bytes()[:9000])
    Path("folder").mkdir()
    Path("file").touch()
    Path("wrong").mkdir()
    (Path("wrong") / "config.json").write_text("{}")
    (Path("wrong") / "model.safetensors").write_bytes(b"0" * 99)
    make_tiny(seed=5).encode(torch.from_numpy(samples)).save("other.safetensors")
    Path("cut.safetensors").write_bytes(Path("other.safetensors").read_bytes()[:200])
    before = sorted(tmp_path.rglob("*"))
    model = ("-m", tiny_folder)
    calls = {
        ("encode", "nan.wav", "-o", "out.npz", *model): "NaN or infinite",
        ("encode", "inf.wav", "-o", "out.npz", *model): "NaN or infinite",
        ("encode", "none.wav", "-o", "out.npz", *model): "no samples",
        ("encode", "empty.wav", "-o", "out.npz", *model): "not readable as audio",
        ("encode", "text.wav", "-o", "out.npz", *model): "not readable as audio",
        ("encode", "cut.wav", "-o", "out.npz", *model): "cut short",
        ("encode", "absent.wav", "-o", "out.npz", *model): "no such file",
        ("encode", "*.mp3", "-o", "out", *model): "no file matches",
        ("encode", "folder", "-o", "out", *model): "no file ending in",
        ("encode", clip, "-o", "file/out.npz", *model): "file",
        ("encode", clip, "-o", "/proc/out.npz", *model): "/proc",
        ("reconstruct", clip, "-o", "/proc/out.wav", *model): "/proc",
        ("reconstruct", clip, "-o", clip, *model): "is the input itself",
        ("reconstruct", tmp_path, "-o", tmp_path, *model): "is an input itself",
        ("encode", clip, "-o", "out.txt", *model): "the output ends in",
        ("encode", clip, "-o", "out.npz", "--device", "gpu", *model): "cannot be used here",
        ("encode", clip, "nan.wav", "-o", "out.npz", *model): "for more it is a folder",
        ("encode", clip, "-o", "out.npz", "--layers", "1", *model): "--layers :1 for the first 1",
        ("encode", clip, "-o", "out.npz", "--layers", "5:3", *model): "does not select",
        ("encode", clip, "-o", "out", "--format", "xml", *model): "safetensors, npz or jsonl",
        ("encode", clip, "-o", "out.npz", "-m", "wrong"): "wrong: config.json",
        ("encode", clip, "-o", "out.npz", "-m", "absent"): "no such folder",
        ("encode", clip): "Missing option",
        ("encode", clip, "-o", "out.npz", "--spam"): "No such option",
        ("decode", "other.safetensors", "-o", "out.wav", *model): "codes of tokens-",
        ("decode", "cut.safetensors", "-o", "out.wav", *model): "not a token file",
        ("decode", clip, "-o", "out.wav", *model): "a token file ends in",
        ("decode", "absent.npz", "-o", "out.wav", *model): "no such file",
        ("reconstruct", clip, "-o", "out.xyz/", "--layers", "x", *model): "layers are a slice",
        ("train", "codec", "absent.yaml"): "no such recipe",
        ("train", "codec", "absent.yaml", "--max-time", "soon"): "a duration is",
        ("semantic", "extract", "absent.jsonl", "-o", "out", "--teacher", "x"): "no such manifest",
        ("spam",): "No such command",
    }
    assert len(calls) >= 20
    for call, message in calls.items():
        code, out, err = run(*call)
        assert code == 2, (call, err)
        assert message in err and "Traceback" not in err + out, (call, err)
        complaints = [line for line in err.splitlines() if line and not line.startswith("encoded 0")]
        assert len([line for line in complaints if line.startswith(("vocable: ", "Error: "))]) == 1, (call, err)
    assert sorted(tmp_path.rglob("*")) == before


def test_help_is_there_at_once() -> None:
    """Under half a second of processor time, torch not imported."""
    code = "import sys; from vocable.cli.main import main\n"
    code += "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True)  # the first run compiles what it imports
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "encode" in done.stdout, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: int, expected: int, tiny_folder: Path, tmp_path: Path) -> None:
    """A real process, stopped while it encodes many files: no temporary file stays."""
    for i in range(400):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(160_000) + 0.01, 16_000)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vocable.cli.main", "encode", tmp_path, "-o", out, "-m", tiny_folder]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True, env=env)
    deadline = time.monotonic() + 60
    while not list(out.glob("[0-9]*.safetensors")) and time.monotonic() < deadline:  # a whole file: no hidden one
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == expected, err
    assert "Traceback" not in err
    files = list(out.iterdir())
    assert files and all(p.suffix == ".safetensors" and not p.name.startswith(".") for p in files)
    for path in files[:5]:
        Encoded.load(path)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_torch_is_imported(number: int, expected: int, tmp_path: Path) -> None:
    """An exception in the import would abort the process: torch's C++ code imports Python modules."""
    (tmp_path / "torch.py").write_text(
        f"import os\ntry:\n    os.kill(os.getpid(), {number})\n    for i in range(10**6): pass\n"
        "except BaseException:\n    os.abort()"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "vocable", "info", str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == expected and done.stderr in ("vocable: interrupted\n", "vocable: terminated\n")


def test_a_full_gpu_is_one_line(run, monkeypatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("vocable.codec.model.SpeechTokenizer.from_pretrained", fill)
    code, _, err = run("encode", SPEECH, "-o", "tokens.npz")
    assert code == 2 and "out of memory on the GPU" in err
