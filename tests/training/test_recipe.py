from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from vocable.training.recipe import load_recipe

yaml = pytest.importorskip("yaml")

ABLATIONS = [p for p in sorted((ROOT / "recipes" / "ablations").glob("*.yaml")) if p.stem != "base"]
#: Ablations of fields that recipes do not have yet. Once they do, `strict` asks for their names to be taken out here.


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
