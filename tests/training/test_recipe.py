from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from vocable.training.recipe import AdversaryRecipe, Optimizer, Quantizer, Recipe, from_dict, load_recipe

yaml = pytest.importorskip("yaml")

ABLATIONS = [p for p in sorted((ROOT / "recipes" / "ablations").glob("*.yaml")) if p.stem != "base"]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_recipe_over_its_base_and_that_over_its_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="name: a\ndata: {train: t, dev: d, batch_size: 3}\noptimizer: {betas: [0.5, 0.6], warmup: 0.2}\nseed: 5\n",
        b="base: a.yaml\nname: b\ndata: {batch_size: 4}\n",
        deep__c="base: ../b.yaml\ndata: {crop_seconds: 2.0}\noptimizer: {betas: [0.7, 0.8]}\nquantizer: {decay: 0.5}\n",
    )
    recipe = load_recipe(tmp_path / "deep" / "c.yaml", ["data.workers=7"])
    assert (recipe.name, recipe.seed, recipe.quantizer.decay) == ("b", 5, 0.5)
    data = recipe.data
    assert (data.train, data.batch_size, data.crop_seconds, data.workers) == ("t", 4, 2.0, 7)
    assert recipe.optimizer.betas == (0.7, 0.8) and recipe.optimizer.warmup == 0.2
    assert load_recipe(tmp_path / "b.yaml").data.crop_seconds == 1.0, "the one below is as it was"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: x.yaml", r"x.yaml: its base leads back to it"),
        ("base: y.yaml", r"x.yaml: its base leads back to it"),
        ("base: absent.yaml", r"absent.yaml: no such recipe; it is the base of .*x.yaml"),
        ("base: broken.yaml", r"broken.yaml: not a recipe"),
        ("base: list.yaml", r"list.yaml: not a recipe"),
        ("base: empty.yaml", r"empty.yaml: not a recipe"),
        ("base: 3", r"x.yaml: not a recipe"),
        ("base: whole.yaml\nspam: 1", "no field spam"),
    ],
)
def test_a_base_that_will_not_do(text: str, message: str, tmp_path: Path) -> None:
    whole = "name: a\ndata: {train: t, dev: d}"
    write(tmp_path, x=text, y="base: x.yaml", broken="{", list="[1, 2]", empty="", whole=whole)
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "x.yaml")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    nested = [flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k: v} for k, v in values.items()]
    return {key: value for part in nested for key, value in part.items()}


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_is_its_base_but_for_what_it_says(path: Path) -> None:
    assert path.read_text().startswith("# ") and path.read_text().split("\n")[0].endswith("?"), "a question comes first"
    values = yaml.safe_load(path.read_text())
    base_path = path.parent / values.pop("base")
    assert values["name"] == path.stem, "it is the run's folder"
    base, recipe = (flat(dataclasses.asdict(load_recipe(p))) for p in (base_path, path))
    changed = {key: value for key, value in recipe.items() if base.get(key) != value}
    assert changed == flat(values), "no more, and no less: what equals the base is no ablation"
    if changed.keys() & {"distillation.layer", "distillation.teacher"}:
        assert "distillation.cache" in changed, "other features lie in another folder"


