"""What do the language models' conditions do? The recipes of recipes/uslm-ablations, for as many steps, side by side.

    python benchmarks/conditions.py --set device=cpu --set data.batch_frames=2500 --steps 500 200

A folder for each model. Three figures on the recipe's dev clips, and how much each recipe's differs from the base's of
its folder, with 95 % intervals by resampling clips, as dev has few speakers: they tell of these voices alone.

nats     AR: of all that it writes, codes and timings, a frame of speech; NAR: a code, a mean over layers
WER      as Whisper tiny.en hears it. AR: the first 14 words of a text, with the NAR and the aligner of --models, in the
         voice of a second clip of the speaker. NAR: over true RVQ-1, told the text where the recipe tells it
cosine   Resemblyzer's, of the same speech and the recording of the voice

Interrupted, it goes on with the same command. On one CPU thread that takes two hours, and teaches AR little: nats are
its figure there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from script import cpu_name, publish, trained, versions
from vocable import USLM, audio
from vocable.codec.load import load_codec
from vocable.corpus.manifest import read_manifest, spread
from vocable.evaluation import statistics
from vocable.evaluation.metrics import Judges, Pair
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.pairs import ClipPair, pair_with_prompts
from vocable.evaluation.scoring import scores
from vocable.files import atomic_path
from vocable.lm.model import digest, load_models
from vocable.lm.recipe import LMRecipe, load_recipe
from vocable.lm.train import LMTrainer
from vocable.lm.transformer import IGNORED, cross_entropy

PARTS, BASE = ("ar", "nar"), "base"
WORDS = 14
METRICS = ("wer", "speaker")
HEADS = {"nats": ("nats", 3, 1.0), "wer": ("WER %", 1, 100.0), "speaker": ("cosine", 3, 1.0)}
HERE = Path(__file__).parent
MARK = "conditions: written by benchmarks/conditions.py"

#: Of each figure, a clip's sum and count.
Rows = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=Path, default=Path("recipes/uslm-ablations"))
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="in every recipe")
    parser.add_argument("--steps", type=int, nargs=2, metavar=("AR", "NAR"), help="instead of the recipes'")
    parser.add_argument("--runs", type=Path, default=Path("runs/conditions"))
    parser.add_argument("--clips", type=int, default=32, help="of dev, that are heard")
    parser.add_argument("--models", help="what completes the trained part (default: the shipped)")
    parser.add_argument("--metrics", type=Path, default=Judges.folder, help="holds asr/whisper-tiny.en; else the hub's")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "conditions.json")
    args = parser.parse_args()
    report = trained(lambda: run(args))
    publish(report, args.out, HERE / "README.md", MARK, table(report))


def run(args: argparse.Namespace) -> dict[str, Any]:
    setup: dict[str, Any] = {
        "settings": args.set,
        "clips": args.clips,
        "versions": versions("torch", "numpy", "faster-whisper"),
        "cpu": cpu_name(),
    }
    steps, lines = {}, []
    for i, part in enumerate(PARTS):
        settings = args.set + ([f"max_steps={args.steps[i]}"] if args.steps else [])
        plans = {path.stem: load_recipe(path, settings) for path in sorted((args.recipes / part).glob("*.yaml"))}
        steps[part] = plans[BASE].max_steps
        made_by = digest(load_models(args.models, load_codec(plans[BASE].codec)))
        measured = {}
        for name in sorted(plans, key=lambda name: name != BASE):
            folder = args.runs / part / name
            wanted = setup | {"models": made_by, "recipe": json.dumps(dataclasses.asdict(plans[name]))}
            kept = folder / "measured.json"
            found = json.loads(kept.read_text()) if kept.is_file() else {}
            if found.get("setup") != wanted:
                found = {"setup": wanted, "rows": measure(part, plans[name], folder, args)}
                with atomic_path(kept) as temporary:
                    temporary.write_text(json.dumps(found))
            measured[name] = found["rows"]
        lines += [{"model": part, **line} for line in figures(measured)]
    return {"setup": setup | {"steps": steps}, "figures": lines}


def measure(part: str, recipe: LMRecipe, folder: Path, args: argparse.Namespace) -> Rows:
    """Train, or go on training, and hear what was learned."""
    console = Console(stderr=True)
    name = f"{part}/{recipe.name}"
    console.print(f"{name}: {recipe.max_steps} steps")
    trainer = LMTrainer(recipe, folder)
    if list(trainer.trained) != [part]:
        raise ValueError(f"{name}: trains {' and '.join(trainer.trained)}, not {part} alone")
    if (folder / "state.safetensors").is_file():
        trainer.resume()
    trainer.run()
    codec = load_codec(recipe.codec)
    shipped = load_models(args.models, codec)
    if trainer.models.table.symbols != shipped.table.symbols:
        raise ValueError(f"{args.models or 'the shipped models'} have other symbols than the recipe's texts")
    trainer.models.to("cpu")
    trainer.device = torch.device("cpu")
    judges = Judges(args.metrics, "tiny.en")
    dev = [u for u in read_manifest(recipe.data.dev) if u.text]
    model = trainer.trained[part].eval()
    rows = nats(trainer, part)
    uslm = USLM(codec, dataclasses.replace(shipped, **{part: model}))
    for pair in track(spread(pair_with_prompts(dev, dev, seed=0)[0], args.clips), f"{name}: hearing", console=console):
        speech, text = speak(part, recipe, uslm, pair)
        row = rows.setdefault(pair.source.id, {})
        row |= judge(speech, text, pair, codec.sample_rate, judges)
    return rows


def nats(trainer: LMTrainer, part: str) -> Rows:
    """Of every held-out clip, with its prompt and symbols wherever the recipe has any."""
    recipe, held = trainer.recipe, trainer.held_out
    ar, nar = (dataclasses.replace(p, no_prompt=float(p.no_prompt == 1)) for p in (recipe.ar, recipe.nar))
    held.recipe = dataclasses.replace(
        recipe, ar=ar, nar=dataclasses.replace(nar, no_symbols=float(nar.no_symbols == 1))
    )
    rows = {}
    for i, clip in enumerate(held.clips):
        batch = held.batch([i], np.random.default_rng(i))
        if part == "nar":
            assert batch.nar
            *inputs, _ = batch.nar
            stages = torch.arange(clip.codes.shape[0] - 1)  # all, where training draws one
            batch.nar = (*(t.expand(len(stages), *t.shape[1:]) for t in inputs), stages)
        with torch.inference_mode():
            given, targets = trainer.logits_and_targets(part, batch, trainer.trained[part])
        count = int((targets != IGNORED).sum())
        total = float(cross_entropy(given, targets)) * count
        rows[clip.id] = {"nats": [total, clip.codes.shape[1] if part == "ar" else count]}
    return rows


def speak(part: str, recipe: LMRecipe, uslm: USLM, pair: ClipPair) -> tuple[torch.Tensor, str]:
    """Speech [L] of one model, and its text."""
    text, codec = pair.source.text or "", uslm.codec
    waveform, rate = audio.read(pair.reference.path)
    voice = uslm.prepare_voice(waveform, sample_rate=rate)
    if part == "ar":
        text = " ".join(text.split()[:WORDS])
        return uslm.generate(text, voice).waveform, text
    waveform, rate = audio.read(pair.source.path)
    codes = codec.encode(waveform, sample_rate=rate).codes[0]
    symbols = None if recipe.nar.no_symbols == 1 else uslm.models.align(codec, codes, text)
    filled = uslm.nar.fill(codes[0], None if recipe.nar.no_prompt == 1 else voice.codes[0], symbols)
    return codec.decode(filled[None]).waveform[0], text


def judge(speech: torch.Tensor, text: str, pair: ClipPair, rate: int, judges: Judges) -> dict[str, Any]:
    heard = audio.resample(speech.numpy(), rate, SAMPLE_RATE)
    return scores(
        Pair(heard, heard, text, "en", voice=audio.read(pair.reference.path, SAMPLE_RATE)[0]), METRICS, judges
    )


def figures(measured: dict[str, Rows]) -> list[dict[str, Any]]:
    """Of each recipe: its figures, and how they differ from the base's on the clips that both have."""
    found, base = [], measured[BASE]
    for name, rows in measured.items():
        line: dict[str, Any] = {"recipe": name}
        for figure, (_, _, scale) in HEADS.items():
            both = [clip for clip in base if base[clip].get(figure) and rows.get(clip, {}).get(figure)]
            ours, theirs = ([of[clip][figure] for clip in both] for of in (rows, base))
            line[figure] = statistics.figure(ours, both).scaled(scale)
            if name != BASE:
                line[figure]["difference"] = statistics.difference(ours, theirs, both).scaled(scale)
        found.append(line)
    return found


def table(report: dict[str, Any]) -> str:
    lines = [
        f"| model | recipe | {' | '.join(head for head, _, _ in HEADS.values())} |",
        f"|---|---|{'--:|' * len(HEADS)}",
    ]
    for line in report["figures"]:
        cells = []
        for figure, (_, digits, _) in HEADS.items():
            found = line[figure]
            cells.append(f"{found['value']:.{digits}f}")
            if "difference" in found:
                low, high = (found["difference"].get(bound, math.nan) for bound in ("low", "high"))
                cells[-1] += f" ({low:+.{digits}f} to {high:+.{digits}f})"
        lines.append(f"| {line['model'].upper()} | {line['recipe']} | {' | '.join(cells)} |")
    steps = ", ".join(f"{part.upper()} {steps}" for part, steps in report["setup"]["steps"].items())
    said = f"In brackets: less the base's. Steps: {steps}. {report['setup']['clips']} clips heard."
    return "\n".join([*lines, "", said])


if __name__ == "__main__":
    main()
