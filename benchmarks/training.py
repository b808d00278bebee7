"""How much speech does a training step get through in a second of CPU time, and the official trainer's?

    pip install '.[train]' matplotlib
    pip install --no-deps speechtokenizer==1.0.1 && pip install einops
    python benchmarks/training.py --manifest ../shared/data/dev.jsonl

Steps of CodecTrainer for recipes/fast.yaml, with slim discriminators, and recipes/paper.yaml, with the paper's, each
without adversaries and with; and of the official trainer, whose step always has its own. All distil; the teacher's
features are random, and so are all weights: speed does not depend on them. The systems of the paper's size share a
batch of two clips of a second, few because their steps are heavy; `fast` has its recipe's twelve.

The systems take turns on one thread; the measure is the CPU time of the process. Precision is that of each recipe,
bfloat16 products for `fast` and float32 for `paper`, as the official trainer's.

--profile: the most expensive operators in a step of `fast` with adversaries, and nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import peers
from script import cpu_name, fail, publish, quartiles, timed, versions
from vocable.corpus.manifest import read_manifest, spread, write_manifest
from vocable.semantic.cache import extract
from vocable.training.codec import CodecTrainer
from vocable.training.data import Batch
from vocable.training.recipe import load_recipe

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
MARK = "training: written by benchmarks/training.py"
SECONDS = 1.0  #: of each clip
CLIPS = {"fast": 12, "paper": 2}
UTTERANCES = 24  #: that the clips are cut from
OPERATORS = 15  #: that --profile prints
OFFICIAL = "official"


@dataclass
class System:
    name: str
    step: Callable[[], Any]
    batch: Batch
    runs: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/dev.jsonl"))
    parser.add_argument("--runs", type=int, default=5, help="steps of fast")
    parser.add_argument("--heavy-runs", type=int, default=2, help="steps of the paper's size")
    parser.add_argument("--profile", action="store_true", help="print the most expensive operators of a step of fast")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "training.json")
    parser.add_argument("--page", type=Path, default=HERE / "README.md", help="where the table goes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            manifest = Path(scratch) / "some.jsonl"
            long_enough = [u for u in read_manifest(args.manifest) if u.duration > 2 * SECONDS]
            write_manifest(manifest, spread(long_enough, UTTERANCES))
            fast = ours("fast", "slim", manifest, args.runs)
            if args.profile:
                profile(fast[-1])
                return
            paper = ours("paper", "paper", manifest, args.heavy_runs)
            systems = [*fast, *paper, official(paper[0].batch, args.heavy_runs)]
        except (ImportError, ValueError) as error:
            fail(str(error))
        report = measure(systems)
    packages = ("torch", "numpy", "speechtokenizer")
    report |= {"cpu": cpu_name(), "versions": versions(*packages), "settings": {"clip_seconds": SECONDS, "threads": 1}}
    publish(report, args.out, args.page, MARK, page(report))


def ours(name: str, discriminators: str, manifest: Path, runs: int) -> list[System]:
    """Steps of one trainer of a recipe: without adversaries and with."""
    cache = manifest.parent / name
    recipe = load_recipe(
        RECIPES / f"{name}.yaml",
        [
            *(f"data.{part}={manifest}" for part in ("train", "dev")),
            *(f"data.crop_seconds={SECONDS}", f"data.batch_size={CLIPS[name]}", "data.preload=false"),
            *("distillation.teacher=random", "distillation.layer=0", f"distillation.cache={cache}"),
            *("adversary.weight=1", f"adversary.discriminators={discriminators}", "adversary.start_step=1"),
            *("quantizer.start_step=0", "device=cpu", "dev_clips=1"),
        ],
    )
    extract(RandomTeacher(recipe.codec.semantic_dimension), read_manifest(manifest), cache)  # type: ignore[arg-type]
    trainer = CodecTrainer(recipe, manifest.parent / "run")
    batch = trainer.data[0]

    def step(number: int) -> dict[str, float]:
        trainer.step = number  # the adversaries enter at step 1
        record = trainer.train_step([batch])
        assert ("adversarial" in record) == (number == 1) and "distillation" in record, record
        return record

    return [
        System(name, lambda: step(0), batch, runs),
        System(f"{name}, adversaries", lambda: step(1), batch, runs),
    ]


class RandomTeacher:
    """In a teacher's place: features of its size and rate, without one."""

    name, layer, dtype = "random", 0, torch.float32

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def __call__(self, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(len(w) // 320, self.dimension, generator=generator) for w in waveforms]


def official(batch: Batch, runs: int) -> System:
    """The official trainer's step on a batch of ours."""
    step = peers.official_step()
    return System(OFFICIAL, lambda: step(batch.waveform, batch.targets), batch, runs)


def measure(systems: list[System]) -> dict[str, Any]:
    """Each system's CPU seconds a step, and seconds of audio a CPU second. A first step of each warms up."""
    times: dict[str, list[float]] = {system.name: [] for system in systems}
    turns = [(turn, s) for turn in range(1 + max(s.runs for s in systems)) for s in systems if turn <= s.runs]
    for turn, system in track(turns, "training", console=Console(stderr=True)):
        _, seconds = timed(system.step)
        if turn:
            times[system.name].append(seconds)
    rows = {}
    for system in systems:
        step, clips = np.array(times[system.name]), len(system.batch.waveform)
        audio = clips * SECONDS / step
        rows[system.name] = {"clips": clips, "steps": len(step), "step": quartiles(step), "audio": quartiles(audio)}
    ours, theirs = (rows[name]["audio"]["median"] for name in ("paper, adversaries", OFFICIAL))
    return {"systems": rows, "paper_over_official": ours / theirs}


def profile(system: System) -> None:
    """Print where a step of a system goes. The operators' times are their own, without those of what they call."""
    for _ in range(2):
        system.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        system.step()
    operators = sorted(profiler.key_averages(), key=lambda o: o.self_cpu_time_total, reverse=True)
    total = sum(o.self_cpu_time_total for o in operators)
    table = Table(title=f"{system.name}: {total / 1e6:.2f} s a step")
    for column in ("operator", "calls", "ms", "%"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for o in operators[:OPERATORS]:
        share = 100 * o.self_cpu_time_total / total
        table.add_row(o.key, str(o.count), f"{o.self_cpu_time_total / 1e3:.0f}", f"{share:.1f}")
    Console().print(table)


def page(report: dict[str, Any]) -> str:
    """The table and the ratio, in Markdown."""
    lines = [
        f"One thread of {report['cpu']}, clips of {SECONDS:g} s; median (quartiles).",
        "",
        "| step | clips | CPU seconds | seconds of audio a CPU second |",
        "|---|---|---|---|",
    ]
    for name, row in report["systems"].items():
        step, audio = (
            f"{{median:.{d}f}} ({{quartile_1:.{d}f}} to {{quartile_3:.{d}f}})".format(**row[part])
            for part, d in (("step", 2), ("audio", 3))
        )
        lines.append(f"| {name} | {row['clips']} | {step} | {audio} |")
    ratio = report["paper_over_official"]
    return "\n".join([*lines, "", f"`paper` with adversaries: {ratio:.2f} times as fast as the official trainer."])


if __name__ == "__main__":
    main()
