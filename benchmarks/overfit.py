"""Can the language models learn at all? Twenty clips by heart, spoken from their texts.

    python benchmarks/overfit.py ../shared/data/train.jsonl --set data.batch_frames=6000

AR and NAR of recipes/uslm-small.yaml begin from random weights, with the shipped symbols and aligner, and learn two
clips each of ten speakers until they know every code. Then each text is spoken in the voice of its speaker's other
clip, greedily and by the best of eight takes, without guidance, which is for what has not been learned by heart. WER is
of these, of the recordings, and of the codec's resynthesis, which such models come up to and do not surpass.

Interrupted, training goes on with the same command. It takes an hour and a half of one CPU thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from script import cpu_name, publish, trained, versions
from vocable import USLM, audio
from vocable.codec.load import load_codec
from vocable.corpus.manifest import Utterance, read_manifest, spread, write_manifest
from vocable.evaluation import statistics
from vocable.evaluation.metrics import Judges, Pair
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.scoring import scores
from vocable.lm.model import build_models, load_models, save_models
from vocable.lm.recipe import LMRecipe, load_recipe
from vocable.lm.sampling import Sampling
from vocable.lm.train import LMTrainer

SPEAKERS = 10
SHORTEST, LONGEST = 4.0, 9.0  #: seconds
PAUSE = 2.0  #: seconds: what is known by heart is known with its pauses, of which some outlast the default
HERE = Path(__file__).parent
MARK = "overfit: written by benchmarks/overfit.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="its tokens are the recipe's")
    parser.add_argument("--corpus", default="librispeech", help="of the manifest")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/uslm-small.yaml"))
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="in the recipe")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--run", type=Path, default=Path("runs/overfit"))
    parser.add_argument("--asr", nargs="+", default=["tiny.en", "base"], help="of Whisper")
    parser.add_argument("--metrics", type=Path, default=Judges.folder, help="holds asr/whisper-tiny.en; else the hub's")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "overfit.json")
    args = parser.parse_args()
    report = trained(lambda: run(args))
    publish(report, args.out, HERE / "README.md", MARK, table(report))


def run(args: argparse.Namespace) -> dict[str, Any]:
    clips = choose(args.manifest, args.corpus)
    args.run.mkdir(parents=True, exist_ok=True)
    manifest = args.run / "clips.jsonl"
    write_manifest(manifest, clips)
    recipe = by_heart(load_recipe(args.recipe, args.set), manifest, args.run, args.steps)
    trainer = LMTrainer(recipe, args.run, on_log=lambda record: print(json.dumps(record), file=sys.stderr))
    if (args.run / "state.safetensors").is_file():
        trainer.resume()
    trainer.run()
    known = json.loads((args.run / "log.jsonl").read_text().splitlines()[-1])
    ids = [clip.id for clip in clips]
    uslm = USLM.from_pretrained(args.run / "model", codec=recipe.codec)
    heard = hear(uslm, clips, [Judges(args.metrics, asr) for asr in args.asr])
    return {
        "clips": ids,
        "settings": args.set,
        "steps": args.steps,
        "known": {name: known[f"dev/{name}_right"] for name in trainer.trained},
        "wer": {
            name: {asr: statistics.figure([row[i] for row in rows], ids).scaled(100) for i, asr in enumerate(args.asr)}
            for name, rows in heard.items()
        },
        "versions": versions("torch", "numpy", "faster-whisper"),
        "cpu": cpu_name(),
    }


def choose(manifest: Path, corpus: str) -> list[Utterance]:
    """The first two clips of middling length of speakers at even distances."""
    by_speaker: dict[str, list[Utterance]] = {}
    for u in read_manifest(manifest):
        if u.corpus == corpus and u.text and SHORTEST <= u.duration <= LONGEST:
            by_speaker.setdefault(u.speaker_key, []).append(u)
    pairs = [clips[:2] for clips in by_speaker.values() if len(clips) > 1]
    if len(pairs) < SPEAKERS:
        raise ValueError(f"{manifest}: {len(pairs)} speakers of {corpus} have two clips to learn, not {SPEAKERS}")
    return [clip for pair in spread(pairs, SPEAKERS) for clip in pair]


def by_heart(recipe: LMRecipe, manifest: Path, folder: Path, steps: int) -> LMRecipe:
    """The recipe for these clips alone, from random weights."""
    codec = load_codec(recipe.codec, parts="decoder")
    shipped = load_models(None, codec)
    torch.manual_seed(recipe.seed)
    begin = build_models(recipe, codec, shipped.table, shipped.language)
    begin.aligner = shipped.aligner  # twenty clips teach none
    save_models(begin, folder / "begin")
    data = dataclasses.replace(recipe.data, train=str(manifest), dev=str(manifest), dev_tokens=recipe.data.tokens)
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(data, cache=str(folder / "cache")),
        ar=dataclasses.replace(recipe.ar, dropout=0.0),
        nar=dataclasses.replace(recipe.nar, dropout=0.0),
        init=str(folder / "begin"),
        max_steps=steps,
        evaluate_every=steps,
        dev_clips=2 * SPEAKERS,
    )


def hear(uslm: USLM, clips: Sequence[Utterance], asr: Sequence[Judges]) -> dict[str, list[list[Any]]]:
    """Of each way to say the clips, of each clip, what each ASR makes of it: word edits and words."""
    heard: dict[str, list[list[Any]]] = {}
    for clip in track(clips, "hearing", console=Console(stderr=True)):
        text = clip.text or ""
        recording = audio.read(clip.path, SAMPLE_RATE)[0]
        other = next(u for u in clips if u.speaker_key == clip.speaker_key and u.id != clip.id)
        waveform, rate = audio.read(other.path)
        voice = uslm.prepare_voice(waveform, sample_rate=rate)
        said = {"recording": torch.from_numpy(recording)}
        said["codec"] = uslm.codec.decode(uslm.codec.encode(recording, sample_rate=SAMPLE_RATE)).waveform[0]
        greedy, drawn = Sampling(temperature=0.0, longest_pause=PAUSE), Sampling(longest_pause=PAUSE)
        said["USLM, greedily"] = uslm.generate(text, voice, sampling=greedy, takes=1, guidance=0.0).waveform
        said["USLM"] = uslm.generate(text, voice, sampling=drawn, guidance=0.0).waveform
        for name, speech in said.items():
            rate = SAMPLE_RATE if name == "recording" else uslm.codec.sample_rate
            samples = audio.resample(speech.numpy(), rate, SAMPLE_RATE)
            pair = Pair(samples, samples, text, "en", voice=samples)
            heard.setdefault(name, []).append([scores(pair, ("wer",), judges)["wer"] for judges in asr])
    return heard


def table(report: dict[str, Any]) -> str:
    asr = list(report["wer"]["recording"])
    lines = [f"| speech | {' | '.join(f'WER %, {name}' for name in asr)} |", f"|---|{'--:|' * len(asr)}"]
    for name, found in report["wer"].items():
        cells = (f"{f['value']:.1f} ({f['low']:.1f} to {f['high']:.1f})" for f in found.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    known = ", ".join(f"{name.upper()} {100 * share:.1f} %" for name, share in report["known"].items())
    said = f"{len(report['clips'])} clips, {report['steps']} steps. Codes known, each after those before it: {known}."
    return "\n".join([*lines, "", said])


if __name__ == "__main__":
    main()
