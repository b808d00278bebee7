"""How many hours does `vocable tokenize` get through in one, and does anything that happens to it change a byte?

    python benchmarks/corpus.py --train ../shared/data/train.jsonl

Two corpora: the manifest as it is, and 10,000 clips of 1 to 3 s cut from it, a broken file in the middle. Each goes
through one worker and through two, the clips through two Ray actors as well, with nothing else running; the clock is on
the wall, from the start of the command to its end. Then the clips again, killed by SIGKILL at 20 random moments and
taken up each time. All ways must leave the same index, which holds the checksum of every shard.

Writes results/corpus.json, and the table with a plan for 100,000 hours in docs/how-to/corpus.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track

from script import cpu_name, fail, publish, versions
from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest, write_manifest
from vocable.files import file_digest

RATE = 16_000
CLIPS = 10_000
KILLS = 20
PLAN_HOURS, PLAN_CORES, PLAN_MACHINES = 100_000, 64, 16
HERE = Path(__file__).parent
MARK = "corpus: written by benchmarks/corpus.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=Path("../shared/data/train.jsonl"))
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--scratch", type=Path, help="a folder with room for the clips (default: the system's)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "corpus.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        try:
            report = run(args, Path(scratch))
        except ValueError as error:
            fail(str(error))
    publish(report, args.out, HERE.parent / "docs" / "how-to" / "corpus.md", MARK, table(report))


def run(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    clips = cut(read_manifest(args.train), args.clips, scratch / "clips")
    runs: list[dict[str, Any]] = []
    for corpus, manifest, ways in (
        (f"{args.clips:,} clips of 1 to 3 s", clips, ("--workers 1", "--workers 2", "--engine ray --workers 2")),
        ("the training set", args.train, ("--workers 1", "--workers 2")),
    ):
        for way in ways:
            out = scratch / f"{manifest.stem} {way}"
            begin = time.monotonic()
            done = subprocess.run(command(manifest, way, out), capture_output=True, text=True)
            seconds = time.monotonic() - begin
            if done.returncode not in (0, 2):
                raise ValueError(done.stderr.strip().splitlines()[-1])
            index = json.loads((out / "index.json").read_text())
            row = {"corpus": corpus, "way": way, "seconds": seconds, "hours": index["hours"], "clips": index["clips"]}
            runs.append(row | {"left_out": len(index["left_out"]), "index": file_digest(out / "index.json")})
    killed = kill(command(clips, "--workers 2", scratch / "killed"), args.kills, runs[1]["seconds"])
    return {
        "runs": runs,
        "kills": {"count": killed, "same": file_digest(scratch / "killed" / "index.json") == runs[0]["index"]},
        "same": {c: len({r["index"] for r in runs if r["corpus"] == c}) == 1 for c in {r["corpus"] for r in runs}},
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "versions": versions("torch", "numpy", "ray"),
    }


def command(manifest: Path, way: str, out: Path) -> list[str]:
    call = [sys.executable, "-m", "vocable", "tokenize", str(manifest), "-o", str(out)]
    return [*call, "--shard-minutes", "10", *way.split()]


def cut(utterances: list[Utterance], count: int, folder: Path) -> Path:
    """Write clips, one of them broken, and their manifest; returns its path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written: list[Utterance] = []
    for utterance in track(utterances, "cutting clips", console=Console(stderr=True)):
        waveform, at = audio.read(utterance.path, RATE)[0], 0
        while len(written) < count:
            length = int(rng.uniform(1.0, 3.0) * RATE)
            if at + length > len(waveform):
                break
            name = f"{len(written):05d}"
            soundfile.write(folder / f"{name}.flac", waveform[at : at + length], RATE)
            written.append(Utterance(name, folder / f"{name}.flac", length / RATE))
            at += length
    if len(written) < count:
        raise ValueError(f"the manifest's speech gives {len(written)} clips, not {count}")
    broken = written[count // 2].path
    broken.write_bytes(broken.read_bytes()[:100])
    write_manifest(folder / "clips.jsonl", written)
    return folder / "clips.jsonl"


def kill(call: list[str], kills: int, seconds: float) -> int:
    """Kill the command, all its processes, at random moments, then let it end; returns how often it was killed."""
    rng = np.random.default_rng(0)
    done = 0
    for _ in track(range(kills), "killing", console=Console(stderr=True)):
        process = subprocess.Popen(call, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(rng.uniform(2.0, max(4.0, seconds / 8)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            done += 1
        process.wait()
    last = subprocess.run(call, capture_output=True, text=True)
    if last.returncode not in (0, 2):
        raise ValueError(last.stderr.strip().splitlines()[-1])
    return done


def table(report: dict[str, Any]) -> str:
    """What was measured, and what follows for a cluster."""
    lines = [
        f"Measured on {report['cores']} cores of {report['cpu']}, `fast`, all layers, including loading:",
        "",
        "| corpus | hours | how | minutes | x real time | times one worker |",
        "|---|---|---|---|---|---|",
    ]
    alone: dict[str, float] = {}
    for r in report["runs"]:
        speed = 3600 * r["hours"] / r["seconds"]
        first = alone.setdefault(r["corpus"], r["seconds"])
        cells = [r["corpus"], f"{r['hours']:.2f}", f"`{r['way']}`", f"{r['seconds'] / 60:.1f}", f"{speed:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {first / r['seconds']:.2f} |")
    same = "the same in all runs" if all(report["same"].values()) else "NOT the same in all runs"
    kills = report["kills"]
    after = "the same" if kills["same"] else "NOT the same"
    train = min((r for r in report["runs"] if "training" in r["corpus"]), key=lambda r: r["seconds"])
    speed = 3600 * train["hours"] / train["seconds"] / int(train["way"].split()[-1])  # by its workers
    hours = PLAN_HOURS / speed / PLAN_CORES
    reading = speed * PLAN_CORES * 2 * RATE / 1e6
    terabyte = PLAN_HOURS * 3600 * 50 * 2 / 1e12  # of one layer
    lines += [
        "",
        f"The bytes of the shards were {same}. After {kills['count']} kills and resumptions they were {after}.",
        "",
        f"So one core encodes {speed:.0f} hours of speech per hour. For {PLAN_HOURS:,} hours of speech, a machine with "
        f"{PLAN_CORES} cores needs {hours:.0f} hours, and {PLAN_MACHINES} machines {hours / PLAN_MACHINES:.1f}. Each "
        f"machine reads {reading:.0f} MB/s of 16-bit audio, or an eighth of that as Opus. The codes take "
        f"{terabyte:.2f} TB per layer in uint16. With shards of 30 minutes, a machine that stops loses at most half an "
        f"hour of speech per worker, {1800 / speed:.0f} s of work.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
