"""What does each choice in a recipe do? Each ablation and its base, trained for the same time, side by side on dev.

    python benchmarks/ablations.py --max-time 12m --threads 2

The ablations are the recipes in the base's folder; those for a GPU are left out.

Time becomes steps before anything is trained: a step of every recipe is timed, in turn, on a machine that does nothing
else, and each recipe gets the steps that fit into the budget. So the runs may then share their machine, and a run that
begins on one machine may end on another.

Two figures for each, on the dev clips of the base's recipe, with 95 % intervals by resampling speakers with all their
clips:

phone accuracy   how often a linear classifier reads the phone from RVQ-1, of the phones that `hama` hears in the
                 original speech (`vocable.evaluation.phones`). It is fitted for each codec, on training clips.
mel distance     of speech decoded from the first 8 layers (of all, where there are fewer): the trainer's log-mel loss,
                 at the default resolutions, whatever the recipe trained on.

Interrupted, it goes on with the same command: what stands in the results is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import multiprocessing
import os
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
from torch import Tensor

from script import cpu_name, fail, stopped, versions, write_between
from vocable import SpeechTokenizer, audio
from vocable.cli.options import parse_duration
from vocable.corpus.manifest import Utterance, read_manifest, spread
from vocable.evaluation import statistics
from vocable.evaluation.phones import PHONE_LAG, SAMPLE_RATE, PhoneRecogniser, softmax_regression
from vocable.evaluation.statistics import Figure
from vocable.files import atomic_path
from vocable.training.codec import CodecTrainer
from vocable.training.losses import SpectralLoss
from vocable.training.recipe import Losses, Recipe, load_recipe
from vocable.training.stop import Interrupted

RVQ1 = slice(0, 1)
FRAME_RATE = 50  #: of the codecs that are compared
LAYERS = 8  #: that the mel distance is of
DECAY = 1e-4  #: of the phone classifier's coefficients
CLIPS: dict[str, list[np.ndarray]] = {}  #: that this process has decoded, by manifest: its runs share them
TIMED_STEPS = 15  #: of each recipe
MARK = "ablations: written by benchmarks/ablations.py"


def main() -> None:
    args = arguments()
    needs = ("hama", "scipy", "transformers", "yaml")
    if missing := [module for module in needs if importlib.util.find_spec(module) is None]:
        fail(f"missing {', '.join(missing)}: pip install '.[train]' hama scipy")
    try:
        run(args)
    except ValueError as error:  # a recipe, a run or a recording that cannot be used
        fail(str(error))
    except KeyboardInterrupt:
        stopped()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-time", default="12m", help="training time of each: 90s, 12m, 2h")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads that the training time is of")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, which share these threads")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="train only these, and the base; may be repeated"
    )
    parser.add_argument("--base", type=Path, default=Path("recipes/ablations/base.yaml"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="the folder of the runs")
    parser.add_argument("--fit-clips", type=int, default=300, help="training clips to fit on, spread evenly")
    parser.add_argument("--limit", type=int, help="use this many of the dev clips, spread evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablations.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/ablations.md"), help="the page that holds the table")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    plans = read_plans(args.base)
    base = next(iter(plans))
    if unknown := set(args.only or ()) - set(plans):
        raise ValueError(f"no ablation {', '.join(sorted(unknown))}; there are {', '.join(plans)}")
    data = plans[base].recipe.data
    fit, dev = spread(read_manifest(data.train), args.fit_clips), spread(read_manifest(data.dev), args.limit)
    setup = {
        "base": base,
        "max_time": args.max_time,
        "threads": args.threads,
        "fit": [u.id for u in fit],
        "dev": [u.id for u in dev],
        "settings": {"phone_lag": PHONE_LAG, "decay": DECAY, "layers": LAYERS},
        "versions": versions("torch", "numpy", "hama"),
    }
    report = read_report(args.out, setup)

    with Progress(console=Console(stderr=True)) as progress:
        if set(plans) - set(report["steps"]):
            share_out(plans, args, report, progress)
            write(report, args.out)
        wanted = [name for name in plans if not args.only or name in (base, *args.only)]
        waiting = [name for name in wanted if name not in report["runs"]]
        if waiting:
            threads = max(1, args.threads // args.jobs)
            # The budget is in the folder's name: runs of other lengths do not mix.
            folders = {name: args.runs / args.max_time / name for name in waiting}
            task = progress.add_task("training", total=len(waiting))
            changes = {name: {"threads": threads, "max_steps": report["steps"][name]} for name in waiting}
            recipes = {folders[name]: dataclasses.replace(plans[name].recipe, **changes[name]) for name in waiting}
            heard: list[list[Heard]] = []
            for name in trained(recipes, args.jobs):
                if not heard:  # while the others train
                    recogniser = PhoneRecogniser()
                    heard = [list(hear(recogniser, clips, progress)) for clips in (fit, dev)]
                tok = SpeechTokenizer.from_pretrained(folders[name] / "model")
                reader = PhoneReader(tok, recogniser.num_phones)
                report["runs"][name] = count(tok, reader, *heard, progress, name)
                write(report, args.out)
                progress.advance(task)

    links = {name: os.path.relpath(plan.path, args.page.parent) for name, plan in plans.items()}
    speakers = [u.speaker or u.id for u in dev]  # a clip whose speaker is unknown stands for itself
    text = table(report, plans, links, speakers, args.seed)
    write_between(args.page, MARK, text)
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
    """The base and its ablations that run on a CPU, by name, the base first."""
    plans = {}
    for path in sorted(base.parent.glob("*.yaml"), key=lambda path: (path != base, path)):
        recipe = load_recipe(path)
        if recipe.device == "cpu":
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


def trained(recipes: dict[Path, Recipe], jobs: int) -> Iterator[str]:
    """Train recipes in their folders, `jobs` side by side; yields the name of each that has ended."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        runs = {pool.submit(train, recipe, folder): recipe.name for folder, recipe in recipes.items()}
        for run in as_completed(runs):
            if not run.result():
                raise KeyboardInterrupt
            yield runs[run]
    finally:
        pool.shutdown(cancel_futures=True)


