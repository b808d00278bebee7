from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from conftest import run_command
from vocable.training.report import differences, last_figures, read_run, smooth, write_report


def line(step: int, **figures: float) -> str:
    return json.dumps({"step": step, "elapsed": step / 2, "progress": step / 200, **figures}) + "\n"


def make_run(folder: Path, *, dev: bool = True, weight: float = 2.0, layers: int = 8) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"name": "x", "distillation": {"weight": weight}, "seed": 0}))
    log = ""
    for step in range(20, 201, 20):
        teacher = {"distillation": 0.6} if weight else {}
        log += line(step, total=2.0 / step, mel=1.0 / step, gradient=1.0, learning_rate=1e-3, dead_codes=0, **teacher)
        if dev and step % 100 == 0:
            mel = {f"dev/mel:{n}": 1.0 / n for n in (1, 2, 4, layers)}
            log += line(step, **mel, **{f"dev/perplexity{k + 1}": 500.0 + k for k in range(layers)}, dead_codes=0)
    (folder / "log.jsonl").write_text(log)
    return folder


def test_a_page_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = make_run(tmp_path / "base $x^{$"), make_run(tmp_path / "<twin>", weight=0.0, layers=12)
    out = tmp_path / "deep" / "ablation.html"
    assert run_command("train", "report", *runs, "-o", out) == 0
    assert f"curves of 2 runs in {out}" in capsys.readouterr().err
    page, picture = out.read_text(), out.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG") and "data:image/png;base64," in page
    assert "&lt;twin&gt;" in page and "<twin>" not in page
    assert not re.search(r"<script|https?:", page)
    assert "<tr><td>distillation.weight</td><td>2.0</td><td>0.0</td></tr>" in page and "<td>seed</td>" not in page
    assert "<tr><td>dev/mel:12</td><td>-</td><td>0.08333</td></tr>" in page


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dev=False)
    log = run / "log.jsonl"
    log.write_text(log.read_text()[: len(line(20)) + 200] + '{"step": 40, "ela')
    assert run_command("train", "report", run) == 0
    assert (run / "report.html").is_file() and (run / "report.png").is_file()
    assert "Where the recipes differ" not in (run / "report.html").read_text()


def test_what_was_logged_behind_the_checkpoint_of_a_resumed_run_did_not_happen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "log.jsonl").open("a") as log:
        # Cut short in its middle, and the resumed run's first line behind it.
        log.write('{"step": 220, "el' + line(40, mel=7.0))
        log.write(line(40, mel=8.0) + line(60, mel=9.0, gradient=float("nan")) + line(60, skipped=1.0) + '"half')
    steps, mel = read_run(run).curve("mel")
    assert steps.tolist() == [20, 40, 60] and mel.tolist() == [0.05, 8.0, 9.0]
    assert read_run(run).layers("mel:") == {}
    assert last_figures([read_run(run)])["skipped steps"] == ["1"]
    write_report([run], tmp_path / "report.html")


def test_speed_is_steps_over_time(tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path / "run")).curve("speed")[1].tolist() == [2.0] * 9


def test_layers_are_in_order_and_equal_fields_no_difference(tmp_path: Path) -> None:
    a, b = (read_run(make_run(tmp_path / name, layers=12)) for name in "ab")
    assert list(a.layers("perplexity")) == list(range(1, 13)) and list(a.layers("mel:")) == [1, 2, 4, 12]
    assert differences([a, b]) == {}


def test_the_moving_average_leaves_out_what_is_not_finite() -> None:
    values = np.full(100, 3.0)
    values[[10, 50]] = np.nan, np.inf
    assert np.allclose(smooth(values), 3.0)
    assert np.isnan(smooth(np.array([np.nan]))).all()


def test_what_is_no_run_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run_command("train", "report", empty) == 2
    assert f"{empty}: no run here" in capsys.readouterr().err
    run = make_run(tmp_path / "run")
    assert run_command("train", "report", run, "-o", tmp_path / "report.pdf") == 2
    assert "let its name end in .html" in capsys.readouterr().err
    log = (run / "log.jsonl").read_text()
    odd = ['{"step": 220}', '{"step": 220, "elapsed": "1 h", "progress": 1}', '{"step": 1, "elapsed": 1}', "[]", "3"]
    for bad in (*odd, line(220, mel="low"), line(220, mel={})):
        (run / "log.jsonl").write_text(log + bad)
        assert run_command("train", "report", run) == 2
        err = capsys.readouterr().err
        assert f"log.jsonl, line {log.count(chr(10)) + 1}: each line needs" in err and err.count("\n") == 1
    (run / "log.jsonl").write_text(log)
    recipe = (run / "recipe.json").read_text()
    for bad in ("[1]", "{", "[" * 100_000):
        (run / "recipe.json").write_text(bad)
        assert run_command("train", "report", run) == 2
        assert "recipe.json: damaged" in capsys.readouterr().err
    (run / "recipe.json").write_text(recipe)
    (run / "log.jsonl").write_text("")
    assert run_command("train", "report", run) == 2
    assert "no step is logged yet" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))
