from __future__ import annotations

from pathlib import Path

import pytest

from conftest import run_command
from vocable.evaluation.listening.plan import Plan, load_plan

FIELDS = {"kind": "mos", "manifest": "clips.jsonl", "systems": ("recording", "fast@:8", "opus:6")}


def test_the_number_of_listeners_by_power() -> None:
    plan = Plan(**FIELDS | {"clips": 24}).sized()
    assert plan.listeners % plan.block == 0
    assert plan.expected_power(round(plan.listeners * (1 - plan.dropout))) >= 0.8
    larger = Plan(**FIELDS | {"clips": 24, "detect": 0.6}).sized()
    assert larger.listeners < plan.listeners
    assert Plan(**FIELDS | {"listeners": 10}).sized().listeners == 12
    with pytest.raises(ValueError, match="raise clips or detect"):
        Plan(**FIELDS | {"clips": 2, "detect": 0.05}).sized()


@pytest.mark.parametrize(("kind", "block"), [("mushra", 5), ("mos", 2), ("smos", 2), ("preference", 2), ("abx", 4)])
def test_the_block_of_a_balanced_design(kind: str, block: int) -> None:
    plan = Plan(kind=kind, manifest="m", systems=("a", "b"), clips=8, listeners=1).sized()
    assert plan.block == plan.listeners == block
    heard = plan.heard()
    assert heard.shape == (len(plan.systems) if kind == "mushra" else len(plan.judged), block, 8)
    assert len(set(heard.sum((1, 2)))) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"systems": ("fast",)}, "at least two"),
        ({"systems": ("a", "b", "a")}, "a occurs twice"),
        ({"systems": ("a", "anchor 7 kHz")}, "added by vocable"),
        ({"kind": "mushra"}, "leave out tts and recording"),
        ({"speech": "tts"}, "needs models"),
        ({"versions": 4}, "only 3 conditions"),
        ({"kind": "acr"}, "'mushra' or 'mos'"),
        ({"power": 1.0}, "less than 1"),
    ],
)
def test_bad_plans(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**FIELDS | fields)


def test_a_plan_is_read_from_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("kind: mos\nmanifest: clips.jsonl\nsystems: [recording, fast]\nspread: {listener: .4, clip: .2}\n")
    assert run_command("listen", "make", path, "-o", tmp_path / "out") == 2
    assert "plan.yaml.spread" in capsys.readouterr().err
    path.write_text("kind: mos\nmanifest: clips.jsonl\nsystems: [recording, fast]\n")
    assert load_plan(path, ["clips=20"]).clips == 20
    assert run_command("listen", "make", path, "-o", tmp_path / "out") == 2
    assert "clips.jsonl: no such manifest" in capsys.readouterr().err
