"""What does each choice in a recipe do? Each recipe of a folder and its base, trained alike, side by side on dev.

    python benchmarks/ablations.py --max-time 12m --threads 2
    python benchmarks/ablations.py --base recipes/trials/base.yaml --steps 360 --jobs 2

The recipes are those in the base's folder; those for another device than the base's are left out. The folder's name
decides what is measured, where results lie, and between which marks of the page the tables go: `trials` are measured by
all that the second codec is chosen by (`trial_figures.Trials`), other folders by two figures:

phone accuracy   how often a linear classifier reads the phone from RVQ-1, of the phones that `hama` hears in the
                 original speech (`vocable.evaluation.phones`). It is fitted for each codec, on training clips.
mel distance     of speech decoded from the first 8 layers (of all, where there are fewer): the trainer's log-mel loss,
                 at the default resolutions, whatever the recipe trained on.

They are of the dev clips of the base's recipe, with 95 % intervals by resampling speakers with all their clips.

With --max-time, time becomes steps before anything is trained: a step of every recipe is timed, in turn, on a machine
that does nothing else, and each recipe gets the steps that fit into the budget. So the runs may then share their
machine, and a run that begins on one machine may end on another. With --steps, each gets so many.

A codec that was trained elsewhere is measured as it is: RUNS/BUDGET/NAME/model where no state lies beside it, or with
--trained FOLDER, FOLDER/NAME. With --trained, nothing is trained.

Interrupted, it goes on with the same command: what stands in the results is not trained or measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from script import cpu_name, fail, trained, versions, write_between
from trial_figures import LAYERS, TABLES, Ablations, Known, Trials, cell
from vocable import SpeechTokenizer
from vocable.cli.options import parse_duration
from vocable.corpus.manifest import read_manifest, spread
from vocable.evaluation import statistics
from vocable.evaluation.metrics import Judges
from vocable.evaluation.statistics import Figure
from vocable.files import atomic_path
from vocable.training.codec import CodecTrainer
from vocable.training.recipe import Recipe, load_recipe
from vocable.training.stop import Interrupted

CLIPS: dict[Any, list[np.ndarray]] = {}  #: that this process has decoded, by what they follow from: its runs share them
TIMED_STEPS = 15  #: of each recipe


def main() -> None:
    args = arguments()
    needs = ("hama", "scipy", "transformers", "yaml")
    if missing := [module for module in needs if importlib.util.find_spec(module) is None]:
        fail(f"missing {', '.join(missing)}: pip install '.[train]' hama scipy")
    signal.signal(signal.SIGTERM, _terminate)
    trained(lambda: run(args))


def _terminate(number: int, frame: object) -> None:
    raise Interrupted(number)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--max-time", default="12m", help="training time of each: 90s, 12m, 2h")
    budget.add_argument("--steps", type=int, help="training steps of each, instead of a time")
    parser.add_argument("--trained", type=Path, metavar="FOLDER", help="measure the codecs FOLDER/NAME; needs --steps")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads that the training time is of")
    parser.add_argument("--jobs", type=int, default=1, help="codecs side by side, which share these threads")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="train only these, and the base; may be repeated"
    )
    parser.add_argument("--base", type=Path, default=Path("recipes/ablations/base.yaml"))
    parser.add_argument("--runs", type=Path, help="the folder of the runs; by default runs/ and the base's folder")
    parser.add_argument("--fit-clips", type=int, default=300, help="training clips to fit on, spread evenly")
    parser.add_argument("--limit", type=int, help="use this many of the dev clips, spread evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--models", type=Path, default=Path(".cache/models"), help="of the judges of trials")
    parser.add_argument("--out", type=Path, help="results; by default benchmarks/results/ and the base's folder")
    parser.add_argument("--page", type=Path, default=Path("docs/ablations.md"), help="the page that holds the table")
    args = parser.parse_args()
    if args.trained and not args.steps:
        parser.error("--trained: say with --steps how many steps they had")
    folder = args.base.parent.name
    args.runs = args.runs or Path("runs") / folder
    args.out = args.out or Path("benchmarks/results") / f"{folder}.json"
    return args


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    plans = read_plans(args.base)
    base = next(iter(plans))
    if unknown := set(args.only or ()) - set(plans):
        raise ValueError(f"no ablation {', '.join(sorted(unknown))}; there are {', '.join(plans)}")
    data = plans[base].recipe.data
    first = data.train if isinstance(data.train, str) else data.train[0]  # the others hold other languages
    train_clips, dev = read_manifest(first), spread(read_manifest(data.dev), args.limit)
    known = Known.read(args.out.with_suffix(".known.json"))
    kind = args.base.parent.name
    figures: Ablations | Trials
    if kind == "trials":
        figures = Trials(train_clips, dev, known, Judges(args.models, asr="tiny.en"))
    else:
        figures = Ablations(spread(train_clips, args.fit_clips), dev, known)
    # The budget is in the folder's name: runs of other lengths do not mix.
    budget = f"{args.steps}-steps" if args.steps else args.max_time
    setup = {
        "base": base,
        "max_time": budget,
        "threads": args.threads,
        **figures.setup(),
        "versions": versions(*figures.packages),
    }
    report = read_report(args.out, setup)

    with Progress(console=Console(stderr=True)) as progress:
        if args.steps:
            report["steps"] = dict.fromkeys(plans, args.steps)
        elif set(plans) - set(report["steps"]):
            share_out(plans, args, report, progress)
            write(report, args.out)
        codecs = {name: args.trained / name if args.trained else args.runs / budget / name / "model" for name in plans}
        wanted = [name for name in plans if not args.only or name in (base, *args.only)]
        waiting = [name for name in wanted if name not in report["runs"]]
        if args.trained:
            waiting = [name for name in waiting if is_whole(codecs[name])]
        if waiting:
            figures.prepare(lambda items, what: progress.track(list(items), description=what))
            threads = max(1, args.threads // args.jobs)
            changes = {name: {"threads": threads, "max_steps": report["steps"][name]} for name in waiting}
            recipes = {name: dataclasses.replace(plans[name].recipe, **changes[name]) for name in waiting}
            task = progress.add_task("training and measuring", total=len(waiting))
            for name, measured in outcomes(recipes, codecs, figures, args.jobs):
                report["runs"][name] = measured
                write(report, args.out)
                progress.advance(task)

    links = {name: os.path.relpath(plan.path, args.page.parent) for name, plan in plans.items()}
    if isinstance(figures, Trials):
        text = trial_tables(report, plans, links, figures, args.seed)
    elif base in report["runs"]:
        speakers = [u.speaker or u.id for u in dev]  # a clip whose speaker is unknown stands for itself
        text = table(report, plans, links, speakers, args.seed)
    else:
        raise ValueError(f"{base} is not measured yet: differences are to it")
    write_between(args.page, f"{kind}: written by benchmarks/ablations.py", text)
    print(text)


def read_report(path: Path, setup: dict[str, Any]) -> dict[str, Any]:
    """What stands in the results, or the beginning of them. Raises ValueError where they are of another set-up."""
    if not path.exists():
        return {"setup": setup, "step_seconds": {}, "steps": {}, "runs": {}}
    report: dict[str, Any] = json.loads(path.read_text())
    if report["setup"] != setup:
        differing = ", ".join(key for key in setup if report["setup"].get(key) != setup[key])
        raise ValueError(f"{path} holds results of another set-up ({differing}): name another --out, or remove it")
    return report


def write(report: dict[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report) + "\n")


@dataclass(frozen=True)
class Plan:
    path: Path
    question: str  #: that it answers: the recipe's first line
    recipe: Recipe


def read_plans(base: Path) -> dict[str, Plan]:
    """The base and the recipes beside it for the same device, by name, the base first."""
    plans = {}
    device = load_recipe(base).device
    for path in sorted(base.parent.glob("*.yaml"), key=lambda path: (path != base, path)):
        recipe = load_recipe(path)
        if recipe.device == device:
            question = "the base" if path == base else path.read_text().split("\n")[0].removeprefix("# ")
            plans[recipe.name] = Plan(path, question, recipe)
    return plans


# ---- training --------------------------------------------------------------------------------------------------------


def share_out(plans: dict[str, Plan], args: argparse.Namespace, report: dict[str, Any], progress: Progress) -> None:
    """Note in the report how many steps of each recipe the budget holds, and the seconds of a step that this follows
    from: median wall clock, before its discriminators enter and after.

    Recipes that have steps already keep them. One that came later is measured beside the base, on whatever machine, and
    gets its share of the base's steps.
    """
    base, steps = report["setup"]["base"], report["steps"]
    names = [name for name in plans if name == base or name not in steps]
    costs = step_seconds({name: plans[name].recipe for name in names}, args.threads, progress)
    budget = steps[base] * costs[base][0] if base in steps else parse_duration(args.max_time)
    for name, (before, after) in costs.items():
        adversary = plans[name].recipe.adversary
        start = adversary.start_step if adversary.weight else 0
        steps.setdefault(name, round(start + (budget - start * before) / after))
    report["step_seconds"] |= costs
    report.setdefault("timed_on", cpu_name())


def step_seconds(recipes: dict[str, Recipe], threads: int, progress: Progress) -> dict[str, tuple[float, float]]:
    """Median wall-clock seconds of a quantized step of each recipe, before its discriminators enter and after. The
    recipes take turns; the first turn warms up. Nothing else should run on the machine meanwhile."""
    trainers = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, recipe in progress.track(recipes.items(), description="reading"):
            data = dataclasses.replace(recipe.data, preload=False)
            quantizer = dataclasses.replace(recipe.quantizer, start_step=0)
            recipe = dataclasses.replace(recipe, data=data, quantizer=quantizer, threads=threads)
            trainers[name] = CodecTrainer(recipe, Path(scratch))
        batches = {name: trainer.data[0] for name, trainer in trainers.items()}
        times: dict[tuple[str, int], list[float]] = {}
        for turn in progress.track(range(1 + TIMED_STEPS), description="timing steps"):
            for name, trainer in trainers.items():
                for step in sorted({0, trainer.recipe.adversary.start_step}):
                    trainer.step = step
                    begin = time.perf_counter()
                    trainer.train_step([batches[name]])
                    if turn:
                        times.setdefault((name, step), []).append(time.perf_counter() - begin)
    starts = {name: trainer.recipe.adversary.start_step for name, trainer in trainers.items()}
    return {name: (median(times[name, 0]), median(times[name, start])) for name, start in starts.items()}


def outcomes(
    recipes: dict[str, Recipe], codecs: dict[str, Path], figures: Ablations | Trials, jobs: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train what is not trained, and measure, `jobs` side by side; yields name and figures as each ends."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        runs = {pool.submit(outcome, recipe, codecs[name], figures): name for name, recipe in recipes.items()}
        for run in as_completed(runs):
            measured = run.result()
            if measured is None:
                raise KeyboardInterrupt
            yield runs[run], measured
    except BaseException:
        for child in multiprocessing.active_children():  # SIGTERM reached this process alone: they save, and end
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def outcome(recipe: Recipe, codec: Path, figures: Ablations | Trials) -> dict[str, Any] | None:
    """What is measured of a recipe's codec, which is trained first where it is not; None: a signal stopped that."""
    torch.set_num_threads(recipe.threads)
    # A run of this script leaves its state beside the codec, which is written in passing too.
    elsewhere = is_whole(codec) and not (codec.parent / "state.safetensors").exists()
    if not elsewhere and not train(recipe, codec.parent):
        return None
    return figures.measure(SpeechTokenizer.from_pretrained(codec))


