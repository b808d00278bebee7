"""Is the paper's model here as exact as the authors' package, and how much faster and leaner?

    pip install --no-deps speechtokenizer==1.0.1 && pip install einops
    python benchmarks/official.py --manifest ../shared/data/eval.jsonl

Both packages run the same weights: random ones of the full size, whose codebooks are filled by k-means on latents of
the manifest's speech, or a checkpoint of the authors' by --checkpoint. Encode and decode of 2, 10 and 30 s of real
speech are timed in turn on one thread; the measure is the CPU time of the process. Both are called as their users call
them, under torch.no_grad; codes that differ are counted, and those among them that no near tie explains. Peak memory
is the resident set of a process of its own that loads the checkpoint and encodes and decodes 10 s, over the peak of its
imports, which are the same for all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import peers
from script import cpu_name, fail, peak_resident, quartiles, read_speech, timed, versions
from vocable import SpeechTokenizer
from vocable.codec import exchange
from vocable.codec.official import find_weights
from vocable.files import atomic_path

SECONDS = (2, 10, 30)
#: What the project promises, in times as fast as the official package.
TARGETS = {2: 1.3, 10: 1.0, 30: 1.0}
PARTS = ("encode", "decode")
RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--checkpoint", type=Path, help="a folder of the authors', with config.json and a checkpoint")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/official.json"))
    parser.add_argument("--memory-of", nargs=2, metavar=("SYSTEM", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of:  # the process of its own
        print(json.dumps(peak_memory(*args.memory_of)))
        return
    torch.set_num_interop_threads(1)
    try:
        peers.official_class()
        speech = torch.from_numpy(read_speech(args.manifest, 240))
    except (ImportError, ValueError) as error:
        fail(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        perplexity = None
        if (folder := args.checkpoint) is None:
            folder = Path(scratch) / "official"
            perplexity = random_checkpoint(folder, speech)
        try:
            codec = exchange.import_official(folder, Path(scratch) / "ours")
        except ValueError as error:
            fail(str(error))
        report = {
            "codec": codec,
            "perplexity": perplexity,
            **measure(folder, Path(scratch) / "ours", speech, args.runs),
        }
        report["memory"] = {
            "official": memory("official", folder),
            "vocable, their file": memory("vocable", folder),
            "vocable, imported": memory("vocable", Path(scratch) / "ours"),
            "vocable, imported, encoder": memory("vocable-encoder", Path(scratch) / "ours"),
        }
    show(report)
    report |= {"cpu": cpu_name(), "versions": versions("torch", "numpy", "speechtokenizer")}
    report["settings"] = {"runs": args.runs, "threads": 1, "weights": "random" if args.checkpoint is None else "given"}
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


def random_checkpoint(folder: Path, speech: torch.Tensor) -> list[float]:
    """Write an official checkpoint of random weights, with codebooks that tell the manifest's speech apart; returns the
    perplexity of each."""
    codec = peers.official(peers.OFFICIAL_CONFIG)
    clips = list(speech[: 240 * RATE].view(-1, 8 * RATE))
    perplexity = peers.fill_official(codec, clips, iterations=2)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(peers.OFFICIAL_CONFIG))
    torch.save(codec.state_dict(), folder / "SpeechTokenizer.pt")
    return perplexity


@torch.no_grad()
def measure(folder: Path, imported: Path, speech: torch.Tensor, runs: int) -> dict[str, Any]:
    """Times of both packages in turn, and how many codes differ."""
    theirs = peers.official_class().load_from_checkpoint(str(folder / "config.json"), str(find_weights(folder))).eval()
    ours = SpeechTokenizer.from_pretrained(imported)
    times = {(seconds, part, who): [] for seconds in SECONDS for part in PARTS for who in ("vocable", "official")}
    differing = unexplained = total = 0
    schedule = [(seconds, run) for seconds in SECONDS for run in range(runs + 1)]
    for seconds, run in track(schedule, "timing", console=Console(stderr=True)):
        start = run * 4 * RATE
        clip = speech[start : start + seconds * RATE]
        calls = [lambda clip=clip: ours.encode(clip), lambda clip=clip: theirs.encode(clip[None, None])]
        (encoded, our_encode), (codes, their_encode) = in_turn(calls, run)
        calls = [lambda codes=encoded: ours.decode(codes), lambda codes=codes: theirs.decode(codes)]
        (decoded, our_decode), (their_decoded, their_decode) = in_turn(calls, run)
        assert decoded.waveform.shape[1] == their_decoded.shape[2] == len(clip)
        if run:  # the first warms up
            times[seconds, "encode", "vocable"].append(our_encode)
            times[seconds, "encode", "official"].append(their_encode)
            times[seconds, "decode", "vocable"].append(our_decode)
            times[seconds, "decode", "official"].append(their_decode)
            if seconds == max(SECONDS):  # the shorter clips are parts of these
                frames = (encoded.codes[0] != codes[:, 0]).any(0)
                differing += int(frames.sum())
                unexplained += int((frames & ~near_tie(ours, clip, codes[:, 0])).sum())
                total += len(frames)
    counts = {"frames": total, "differing": differing, "without a near tie": unexplained}
    result: dict[str, Any] = {"codes": counts, "seconds": {}}
    for seconds in SECONDS:
        row: dict[str, Any] = {}
        for part in PARTS:
            mine, other = (np.array(times[seconds, part, who]) for who in ("vocable", "official"))
            row[part] = {
                "vocable": quartiles(mine),
                "official": quartiles(other),
                "ratio": quartiles(other / mine),
                "reached": bool(np.median(other / mine) >= TARGETS[seconds]),
            }
        result["seconds"][str(seconds)] = row
    return result


def near_tie(tok: SpeechTokenizer, clip: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Frames [T] where in some layer the two nearest entries' distances differ by less than 1e-4, relative."""
    residual = tok.latents(clip)[0].T
    near = torch.zeros(len(residual), dtype=torch.bool)
    for k, book in enumerate(tok.quantizer.codebooks):
        nearest = torch.cdist(residual.double(), book.double()).square().topk(2, largest=False).values
        near |= (nearest[:, 1] - nearest[:, 0]) / nearest[:, 1] < 1e-4
        residual = residual - book[codes[k]]
    return near


