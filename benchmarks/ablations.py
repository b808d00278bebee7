"""What does each choice in a recipe do? Each ablation and its base, trained for the same time, side by side on dev.

    python benchmarks/ablations.py --max-time 12m --threads 2

The ablations are the recipes in the folder `ablations` beside the base; those for a GPU are left out. Two figures for
each, on the dev clips of the base's recipe, with 95 % intervals by resampling speakers with all their clips:

phone accuracy   how often a linear classifier reads the phone from RVQ-1, of the phones that `hama` hears in the
                 original speech (`vocable.evaluation.phones`). It is fitted for each codec, on training clips.
mel distance     of speech decoded from the first 8 layers (of all, where there are fewer): the trainer's log-mel loss,
                 at the default resolutions, whatever the recipe trained on.

Interrupted, it goes on with the same command: runs that are finished are not trained again, nor measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from script import cpu_name, fail, versions
from vocable import SpeechTokenizer, audio
from vocable.cli.options import parse_duration
from vocable.corpus.manifest import Utterance, read_manifest, spread
from vocable.evaluation import statistics
from vocable.evaluation.phones import PHONE_LAG, SAMPLE_RATE, PhoneRecogniser, softmax_regression
from vocable.files import atomic_path
from vocable.training.codec import CodecTrainer
from vocable.training.losses import SpectralLoss
from vocable.training.recipe import Losses, Recipe, load_recipe
from vocable.training.report import read_run
from vocable.training.stop import Interrupted

RVQ1 = slice(0, 1)
FRAME_RATE = 50  #: of the codecs that are compared
LAYERS = 8  #: that the mel distance is of
DECAY = 1e-4  #: of the phone classifier's coefficients
BEGIN, END = "<!-- ablations: written by benchmarks/ablations.py -->", "<!-- /ablations -->"


def main() -> None:
    args = arguments()
    missing = [module for module in ("hama", "transformers", "yaml") if importlib.util.find_spec(module) is None]
    if missing:
        fail(f"missing {', '.join(missing)}: pip install '.[train]' hama")
    try:
        run(args)
    except ValueError as error:  # a recipe, a run or a recording that cannot be used
        fail(str(error))
    except (Interrupted, KeyboardInterrupt) as stopped:
        print("stopped; the same command goes on from here")
        raise SystemExit(128 + getattr(stopped, "signal", 2)) from None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-time", default="12m", help="training time of each: 90s, 12m, 2h")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: as torch chooses)")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="train only these, and the base; may be repeated"
    )
    parser.add_argument("--base", type=Path, default=Path("recipes/fast.yaml"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="the folder of the runs")
    parser.add_argument("--fit-clips", type=int, default=300, help="training clips to fit on, spread evenly")
    parser.add_argument("--limit", type=int, help="use this many of the dev clips, spread evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablations.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/ablations.md"), help="the page that holds the table")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    seconds = parse_duration(args.max_time)
    if args.threads:
        torch.set_num_threads(args.threads)
    plans = read_plans(args.base, args.threads)
    base = next(iter(plans))
    if unknown := set(args.only or ()) - set(plans):
        raise ValueError(f"no ablation {', '.join(sorted(unknown))}; there are {', '.join(plans)}")
    if not all(marker in args.page.read_text(encoding="utf-8") for marker in (BEGIN, END)):
        raise ValueError(f"{args.page}: the lines {BEGIN} and {END} say where the table goes, and are not there")
    # The budget is in the folder's name: runs of other lengths do not mix.
    folders = {name: args.runs / f"{seconds:g}s" / name for name in plans}
    with Progress(console=Console(stderr=True)) as progress:
        for name, plan in plans.items():
            if not is_finished(plan.recipe, folders[name]) and (not args.only or name in (base, *args.only)):
                train(plan.recipe, folders[name], seconds, progress)

        data = plans[base].recipe.data
        fit, dev = spread(read_manifest(data.train), args.fit_clips), spread(read_manifest(data.dev), args.limit)
        finished = {name: plan for name, plan in plans.items() if is_finished(plan.recipe, folders[name])}
        measured = measure({name: folders[name] for name in finished}, fit, dev, progress)

    speakers = [u.speaker or u.id for u in dev]  # a clip whose speaker is unknown stands for itself
    report = {
        "base": base,
        "max_time": seconds,
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "ablations": {
            name: {"question": plan.question, **row(measured[name], measured[base], folders[name], speakers, args.seed)}
            for name, plan in finished.items()
        },
        "dev": {
            "manifest": Path(data.dev).name,
            "clips": len(dev),
            "speakers": len(set(speakers)),
            "phones": int(sum(measured[base]["phones"])),
            "commonest_phone": sum(measured[base]["commonest"]) / sum(measured[base]["phones"]),
        },
        "fit": {"manifest": Path(data.train).name, "clips": len(fit)},
        "settings": {"phone_lag": PHONE_LAG, "decay": DECAY, "resamples": statistics.RESAMPLES, "seed": args.seed},
        "versions": versions("torch", "numpy", "hama"),
    }
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    links = {name: os.path.relpath(plan.path, args.page.parent) for name, plan in finished.items()}
    text = table(report, links, args.max_time)
    before, _, rest = args.page.read_text(encoding="utf-8").partition(BEGIN)
    with atomic_path(args.page) as temporary:
        temporary.write_text(before + f"{BEGIN}\n\n{text}\n\n{END}" + rest.partition(END)[2], encoding="utf-8")
    print(text)


@dataclass(frozen=True)
class Plan:
    path: Path
    question: str  #: that it answers: the recipe's first line
    recipe: Recipe


def read_plans(base: Path, threads: int) -> dict[str, Plan]:
    """The base and its ablations that run on a CPU, by name, the base first."""
    plans = {}
    for path in (base, *sorted((base.parent / "ablations").glob("*.yaml"))):
        recipe = dataclasses.replace(load_recipe(path), threads=threads)
        if recipe.device == "cpu":
            question = "the base" if path == base else path.read_text().split("\n")[0].removeprefix("# ")
            plans[recipe.name] = Plan(path, question, recipe)
    return plans


# ---- training --------------------------------------------------------------------------------------------------------


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """Whether the run is there. Raises ValueError where another recipe's is."""
    if not (folder / "model" / "model.safetensors").exists():
        return False
    if json.loads((folder / "recipe.json").read_text()) != json.loads(json.dumps(dataclasses.asdict(recipe))):
        raise ValueError(
            f"{folder} was trained by another recipe, or on other threads: remove it, or name other --runs"
        )
    return True


