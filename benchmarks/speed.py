"""How fast is the codec, how much memory does it take, and how do others do on the same machine?

    python benchmarks/speed.py --manifest ../shared/data/eval.jsonl

Ours (`fast`, and `paper` with random weights), the authors' package, and EnCodec, Mimi, DAC, SNAC and X-Codec at the
bitrates that the table names, with random weights: speed does not depend on them, and nothing is downloaded. Real
speech; single clips of 2, 10 and 30 s, and a batch of 8 clips of 2 to 10 s, which the others, who know no lengths, get
padded to the longest. Each codec is called as its users call it; resampling is not timed. The systems take turns: a
slow minute slows all.

One thread: CPU time of the process. Two threads: a clock on the wall, with nothing else running. Figures are seconds of
audio a second: median and quartiles of several runs, after one that warms up. Memory: the largest resident set of a
process of its own that encodes and decodes the batch, over what its imports took.

Writes results/speed.json, the table and the plot of the README, and the whole table in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from peers import PEERS, Peer
from script import cpu_name, fail, peak_resident, quartiles, read_speech, timed, versions, write_between
from vocable import SpeechTokenizer, audio
from vocable.codec.config import PRESETS
from vocable.files import atomic_path

CONDITIONS = {  #: seconds of each clip
    "2 s": (2.0,),
    "10 s": (10.0,),
    "30 s": (30.0,),
    "8 clips": (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0),
}
LONGEST = max(sum(seconds) for seconds in CONDITIONS.values())  #: seconds of speech that a run takes
HEADLINE = "10 s"  #: of the README's table and plot
THREADS = (1, 2)
PARTS = ("encode", "decode")
OURS = ("fast", "paper")
#: What the project promises of `fast`, each way on one thread, at 10 s: x real time, and times as fast as EnCodec.
PROMISED = {"x_real_time": 80.0, "x_encodec": 6.0}
HERE = Path(__file__).parent
MARK = "speed: written by benchmarks/speed.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--systems", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.json")
    parser.add_argument(
        "--no-pages", action="store_true", help="leave the README, its plot and benchmarks/README.md alone"
    )
    parser.add_argument("--memory-of", choices=[*OURS, *PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--paper", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of:  # the process of its own
        print(memory(args.memory_of, args.paper))
        return
    torch.set_num_interop_threads(1)
    missing = [name for name in ("transformers", "snac", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        fail(
            f"missing {', '.join(missing)}: pip install transformers matplotlib einops; --no-deps snac speechtokenizer"
        )
    with tempfile.TemporaryDirectory() as scratch:
        paper = Path(scratch)
        torch.manual_seed(0)
        SpeechTokenizer(PRESETS["paper"]).eval().save_pretrained(paper)
        try:
            speech = read_speech(args.manifest, LONGEST * (args.runs + 1))
            systems = {name: load(name, paper) for name in args.systems}
        except (ImportError, ValueError) as error:  # a package, a manifest or a recording that cannot be used
            fail(str(error))
        report: dict[str, Any] = {
            "systems": {name: {"what": s.what, "rate": s.sample_rate, "threads": {}} for name, s in systems.items()}
        }
        for threads in THREADS:
            torch.set_num_threads(threads)
            clock = timed if threads == 1 else wall_time
            for name, figures in measure(systems, speech, args.runs, clock, f"{threads} thread(s)").items():
                report["systems"][name]["threads"][str(threads)] = figures
        for name in track(systems, "memory", console=Console(stderr=True)):
            command = [sys.executable, "-W", "ignore", __file__, "--memory-of", name, "--paper", str(paper)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            report["systems"][name]["memory_mib"] = round(float(printed))
    report |= {
        "cpu": cpu_name(),
        "settings": {"conditions": CONDITIONS, "runs": args.runs, "threads": THREADS},
        "versions": versions("torch", "transformers", "numpy", "snac", "speechtokenizer"),
    }
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    print(whole_table(report))
    print(verdict(report))
    if not args.no_pages:
        write_between(HERE / "README.md", MARK, f"{whole_table(report)}\n\n{verdict(report)}")
        write_between(HERE.parent / "README.md", MARK, short_table(report))
        plot(report, HERE.parent / "docs" / "speed.svg")


# ---- the systems -----------------------------------------------------------------------------------------------------


def load(name: str, paper: Path) -> Peer:
    """Ours are loaded as users load theirs, `paper` from the folder of that name.

    A codec that was not loaded hashes its weights for its id in every call, and keeps its weight norm.
    """
    if name not in OURS:
        return PEERS[name]()
    codec = SpeechTokenizer.from_pretrained(None if name == "fast" else paper)
    bitrate = f"{codec.bitrate() / 1000:g} kbit/s"
    return Peer(
        f"vocable `{name}`, {bitrate}", codec.sample_rate, codec.encode, lambda codes: codec.decode(codes).waveform
    )


# ---- measuring -------------------------------------------------------------------------------------------------------

Clock = Callable[[Callable[[], Any]], tuple[Any, float]]


def wall_time(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


@torch.inference_mode()
def measure(
    systems: dict[str, Peer], speech: np.ndarray, runs: int, clock: Clock, title: str
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """x real time by system, condition and part."""
    times: dict[tuple[str, str, str], list[float]] = {}
    turns = [(condition, run) for condition in CONDITIONS for run in range(runs + 1)]
    for condition, run in track(turns, title, console=Console(stderr=True)):
        seconds = CONDITIONS[condition]
        clips = cut(speech[int(run * LONGEST * 16_000) :], seconds)
        for name, system in systems.items():
            batch = [torch.from_numpy(audio.resample(clip, 16_000, system.sample_rate)) for clip in clips]
            codes, encode = clock(lambda system=system, batch=batch: system.encode(batch))
            decoded, decode = clock(lambda system=system, codes=codes: system.decode(codes))
            # A wrong shape would make a wrong time.
            assert len(decoded) == len(batch) and decoded.shape[-1] >= 0.98 * max(map(len, batch)), (
                name,
                decoded.shape,
            )
            if run:  # the first warms up
                for part, took in (("encode", encode), ("decode", decode)):
                    times.setdefault((name, condition, part), []).append(sum(seconds) / took)
    return {
        name: {c: {part: quartiles(np.array(times[name, c, part])) for part in PARTS} for c in CONDITIONS}
        for name in systems
    }


def cut(speech: np.ndarray, seconds: Sequence[float]) -> list[np.ndarray]:
    """Clips of these lengths, one after another."""
    stops = (16_000 * np.cumsum(seconds)).astype(int)
    return [speech[stop - int(16_000 * s) : stop] for s, stop in zip(seconds, stops, strict=True)]


@torch.inference_mode()
def memory(name: str, paper: Path) -> float:
    """MiB of the process at its largest, loading a system and running the batch, over what imports took."""
    base = peak_resident()
    system = load(name, paper)
    generator = torch.Generator().manual_seed(0)
    lengths = [int(s * system.sample_rate) for s in CONDITIONS["8 clips"]]
    system.decode(system.encode([0.1 * torch.randn(n, generator=generator) for n in lengths]))
    return peak_resident() - base


# ---- the report ------------------------------------------------------------------------------------------------------


def whole_table(report: dict[str, Any]) -> str:
    """Everything, in Markdown: encode / decode."""
    columns = [(t, c) for t in map(str, THREADS) for c in CONDITIONS]
    heads = [f"{c}, {t} thread{'s' * (t != '1')}" for t, c in columns]
    lines = [
        f"Encode / decode, x real time, medians of {report['settings']['runs']} runs on {report['cpu']}.",
        "Quartiles are in `results/speed.json`.",
        "",
        f"| system | {' | '.join(heads)} | MiB |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for row in report["systems"].values():
        cells = [pair(row["threads"][t][c]) for t, c in columns]
        lines.append(f"| {row['what']} | {' | '.join(cells)} | {row['memory_mib']} |")
    return "\n".join(lines)


def short_table(report: dict[str, Any]) -> str:
    """The README's: one thread."""
    lines = ["| x real time, one CPU thread | encode | decode | memory, MiB |", "|---|---|---|---|"]
    for row in report["systems"].values():
        encode, decode = (f"{row['threads']['1'][HEADLINE][part]['median']:.1f}" for part in PARTS)
        lines.append(f"| {row['what']} | {encode} | {decode} | {row['memory_mib']} |")
    return "\n".join([*lines, "", "![bars of the table](docs/speed.svg)"])


