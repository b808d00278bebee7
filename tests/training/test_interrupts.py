"""Real training processes, interrupted and killed, and a disk that is full."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import run_command, tiny_config
from vocable import SpeechTokenizer
from vocable.training.state import load_state

yaml = pytest.importorskip("yaml")
STEPS = 150


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that has a state takes part: discriminators, their optimizer, an average of the weights."""
    folder = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.normal(size=16_000), 16_000)
        rows.append({"id": str(i), "path": f"{i}.wav", "duration": 1.0})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = str(folder / "train.jsonl")
    values = {
        "name": "tiny",
        "codec": tiny_config().to_dict(),
        "data": {"train": manifest, "dev": manifest, "crop_seconds": 0.32, "batch_size": 4},
        "losses": {"resolutions": [[256, 20]]},
        "quantizer": {"start_step": 3, "kmeans_iterations": 2},
        "adversary": {"weight": 1.0, "start_step": 4, "shown": 0.5},
        "optimizer": {"ema_decay": 0.99},
        "accumulate": 2,
        "max_steps": STEPS,
        "save_every": 5,
        "dev_clips": 2,
        "precision": "float32",
        "threads": 1,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert start(recipe, out).wait(timeout=300) == 0
    return out


def start(recipe: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vocable", "train", "codec", str(recipe), "-o", str(out), *options]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)


def wait_for_state(process: subprocess.Popen[str], out: Path) -> None:
    """Until the process has saved."""
    state, began, deadline = out / "state.safetensors", time.time(), time.monotonic() + 120
    while not state.exists() or state.stat().st_mtime < began:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def same_run(out: Path, whole: Path) -> bool:
    """Whether two runs ended in the same state, bit for bit."""
    (a, head), (b, other) = (load_state(folder / "state.safetensors") for folder in (out, whole))
    assert head["step"] == other["step"] == STEPS and {"average", "adversary", "discriminators"} <= a.keys() == b.keys()
    return all(torch.equal(tensor, b[group][key]) for group, tensors in a.items() for key, tensor in tensors.items())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_exactly(
    recipe: Path, whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "run"
    process = start(recipe, out)
    wait_for_state(process, out)
    os.killpg(process.pid, number)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "resume with --resume" in err and "Traceback" not in err, err
    step = load_state(out / "state.safetensors")[1]["step"]
    assert f"saved at step {step}" in err
    assert start(recipe, out, "--resume").wait(timeout=300) == 0
    assert same_run(out, whole)
    SpeechTokenizer.from_pretrained(out / "model")
    assert start(recipe, out).wait(timeout=60) == 2, "a run is not begun over another"


@pytest.mark.slow
def test_killed_at_random_moments_a_run_goes_on_exactly(recipe: Path, whole: Path, tmp_path: Path) -> None:
    out, rng, last = tmp_path / "run", random.Random(0), 0
    for attempt in range(10):
        process = start(recipe, out, *(["--resume"] if attempt else []))
        if attempt % 2 == 0:  # half of them once they train, the rest wherever they are
            wait_for_state(process, out)
        time.sleep(rng.uniform(0.0, 0.5) if attempt % 2 == 0 else rng.uniform(1.0, 8.0))
        assert process.poll() is None, "it ended before it could be killed: raise STEPS"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        step = load_state(out / "state.safetensors")[1]["step"]
        assert step >= last
        last = step
    assert last > 0
    assert start(recipe, out, "--resume").wait(timeout=300) == 0
    assert same_run(out, whole)


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Within the block no file of this process grows beyond `size` bytes: a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [1500, 1_000_000], ids=["no room for the log", "no room for the state"])
def test_a_full_disk_ends_the_run_with_a_line(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], room: int
) -> None:
    out = tmp_path / "run"
    command = ("train", "codec", recipe, "-o", out)
    assert run_command(*command, "--set", "max_steps=5") == 0
    held = (out / "state.safetensors").read_bytes()
    capfd.readouterr()
    with no_room_beyond(room):
        assert run_command(*command, "--set", "max_steps=10", "--resume") == 2
    err = capfd.readouterr().err
    [line] = [line for line in err.splitlines() if not line.startswith("step ")]
    assert line.startswith("vocable: ") and "File too large" in line
    assert (out / "state.safetensors").read_bytes() == held and not list(out.glob(".*.tmp*"))
    assert run_command(*command, "--set", "max_steps=10", "--resume") == 0
    assert load_state(out / "state.safetensors")[1]["step"] == 10


def test_another_recipe_is_refused_before_the_data_are_read(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "codec", recipe, "-o", tmp_path / "run")
    assert run_command(*command, "--set", "max_steps=2") == 0
    monkeypatch.setattr("vocable.training.codec.CodecTrainer.__init__", lambda *_, **__: pytest.fail("it was begun"))
    assert run_command(*command, "--set", "seed=7", "--resume") == 2
    assert "begun with another seed: give the same options again" in capfd.readouterr().err
