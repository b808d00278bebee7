"""Does an hour fit into memory, and does anyone hear where its pieces meet?

    python benchmarks/long.py --manifest ../shared/data/longform.jsonl

The manifest's recordings one after another, over and over, are an hour in one file. `vocable encode` and `decode` take
it in processes of their own: seconds on the clock, and the largest resident set. Then each recording by itself, in
pieces and as a whole: how many codes are the same, and by how much the speech differs. And the steps from sample to
sample in the hour's speech: those across a seam between two pieces beside all others.

Writes results/long.json and a table in benchmarks/README.md. Two minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from script import cpu_name, fail, publish, versions
from vocable import SpeechTokenizer, audio
from vocable.codec.long import CHUNK_FRAMES
from vocable.corpus.manifest import read_manifest

RATE = 16_000
HERE = Path(__file__).parent
MARK = "long: written by benchmarks/long.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/longform.jsonl"))
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "long.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            report = run(args.manifest, args.seconds, Path(scratch))
        except (ValueError, OSError) as error:
            fail(str(error))
    publish(report, args.out, HERE / "README.md", MARK, table(report))


def run(manifest: Path, seconds: float, scratch: Path) -> dict[str, Any]:
    recordings = [audio.read(u.path, RATE)[0] for u in read_manifest(manifest)]
    once = np.concatenate(recordings)
    with soundfile.SoundFile(scratch / "hour.wav", "w", RATE, 1) as file:
        for start in range(0, round(seconds * RATE), len(once)):
            file.write(once[: round(seconds * RATE) - start])
    commands = {
        "encode": ["encode", scratch / "hour.wav", "-o", scratch / "hour.safetensors"],
        "decode": ["decode", scratch / "hour.safetensors", "-o", scratch / "out.wav"],
    }
    report: dict[str, Any] = {"seconds": seconds, "cpu": cpu_name(), "versions": versions("torch", "numpy")}
    for part, command in commands.items():
        report[part] = alone([str(word) for word in command])
    report["steps"] = steps(scratch / "out.wav")
    tok = SpeechTokenizer.from_pretrained()
    frames = same = 0
    difference = 0.0
    for recording in recordings:
        whole, pieces = tok.encode(recording), tok.encode_long([recording])
        same += int((whole.codes == pieces.codes).sum())
        frames += whole.codes.numel()
        speech = torch.cat(list(tok.decode_long(whole)))
        difference = max(difference, float((tok.decode(whole).waveform[0] - speech).abs().max()))
    return report | {"codes": frames, "same_codes": same, "largest_difference": difference}


def alone(command: list[str]) -> dict[str, float]:
    """Wall clock and largest resident set of the command, one thread, in a process of its own."""
    begin = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "vocable", *command], env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise ValueError(f"vocable {command[0]} ended with {child.returncode}")
    return {"seconds": time.monotonic() - begin, "resident_mib": usage.ru_maxrss / 1024}


def steps(path: Path) -> dict[str, float]:
    """Steps from sample to sample of speech that was decoded in pieces, at the seams and everywhere."""
    samples, rate = soundfile.read(path, dtype="float32")
    every = np.abs(np.diff(samples))
    seams = np.arange(CHUNK_FRAMES * rate // 50, len(samples), CHUNK_FRAMES * rate // 50)
    there = every[seams - 1]
    return {
        "seams": len(seams),
        "seam_median": float(np.median(there)),
        "seam_largest": float(there.max()),
        "all_median": float(np.median(every)),
        "all_largest": float(every.max()),
    }


def table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['seconds'] / 3600:.2g} h of speech in one file, one thread of {report['cpu']}.",
        "",
        "| command | seconds | x real time | largest resident set, MiB |",
        "|---|---|---|---|",
    ]
    for part in ("encode", "decode"):
        row = report[part]
        speed = report["seconds"] / row["seconds"]
        lines.append(f"| `vocable {part}` | {row['seconds']:.0f} | {speed:.0f} | {row['resident_mib']:.0f} |")
    steps = report["steps"]
    return "\n".join(
        [
            *lines,
            "",
            f"Each recording by itself, in pieces against the whole pass: {report['same_codes']:,} of "
            f"{report['codes']:,} codes are the same; decoded, no sample differs by more than "
            f"{report['largest_difference']:.1e}.",
            "",
            f"From sample to sample, the speech moves by {steps['seam_median']:.1e} (median) and at most "
            f"{steps['seam_largest']:.1e} across its {steps['seams']} seams, by {steps['all_median']:.1e} and at most "
            f"{steps['all_largest']:.1e} everywhere.",
        ]
    )


if __name__ == "__main__":
    main()