def train(recipe: Recipe, folder: Path) -> bool:
    """Begin the run, or go on with it; whether it came to its end, or was stopped by a signal."""
    data = dataclasses.replace(recipe.data, preload=False)
    trainer = CodecTrainer(dataclasses.replace(recipe, data=data), folder)
    if data.train not in CLIPS:
        CLIPS[data.train] = [trainer.data.decode(utterance) for utterance in trainer.data.utterances]
    trainer.data.clips = CLIPS[data.train]
    if (folder / "state.safetensors").exists():
        trainer.resume()
    try:
        trainer.run()
    except Interrupted:
        return False
    return True


# ---- measuring -------------------------------------------------------------------------------------------------------

Heard = tuple[np.ndarray, Tensor, Tensor]  #: speech float32 [L], frames [N] in which phones are heard, and which [N]


def hear(recogniser: PhoneRecogniser, clips: list[Utterance], progress: Progress) -> Iterator[Heard]:
    for clip in progress.track(clips, description="hearing phones"):
        waveform = audio.read(clip.path, SAMPLE_RATE)[0]
        heard = recogniser(waveform)
        frames = heard.frames(FRAME_RATE, -(-len(waveform) * FRAME_RATE // SAMPLE_RATE))
        yield waveform, torch.from_numpy(frames), torch.from_numpy(heard.phones)


class PhoneReader:
    """The best linear reading of phones from one codec's RVQ-1.

    The codebook has N vectors, so counts by code are all that the fit needs of the speech, and what the classifier
    reads is a table with a row for each code.
    """

    def __init__(self, tok: SpeechTokenizer, num_phones: int) -> None:
        if (tok.sample_rate, tok.frame_rate) != (SAMPLE_RATE, FRAME_RATE):
            raise ValueError(f"{tok.id}: phones need {FRAME_RATE} frames a second of {SAMPLE_RATE} Hz")
        self.vectors = tok.embed(torch.arange(tok.codebook_size)[None, None], layers=RVQ1)[0].T.double()  # [N, D]
        #: How often each phone came with each code.
        self.counts = torch.zeros(tok.codebook_size, num_phones, dtype=torch.float64)

    def learn(self, codes: Tensor, frames: Tensor, phones: Tensor) -> None:
        """Add a clip to the counts. codes: RVQ-1's [T]; frames, phones: the recogniser's."""
        self.counts.index_put_((codes[frames], phones), torch.ones(1, dtype=torch.float64), accumulate=True)

    def fit(self) -> None:
        weight = softmax_regression(self.vectors, self.counts, DECAY)
        self.phone_by_code = (self.vectors @ weight[:-1] + weight[-1]).argmax(1)  # [N]
        #: The same phone for every frame, the most common one of the fit, is what knowing nothing earns.
        self.commonest = self.counts.sum(0).argmax()

    def right(self, codes: Tensor, frames: Tensor, phones: Tensor) -> float:
        """How many phones of a clip the classifier reads from its codes [T]."""
        return float((self.phone_by_code[codes[frames]] == phones).sum())


def count(
    tok: SpeechTokenizer, reader: PhoneReader, fit: list[Heard], dev: list[Heard], progress: Progress, name: str
) -> dict[str, Any]:
    """What a codec is measured by: phones that are read right from RVQ-1, phones in all, and the mel distance, a number
    for each dev clip."""
    for waveform, frames, phones in progress.track(fit, description=f"{name}: fitting"):
        reader.learn(tok.encode(waveform, layers=RVQ1).codes[0, 0], frames, phones)
    reader.fit()
    distance = SpectralLoss(SAMPLE_RATE, Losses().resolutions)
    counts: dict[str, list[float]] = {"right": [], "commonest": [], "phones": [], "mel": []}
    layers = min(LAYERS, tok.num_quantizers)
    for waveform, frames, phones in progress.track(dev, description=f"{name}: dev"):
        encoded = tok.encode(waveform, layers=slice(0, layers))
        decoded = tok.decode(encoded).clips()[0]
        counts["right"].append(reader.right(encoded.codes[0, 0], frames, phones))
        counts["commonest"].append(float((phones == reader.commonest).sum()))
        counts["phones"].append(len(phones))
        counts["mel"].append(round(float(distance(decoded[None], torch.from_numpy(waveform)[None])["mel"]), 5))
    return {"codec": tok.id, "layers": layers, **counts}


# ---- the report ------------------------------------------------------------------------------------------------------


def figures(own: dict[str, Any], base: dict[str, Any], speakers: list[str], seed: int) -> list[tuple[Figure, Figure]]:
    """One run's phone accuracy and mel distance, each with what it is above the base's on the same clips."""
    found = []
    for key in ("right", "mel"):
        sizes = own["phones"] if key == "right" else [1.0] * len(speakers)
        scores, theirs = (list(zip(run[key], sizes, strict=True)) for run in (own, base))
        found.append((statistics.figure(scores, speakers, seed), statistics.difference(scores, theirs, speakers, seed)))
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


if __name__ == "__main__":
    main()
