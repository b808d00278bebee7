"""Commands ended at random moments, sixty in all: the next attempts come to what an undisturbed run comes to, byte for
byte, and nothing is left over."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from conftest import make_tiny, run_command, tiny_config
from vocable.training.state import load_state

yaml = pytest.importorskip("yaml")
KILLS = 12  #: of each command
IN_A_ROW = 3  #: before it is left to come to its end
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CLIPS = 60
CLOCKS = {"elapsed", "seconds", "time"}  #: of a state: what no two runs share


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of a second with texts, a tiny codec, their tokens, and recipes."""
    folder = tmp_path_factory.mktemp("house")
    (folder / "clips").mkdir()
    make_tiny(num_quantizers=4).save_pretrained(folder / "codec")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(CLIPS):
        soundfile.write(folder / "clips" / f"{i:02}.wav", 0.1 * rng.normal(size=16_000), 16_000)
        rows.append(
            {"id": f"{i:02}", "path": f"clips/{i:02}.wav", "duration": 1.0, "speaker": f"s{i % 4}", "text": "one"}
        )
    manifest = folder / "clips.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert run_command("tokenize", manifest, "-o", folder / "tokens", "-m", folder / "codec") == 0
    often = {"max_steps": 200, "save_every": 5, "evaluate_every": 50, "precision": "float32", "threads": 1}
    codec = {
        "name": "tiny",
        "codec": tiny_config().to_dict(),
        "data": {"train": str(manifest), "dev": str(manifest), "crop_seconds": 0.32, "batch_size": 4},
        "losses": {"resolutions": [[256, 20]]},
        "quantizer": {"start_step": 3, "kmeans_iterations": 2},
        "dev_clips": 2,
    }
    small = {"dim": 16, "layers": 1, "heads": 2, "hidden": 16}
    texts = {"tokens": str(folder / "tokens"), "train": str(manifest), "front_end": "characters", "batch_frames": 400}
    data = texts | {"dev_tokens": texts["tokens"], "dev": texts["train"], "cache": str(folder / "cache")}
    lm = {
        "name": "lm",
        "codec": str(folder / "codec"),
        "ar": small,
        "nar": small,
        "aligner": {"steps": 20},
        "data": data,
    }
    for name, recipe in (("codec", codec), ("lm", lm)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe | often))
    return folder


def start(arguments: list[object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vocable", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def trained(folder: Path) -> dict[str, object]:
    """A run's models, and the tensors of its state: clocks and logs are no two runs' own."""
    groups, head = load_state(folder / "state.safetensors")
    tensors = {
        f"{group}/{key}": value.tobytes() if isinstance(value, np.ndarray) else value.numpy().tobytes()
        for group, values in groups.items()
        for key, value in values.items()
    }
    return {"step": head["step"], **tensors, **digests(folder / "model")}


def evaluated(folder: Path) -> dict[str, object]:
    summary = json.loads((folder / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key not in CLOCKS}


COMMANDS: dict[str, tuple[Callable[[Path, Path], list[object]], Callable[[Path], object]]] = {
    "encode": (lambda house, out: ["encode", house / "clips", "-o", out, "-m", house / "codec"], digests),
    "tokenize": (
        lambda house, out: [
            *("tokenize", house / "clips.jsonl", "-o", out, "-m", house / "codec"),
            *("--shard-minutes", "0.1", "--workers", "2"),
        ],
        digests,
    ),
    "eval": (
        lambda house, out: [
            *("eval", "reconstruction", house / "clips.jsonl", "-o", out, "--systems", f"{house}/codec@:4"),
            *("--metrics", "mel,si-sdr", "--jobs", "2"),
        ],
        evaluated,
    ),
    "train codec": (lambda house, out: ["train", "codec", house / "codec.yaml", "-o", out], trained),
    "train lm": (lambda house, out: ["train", "lm", house / "lm.yaml", "-o", out], trained),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_a_command_comes_to_the_same(house: Path, tmp_path: Path, name: str) -> None:
    arguments, results = COMMANDS[name]
    begin = time.monotonic()
    whole = start(arguments(house, tmp_path / "whole"))
    errors = whole.communicate(timeout=600)[1]
    assert whole.returncode == 0, errors
    seconds, expected = time.monotonic() - begin, results(tmp_path / "whole")

    rng = random.Random(name)
    for first in range(0, KILLS, IN_A_ROW):
        out = tmp_path / f"killed-{first}"
        for attempt in range(IN_A_ROW + 1):
            resume = ["--resume"] if name.startswith("train") and (out / "state.safetensors").exists() else []
            process = start([*arguments(house, out), *resume])
            number = None
            if attempt < IN_A_ROW:
                time.sleep(rng.uniform(0.0, seconds))
                if process.poll() is None:
                    number = rng.choice(SIGNALS)
                    os.killpg(process.pid, number)
            errors = process.communicate(timeout=600)[1]
            assert "Traceback" not in errors, errors
            if number is None:
                assert process.returncode == 0 or "--resume" in errors, errors
            elif process.returncode != 0:  # it may have been over
                # A signal before Python has a handler for it, or after that is gone, ends the process by itself.
                assert process.returncode in (-number, 128 + number), errors
            assert not of_group(process.pid)
        assert results(out) == expected
        assert not [path for path in out.rglob("*") if ".tmp" in path.name], "temporary files are left"


def of_group(group: int) -> list[psutil.Process]:
    """Processes that a command started and that outlive it, after two seconds."""
    for _ in range(20):
        alive = [process for process in psutil.process_iter() if _group_of(process) == group]
        if not alive:
            return []
        time.sleep(0.1)
    return alive


def _group_of(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