MINIMAL = {"name": "a", "data": {"train": "t", "dev": "d"}}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("name", ["../up", "a/b", "/tmp", "..", ".", "", "-x", "a\\b", "a\nb", True, None]),
        ("seed", [-1, 2**32, 1.5, "x"]),
        ("max_steps", [0, -1, 1.0, True]),
        ("threads", [-1]),
        ("data.crop_seconds", [0, -1, "nan", ".inf", 1e400, 10**400]),
        ("data.batch_size", [0, "many"]),
        ("data.language_temperature", [-0.1, 1.1, float("nan")]),
        ("data.preload", [1, "yes", None]),
        ("data.train", [[], 1.5, True, [1.5]]),
        ("distillation.weight", [-1, float("inf")]),
        ("distillation.layer", [-1, [], [-1], "all", 1.5]),
        ("content.disturbed", [1.5, -0.5]),
        ("content.phones", [-1]),
        ("losses.mel", [float("nan"), -1]),
        ("losses.resolutions", [[], [[256]], [[256, 0]], [[2, 20]], [[256.5, 20]], 256]),
        ("quantizer.decay", [1.0, -0.1, 1.5]),
        ("quantizer.dead_share", [1.0, -0.1]),
        ("quantizer.dropout", [1.1, -0.1]),
        ("quantizer.kmeans_iterations", [-1]),
        ("optimizer.learning_rate", [float("nan"), 0, -1, "fast"]),
        ("optimizer.warmup", [1.0, 2.0, -0.1]),
        ("optimizer.betas", [[0.9], [0.9, 1.0], [0.9, -0.1], [0.9, "nan"], 0.9]),
        ("optimizer.weight_decay", [-0.1]),
        ("optimizer.clip_norm", [0, float("inf")]),
        ("optimizer.muon", [-1]),
        ("optimizer.ema_decay", [1.0, 1.5]),
        ("adversary.shown", [1.5, -0.1]),
        ("adversary.betas", [[1.0, 0.9]]),
        ("precision", ["float8", []]),
        ("codec", ["fast", None, [1]]),
        ("codec.spectral", ["fast", 5]),
        ("codec.architecture", [[]]),
        ("data", [None, "x", {1: 2, "a": 3}]),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(key: str, values: list[Any]) -> None:
    *parents, last = key.split(".")
    for value in values:
        recipe: dict[str, Any] = {**MINIMAL, "data": dict(MINIMAL["data"])}  # type: ignore[arg-type]
        node = recipe
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        with pytest.raises(ValueError, match=rf"^recipe\.{key.split('.')[0]}") as refused:
            from_dict(recipe)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
        assert "codec" in key or key in str(refused.value)


def test_a_recipe_that_is_made_in_python_is_checked_too() -> None:
    assert Optimizer(betas=[0, 0.5]).betas == (0.0, 0.5)  # type: ignore[arg-type]
    for make in (
        lambda: AdversaryRecipe(shown=2.0),
        lambda: dataclasses.replace(Optimizer(), warmup=1.0),
        lambda: Quantizer(start_step=1.5),  # type: ignore[arg-type]
        lambda: Recipe("x", {"train": "t"}),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError):
            make()


def test_what_a_loss_needs_is_asked_for() -> None:
    for changes, message in (
        ({"distillation": {"weight": 1.0, "cache": "c"}}, r"distillation\.weight needs distillation\.teacher"),
        ({"distillation": {"weight": 1.0, "teacher": "t"}}, r"distillation\.weight needs distillation\.teacher"),
        ({"distillation": {"weight": 1.0, "loss": "units"}}, r"needs distillation\.units"),
        ({"content": {"phones": 1.0}}, r"content\.phones needs content\.labels"),
    ):
        with pytest.raises(ValueError, match=message):
            from_dict(MINIMAL | changes)


@pytest.mark.parametrize("text", ["[" * 1_000, "{a: " * 1_000, "a: &a {b: *a}\nbase: y.yaml"], ids=["[", "{", "circle"])
def test_a_recipe_nested_too_deeply_is_one_line(text: str, tmp_path: Path) -> None:
    write(tmp_path, x=text, y="a: &a {b: *a}", whole="name: a\ndata: {train: t, dev: d}")
    with pytest.raises(ValueError, match=r"x\.yaml: not a recipe") as refused:
        load_recipe(tmp_path / "x.yaml")
    assert len(str(refused.value)) < 300
    with pytest.raises(ValueError, match=r"whole\.yaml: not a recipe"):
        load_recipe(tmp_path / "whole.yaml", ["data.train=" + "[" * 1_000])


def test_a_value_that_unfolds_is_shown_in_short(tmp_path: Path) -> None:
    lines = [
        "l0: &l0 [x, x, x, x, x, x, x, x, x]",
        *(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)),
    ]
    write(tmp_path, x="\n".join([*lines, "name: a", "data: {train: *l8, dev: d}"]))
    with pytest.raises(ValueError) as refused:
        load_recipe(tmp_path / "x.yaml")
    assert len(str(refused.value)) < 300
