"""What do the engine's options bring, and what do they cost in codes?

    python benchmarks/engine.py --manifest ../shared/data/eval.jsonl

`recurrence="bfloat16"` and `compile=True` of `SpeechTokenizer.from_pretrained`, beside the model as it is:
encode and decode on one thread, CPU time, the options in turn; and how many codes of real clips stay the same, in RVQ-1
and in all layers. Codes that compiling changes are near ties. `fast` is the embedded model; `paper` has random weights,
and codebooks by k-means on its latents: its speed is the trained model's, its share of codes is not.

Writes results/engine.json, and the table in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from official import random_checkpoint
from script import cpu_name, fail, publish, quartiles, read_speech, timed, versions
from vocable import SpeechTokenizer, audio
from vocable.codec import exchange
from vocable.corpus.manifest import read_manifest, spread

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "recurrence bfloat16": {"recurrence": "bfloat16"},
    "compiled": {"compile": True},
}
HERE = Path(__file__).parent
MARK = "engine: written by benchmarks/engine.py"
PARTS = ("encode", "decode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--clips", type=int, default=20, help="spread evenly over the manifest")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "engine.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        clips = [audio.read(u.path, 16_000)[0] for u in spread(read_manifest(args.manifest), args.clips)]
        with tempfile.TemporaryDirectory() as scratch:
            random_checkpoint(Path(scratch) / "official", torch.from_numpy(read_speech(args.manifest, 240)))
            exchange.import_official(Path(scratch) / "official", Path(scratch) / "paper")
            models = {
                name: measure(folder, clips, name)
                for name, folder in (("fast", None), ("paper", Path(scratch) / "paper"))
            }
    except (ImportError, ValueError) as error:
        fail(str(error))
    report = {"models": models, "cpu": cpu_name(), "versions": versions("torch", "numpy"), "clips": len(clips)}
    publish(report, args.out, HERE / "README.md", MARK, table(report))


def measure(name: Path | None, clips: list[np.ndarray], title: str) -> dict[str, dict[str, Any]]:
    """Speed of each option and its agreement with the first. A first pass over two clips warms up, and compiles."""
    # Loaded as users load them: weights that are made in inference mode take another way.
    codecs = {option: SpeechTokenizer.from_pretrained(name, **how) for option, how in OPTIONS.items()}
    times: dict[tuple[str, str], list[float]] = {(option, part): [] for option in OPTIONS for part in PARTS}
    same = {option: np.zeros(2) for option in OPTIONS}
    frames = 0
    for i, clip in enumerate(track([*clips[:2], *clips], title, console=Console(stderr=True))):
        codes: dict[str, torch.Tensor] = {}
        for option, codec in codecs.items():
            encoded, encode = timed(lambda codec=codec, clip=clip: codec.encode(clip))
            _, decode = timed(lambda codec=codec, encoded=encoded: codec.decode(encoded))
            codes[option] = encoded.codes[0]
            if i >= 2:
                times[option, "encode"].append(len(clip) / 16_000 / encode)
                times[option, "decode"].append(len(clip) / 16_000 / decode)
        if i >= 2:
            base = codes["as it is"]
            frames += base.shape[1]
            for option in OPTIONS:
                equal = (codes[option] == base).float()
                same[option] += [float(equal[0].sum()), float(equal.mean(0).sum())]
    return {
        option: {part: quartiles(np.array(times[option, part])) for part in PARTS}
        | {"same_rvq1": same[option][0] / frames, "same_all": same[option][1] / frames}
        for option in OPTIONS
    }


def table(report: dict[str, Any]) -> str:
    lines = [
        f"x real time on one thread of {report['cpu']}, medians over {report['clips']} clips.",
        "",
        "| model | option | encode | decode | codes of RVQ-1 that stay, % | of all layers, % |",
        "|---|---|---|---|---|---|",
    ]
    for name, options in report["models"].items():
        for option, row in options.items():
            speeds = " | ".join(f"{row[part]['median']:.1f}" for part in PARTS)
            lines.append(
                f"| `{name}` | {option} | {speeds} | {100 * row['same_rvq1']:.2f} | {100 * row['same_all']:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