def is_whole(codec: Path) -> bool:
    """Whether a folder holds a codec."""
    return (codec / "config.json").exists() and (codec / "model.safetensors").exists()


def train(recipe: Recipe, folder: Path) -> bool:
    """Begin the run, or go on with it; whether it came to its end, or was stopped by a signal."""
    data = dataclasses.replace(recipe.data, preload=False)
    trainer = CodecTrainer(dataclasses.replace(recipe, data=data), folder)
    key = data.train, recipe.codec.level, recipe.codec.high_pass
    if key not in CLIPS:
        CLIPS[key] = [trainer.data.decode(utterance) for utterance in trainer.data.utterances]
    trainer.data.clips = CLIPS[key]
    if (folder / "state.safetensors").exists():
        trainer.resume()
    try:
        trainer.run()
    except Interrupted:
        return False
    return True


# ---- the report ------------------------------------------------------------------------------------------------------


def figures(own: dict[str, Any], base: dict[str, Any], speakers: list[str], seed: int) -> list[tuple[Figure, Figure]]:
    """One run's phone accuracy and mel distance, each with what it is above the base's on the same clips."""
    found: list[tuple[Figure, Figure]] = []
    for key in ("right", "mel"):
        sizes = own["phones"] if key == "right" else [1.0] * len(speakers)
        scores, theirs = (list(zip(run[key], sizes, strict=True)) for run in (own, base))
        above = statistics.difference(scores, theirs, speakers, seed=seed)
        found.append((statistics.figure(scores, speakers, seed=seed), above))
    return found