def pair(figures: dict[str, dict[str, float]]) -> str:
    return " / ".join(f"{figures[part]['median']:.1f}" for part in PARTS)


def verdict(report: dict[str, Any]) -> str:
    """What was promised, and what came."""
    systems = report["systems"]
    if not {"fast", "encodec"} <= set(systems):
        return ""
    fast, encodec = (
        [systems[name]["threads"]["1"][HEADLINE][part]["median"] for part in PARTS] for name in ("fast", "encodec")
    )
    ratios = [a / b for a, b in zip(fast, encodec, strict=True)]
    lines = []
    for what, found, wanted in (
        ("x real time", fast, PROMISED["x_real_time"]),
        ("x EnCodec", ratios, PROMISED["x_encodec"]),
    ):
        reached = "reached" if min(found) >= wanted else "NOT reached"
        lines.append(
            f"`fast`, one thread, {HEADLINE}: {found[0]:.1f} / {found[1]:.1f} {what}; {wanted:g} each way: {reached}."
        )
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of the README's table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(report["systems"].values())[::-1]
    figure, axes = plt.subplots(figsize=(7.5, 0.5 * len(rows) + 0.9), layout="constrained")
    places = np.arange(len(rows))
    for part, shift, colour in (("encode", 0.2, "#1f5fa8"), ("decode", -0.2, "#e08b27")):
        values = [row["threads"]["1"][HEADLINE][part]["median"] for row in rows]
        bars = axes.barh(places + shift, values, 0.38, label=part, color=colour)
        axes.bar_label(bars, [f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in values], padding=2, size=8)
    axes.set_xscale("log")
    axes.set_yticks(places, [row["what"].replace("`", "") for row in rows])
    axes.set_xlabel(f"x real time on one CPU thread, clips of {HEADLINE}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
