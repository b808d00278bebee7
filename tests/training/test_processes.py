"""Two processes over gloo train the same model as one."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training.test_codec import manifest, recipe  # noqa: F401 (a fixture)
from vocable.training.processes import join
from vocable.training.state import load_state

pytest.importorskip("accelerate")
SCRIPT = Path(__file__).with_name("two_processes.py")


def worlds(processes: int) -> list[dict[str, str]]:
    """The environment of each of so many processes, as a launcher gives it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [world | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(processes)]


def start(folder: Path, plan: object, processes: int, *options: str) -> list[subprocess.Popen[str]]:
    """Begin to train in so many processes."""
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(plan)))  # type: ignore[call-overload]
    files = [folder / "recipe.json", folder / "run", folder / "end"]
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", SCRIPT, *files, *options],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(world if processes > 1 else {})},
        )
        for world in worlds(processes)
    ]


def run(folder: Path, plan: object, processes: int) -> list[dict]:
    """Train in so many processes; what each held at the end."""
    started = start(folder, plan, processes)
    assert [process.wait(120) for process in started] == [0] * processes
    return [torch.load(folder / f"end-{i}.pt", weights_only=True) for i in range(processes)]


def test_two_processes_equal_one(manifest: Path, tmp_path: Path) -> None:  # noqa: F811
    plan = recipe(
        manifest,
        max_steps=5,
        quantizer={"start_step": 1, "kmeans_iterations": 3, "dead_share": 0.3},
        adversary={"weight": 1.0, "start_step": 3, "normalize": False},
        optimizer={"ema_decay": 0.9, "learning_rate": 1e-4},
    )
    (one,) = run(tmp_path / "one", plan, 1)
    first, second = run(tmp_path / "two", plan, 2)
    assert first["summary"]["codec"] == second["summary"]["codec"]
    for key, tensor in first["tensors"].items():
        assert torch.equal(tensor, second["tensors"][key]), f"{key} is not the same in both processes"
        torch.testing.assert_close(tensor, one["tensors"][key], atol=2e-4, rtol=2e-2, msg=lambda m, k=key: f"{k}: {m}")
    for step, (a, b, whole) in enumerate(zip(first["losses"], second["losses"], one["losses"], strict=True)):
        assert (a["total"] + b["total"]) / 2 == pytest.approx(whole["total"], rel=1e-3), f"step {step}"
        assert a["gradient"] == pytest.approx(whole["gradient"], rel=1e-2)
    assert (tmp_path / "two/run/model/model.safetensors").is_file()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(manifest: Path, tmp_path: Path) -> None:  # noqa: F811
    started = start(tmp_path / "two", recipe(manifest, max_steps=1000), 2, "signal")
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [143, 143]
    assert said == ["SIGTERM at step 5\n"] * 2, "one step after the signal"
    assert load_state(tmp_path / "two/run/state.safetensors")[1]["step"] == 5


WAITING = """
import datetime, sys, time
import accelerate, torch
accelerate.PartialState(cpu=True, timeout=datetime.timedelta(seconds=2))
from vocable.training import processes
_, together = processes.join("cpu")
with together.main_process_first():
    if processes.rank() == 0:
        time.sleep(5)
print(processes.sum_over_processes(torch.ones(1)).item())
if sys.argv[1:] == ["hang"]:
    if processes.rank() == 0:
        time.sleep(60)
    processes.sum_over_processes(torch.ones(1))
"""


def waiting(*options: str) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WAITING, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **world},
        )
        for world in worlds(2)
    ]


@pytest.mark.slow
def test_others_wait_for_the_first_longer_than_for_an_exchange() -> None:
    said = [process.communicate(timeout=120) for process in waiting()]
    assert [out for out, _ in said] == ["2.0\n"] * 2, said


@pytest.mark.slow
def test_a_process_that_hangs_is_found_out() -> None:
    hanging, other = waiting("hang")
    try:
        _, err = other.communicate(timeout=50)
        assert other.returncode != 0 and "timed out" in err.lower(), err
    finally:
        hanging.kill()
        hanging.communicate()


def test_a_device_that_is_not_there_is_missed_in_many_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    several = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    given: dict[str, object] = {}
    monkeypatch.setattr("accelerate.PartialState", lambda **options: given.update(options) or several)
    assert join("cpu")[0] == torch.device("cpu")
    assert given == {"cpu": True}, "exchanges have torch's own timeout, of minutes"
    for absent in ("cuda:99", "gpu"):
        with pytest.raises(ValueError, match=f"no device '{absent}' here"):
            join(absent)