def in_turn(calls: list[Callable[[], Any]], run: int) -> list[tuple[Any, float]]:
    """`timed` of both calls, the first first in even runs, second in odd ones."""
    results = {i: timed(calls[i]) for i in ((0, 1), (1, 0))[run % 2]}
    return [results[0], results[1]]


def memory(system: str, folder: Path) -> dict[str, float]:
    """`peak_memory` in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory-of", system, str(folder)]
    printed: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return printed


def peak_memory(system: str, folder: str) -> dict[str, float]:
    """MiB over what the imports took: after loading, at its peak, and at the peak of encoding (and decoding) 10 s."""
    peers.official_class()
    base = peak_resident()
    clip = 0.1 * torch.randn(10 * RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if system == "official":
            weights = str(find_weights(Path(folder)))
            theirs = peers.official_class().load_from_checkpoint(f"{folder}/config.json", weights)
            loaded = peak_resident()
            theirs.decode(theirs.eval().encode(clip[None, None]))
        else:
            part = "encoder" if system == "vocable-encoder" else "all"
            ours = SpeechTokenizer.from_pretrained(folder, parts=part)
            loaded = peak_resident()
            encoded = ours.encode(clip)
            if part == "all":
                ours.decode(encoded)
    return {"load": loaded - base, "use": peak_resident() - base}


def show(report: dict[str, Any]) -> None:
    """The two tables and the verdict."""
    table = Table(title="CPU seconds on one thread, median (quartiles)")
    for column in ("", "official", "vocable", "times as fast", "promised"):
        table.add_column(column, justify="left" if not column else "right")
    for seconds, row in report["seconds"].items():
        for part, figures in row.items():
            systems = (figures[who] for who in ("official", "vocable", "ratio"))
            cells = ["{median:.2f} ({quartile_1:.2f}-{quartile_3:.2f})".format(**f) for f in systems]
            verdict = f">= {TARGETS[int(seconds)]} {'reached' if figures['reached'] else 'NOT reached'}"
            table.add_row(f"{part} {seconds} s", *cells, verdict)
    Console().print(table)
    table = Table(title="Peak memory over the imports', MiB")
    for column in ("", "load", "with encode (and decode) of 10 s"):
        table.add_column(column, justify="left" if not column else "right")
    for name, figures in report["memory"].items():
        table.add_row(name, f"{figures['load']:.0f}", f"{figures['use']:.0f}")
    Console().print(table)
    codes = report["codes"]
    print("codes:", ", ".join(f"{count} {name}" for name, count in codes.items()))


if __name__ == "__main__":
    main()