def train(recipe: Recipe, folder: Path, seconds: float | None, progress: Progress) -> None:
    """Begin the run, or go on with it, and end it."""
    task = progress.add_task(f"{recipe.name}: reading", total=None)
    trainer = CodecTrainer(recipe, folder, max_time=seconds, on_load=lambda heard: progress.advance(task, heard))
    if (folder / "state.safetensors").exists():
        trainer.resume()
    progress.reset(task, total=1.0, description=f"{recipe.name}: training")
    trainer.on_log = lambda record: progress.update(task, completed=record["progress"])
    trainer.run()


# ---- measuring -------------------------------------------------------------------------------------------------------

Heard = tuple[np.ndarray, Tensor, Tensor]  #: speech float32 [L], frames [N] in which phones are heard, and which [N]


def measure(
    folders: dict[str, Path], fit: list[Utterance], dev: list[Utterance], progress: Progress
) -> dict[str, dict[str, Any]]:
    """What each run counts on each dev clip; kept in RUN/dev.json."""
    setup = {
        "fit": [u.id for u in fit],
        "dev": [u.id for u in dev],
        "settings": [PHONE_LAG, DECAY, LAYERS],
        "versions": versions("hama"),
    }
    measured, missing = {}, []
    for name, folder in folders.items():
        kept = json.loads((folder / "dev.json").read_text()) if (folder / "dev.json").exists() else {}
        if kept.get("setup") == setup:
            measured[name] = kept
        else:
            missing.append(name)
    if not missing:
        return measured
    recogniser = PhoneRecogniser()
    heard_fit, heard_dev = (list(hear(recogniser, clips, progress)) for clips in (fit, dev))
    for name in missing:
        tok = SpeechTokenizer.from_pretrained(folders[name] / "model")
        counts = count(tok, PhoneReader(tok, recogniser.num_phones), heard_fit, heard_dev, progress, name)
        measured[name] = {"setup": setup, "codec": tok.id, "layers": min(LAYERS, tok.num_quantizers), **counts}
        with atomic_path(folders[name] / "dev.json") as temporary:
            temporary.write_text(json.dumps(measured[name]))
    return measured


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
) -> dict[str, list[float]]:
    """Phones that are read right from RVQ-1, phones in all, and the mel distance, a number for each dev clip."""
    for waveform, frames, phones in progress.track(fit, description=f"{name}: fitting"):
        reader.learn(tok.encode(waveform, layers=RVQ1).codes[0, 0], frames, phones)
    reader.fit()
    distance = SpectralLoss(SAMPLE_RATE, Losses().resolutions)
    counts: dict[str, list[float]] = {"right": [], "commonest": [], "phones": [], "mel": []}
    for waveform, frames, phones in progress.track(dev, description=f"{name}: dev"):
        encoded = tok.encode(waveform, layers=slice(0, min(LAYERS, tok.num_quantizers)))
        decoded = tok.decode(encoded).clips()[0]
        counts["right"].append(reader.right(encoded.codes[0, 0], frames, phones))
        counts["commonest"].append(float((phones == reader.commonest).sum()))
        counts["phones"].append(len(phones))
        counts["mel"].append(float(distance(decoded[None], torch.from_numpy(waveform)[None])["mel"]))
    return counts


