"""Real training processes, interrupted and killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import tiny_config
from vocable import SpeechTokenizer
from vocable.training.state import load_state

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.normal(size=16_000), 16_000)
        rows.append({"id": str(i), "path": f"{i}.wav", "duration": 1.0})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = {
        "name": "tiny",
        "codec": tiny_config().to_dict(),
        "data": {"train": str(tmp_path / "train.jsonl"), "dev": str(tmp_path / "train.jsonl"), "crop_seconds": 0.32},
        "losses": {"resolutions": [[256, 20]]},
        "quantizer": {"start_step": 3, "kmeans_iterations": 2},
        "save_every": 5,
        "dev_clips": 2,
        "precision": "float32",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(recipe: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vocable.cli.main", "train", "codec", str(recipe), "-o", str(out), *options]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)


def wait_for_state(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not (out / "state.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_saves_and_resumes(recipe: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"
    process = start(recipe, out)
    wait_for_state(process, out)
    os.killpg(process.pid, number)  # as a terminal does: to the data worker too
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "go on with --resume" in err and "Traceback" not in err, err
    step = load_state(out / "state.safetensors")[1]["step"]
    assert f"saved at step {step}" in err
    again = start(recipe, out, "--resume", "--set", f"max_steps={step + 3}")
    assert again.wait(timeout=120) == 0
    SpeechTokenizer.from_pretrained(out / "model")
    refused = start(recipe, out)
    assert refused.wait(timeout=60) == 2


def test_killed_at_random_moments_a_run_goes_on_from_a_whole_state(recipe: Path, tmp_path: Path) -> None:
    out, rng, last = tmp_path / "run", random.Random(0), 0
    for attempt in range(10):
        process = start(recipe, out, *(["--resume"] if attempt else []))
        wait_for_state(process, out)
        time.sleep(rng.uniform(0.0, 4.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        step = load_state(out / "state.safetensors")[1]["step"]
        assert step >= last
        last = step
    assert last > 0