def table(report: dict[str, Any], plans: dict[str, Plan], links: dict[str, str], speakers: list[str], seed: int) -> str:
    """The Markdown table, and how it was made."""
    setup, runs = report["setup"], report["runs"]
    base = setup["base"]
    threads = f"{setup['threads']} thread{'s' * (setup['threads'] > 1)}"
    phones = sum(runs[base]["phones"])
    commonest = 100 * sum(runs[base]["commonest"]) / phones
    lines = [
        f"The steps that {setup['max_time']} hold on {threads} of {report['timed_on']}. {len(speakers)} dev clips of",
        f"{len(set(speakers))} speakers, {int(phones)} phones; the commonest phone for every frame is right at",
        f"{commonest:.1f} %. The classifier is fitted on {len(setup['fit'])} training clips. Differences are to the",
        "base; in brackets, 95 % intervals over speakers.",
        "",
        "```sh",
        f"python benchmarks/ablations.py --max-time {setup['max_time']} --threads {setup['threads']}",
        "```",
        "",
        "| recipe | question | steps | phone accuracy, % ↑ | difference | mel distance, nats ↓ | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in plans if name in runs):
        cells = [f"[{name}]({links[name]})", plans[name].question, f"{report['steps'][name]}"]
        both = figures(runs[name], runs[base], speakers, seed)
        for (found, above), (scale, places) in zip(both, ((100, 1), (1, 3)), strict=True):
            low, high = (f"{scale * bound:.{places}f}" for bound in (found.low, found.high))
            fewer = f" at :{runs[name]['layers']}" if scale == 1 and runs[name]["layers"] < LAYERS else ""
            cells.append(f"{scale * found.value:.{places}f} ({low} to {high}){fewer}")
            low, high = (f"{scale * bound:+.{places}f}" for bound in (above.low, above.high))
            cells.append("" if name == base else f"{scale * above.value:+.{places}f} ({low} to {high})")
        lines.append(f"| {' | '.join(cells)} |")
    if missing := [name for name in plans if name not in runs]:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    return "\n".join(lines)


def trial_tables(
    report: dict[str, Any], plans: dict[str, Plan], links: dict[str, str], figures: Trials, seed: int
) -> str:
    """The Markdown tables of trials, and how they were made."""
    runs = report["runs"]
    errors, words = np.array(list(figures.known.words.values())).sum(0) if figures.known.words else (0, 1)
    told = {u.speaker_key for u in figures.words}
    lines = [
        f"{report['setup']['max_time'].replace('-', ' ')} each. In brackets, 95 % intervals over speakers, of dev's",
        f"{len({u.speaker_key for u in figures.sound})}. Words are those of {len(figures.words)} clips of {len(told)}",
        f"speakers, {len(figures.fewer)} of them for `:8` and for conversion, without intervals; Whisper tiny.en errs",
        f"in {100 * errors / words:.1f} % of those of the recordings. Speaker accuracy is that of a linear reading of",
        f"{len({u.speaker_key for u in figures.fit})} training speakers, four clips each.",
        "",
        "| recipe | question | steps |",
        "|---|---|---|",
    ]
    done = [name for name in plans if name in runs]
    lines += [f"| [{name}]({links[name]}) | {plans[name].question} | {report['steps'][name]} |" for name in done]
    for heading, columns in TABLES.items():
        lines += ["", f"**{heading}**", "", f"| recipe | {' | '.join(head for _, _, head, _, _ in columns)} |"]
        lines.append("|---" * (1 + len(columns)) + "|")
        for name in done:
            cells = [
                cell(figures.figure(runs[name], of, key, seed), scale, digits) for key, of, _, scale, digits in columns
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    if missing := [name for name in plans if name not in runs]:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