# ---- the report ------------------------------------------------------------------------------------------------------


def row(own: dict[str, Any], base: dict[str, Any], folder: Path, speakers: list[str], seed: int) -> dict[str, Any]:
    """One run's figures, and what they are above the base's on the same clips."""
    end = read_run(folder).rows[-1]
    sizes = {"phone_accuracy": np.array(own["phones"], float), "mel_distance": np.ones(len(speakers))}
    figures = {}
    for figure, key in (("phone_accuracy", "right"), ("mel_distance", "mel")):
        values, size = np.array(own[key], float), sizes[figure]
        difference = values - np.array(base[key], float)
        found, above = (
            statistics.figure(np.stack([scores, size], 1).tolist(), speakers, seed) for scores in (values, difference)
        )
        figures[figure] = {
            "value": found.value,
            "interval": [found.low, found.high],
            "difference": above.value,
            "difference_interval": [above.low, above.high],
        }
    return {"codec": own["codec"], "layers": own["layers"], "steps": end["step"], "seconds": end["elapsed"], **figures}


def table(report: dict[str, Any], links: dict[str, str], max_time: str) -> str:
    """The Markdown table, and how it was made."""
    base, dev = report["base"], report["dev"]
    threads = f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    lines = [
        f"{max_time} of training each, on {threads} of {report['cpu']}. {dev['clips']} dev clips of {dev['speakers']}",
        f"speakers, {dev['phones']} phones; the commonest phone for every frame is right at",
        f"{100 * dev['commonest_phone']:.1f} %. The classifier is fitted on {report['fit']['clips']} training clips.",
        "Differences are to the base; in brackets, 95 % intervals over speakers.",
        "",
        "```sh",
        f"python benchmarks/ablations.py --max-time {max_time} --threads {report['threads']}",
        "```",
        "",
        "| recipe | question | steps | phone accuracy, % ↑ | difference | mel distance, nats ↓ | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in report["ablations"].items():
        cells = [f"[{name}]({links[name]})", row["question"], f"{row['steps']}"]
        for figure, scale, places in (("phone_accuracy", 100, 1), ("mel_distance", 1, 3)):
            f = row[figure]
            low, high = (f"{scale * bound:.{places}f}" for bound in f["interval"])
            fewer = f" at :{row['layers']}" if figure == "mel_distance" and row["layers"] < LAYERS else ""
            cells.append(f"{scale * f['value']:.{places}f} ({low} to {high}){fewer}")
            low, high = (f"{scale * bound:+.{places}f}" for bound in f["difference_interval"])
            cells.append("" if name == base else f"{scale * f['difference']:+.{places}f} ({low} to {high})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
