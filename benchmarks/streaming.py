"""What does a frame of a stream cost, at minute 1 and at hour 1, and how many streams does a core carry?

    python benchmarks/streaming.py --model models/fast-2 --manifest ../shared/data/eval.jsonl

Milliseconds for each 20 ms of speech (median and 99th percentile) to encode, to decode, and both, on one thread, in
blocks of one frame; the resident set; and streams per core at real time, from batches. Beside it, in the same run,
transformers' Mimi with random weights in its own streaming mode, whose frames are 80 ms. Between minute 1 and hour 1
the frames of an hour are encoded and decoded, without waiting for real time (--hour 100 for fewer).

Writes results/streaming.json and a table in docs/how-to/stream.md. A quarter of an hour, with nothing else running.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from script import cpu_name, fail, publish, read_speech, versions
from vocable import SpeechTokenizer
from vocable.codec.stream import Stream

HERE = Path(__file__).parent
MARK = "streaming: written by benchmarks/streaming.py"
WARM = 50  #: frames before the measured ones
HOUR = 180_000  #: frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/fast-2", help="a causal codec")
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--frames", type=int, default=3_000, help="frames that are timed, at each of the two times")
    parser.add_argument("--hour", type=int, default=HOUR, help="frames before the second time")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "streaming.json")
    parser.add_argument("--no-pages", action="store_true", help="leave the published table alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        speech = torch.from_numpy(read_speech(args.manifest, 60.0))
        codec = SpeechTokenizer.from_pretrained(args.model)
        report: dict[str, Any] = {"cpu": cpu_name(), "versions": versions("torch", "transformers"), "id": codec.id}
        report["ours"] = ours(codec, speech, args)
        report["batches"] = {size: both_ways(codec, speech, size, args.frames // size + WARM) for size in args.batches}
        report["mimi"] = mimi(speech, max(2, args.frames // 4))
        if args.no_pages:
            print(table(report))
        else:
            publish(report, args.out, HERE.parent / "docs" / "how-to" / "stream.md", MARK, table(report))
    except (ValueError, OSError) as error:
        fail(str(error))


def milliseconds(begin: float) -> float:
    return 1000 * (time.perf_counter() - begin)


def ours(codec: SpeechTokenizer, speech: torch.Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """The times of one stream's frames at two times of its life."""
    stream, figures = codec.stream(), {}
    run(stream, speech, WARM)
    figures["minute 1"] = run(stream, speech, args.frames)
    run(stream, speech, args.hour)
    figures["hour 1"] = run(stream, speech, args.frames)
    return figures


def run(stream: Stream, speech: torch.Tensor, frames: int) -> dict[str, Any]:
    """Encode and decode this many frames, one block for each."""
    hop = stream.steps.hop
    times = np.empty((frames, 2))
    for t in range(frames):
        at = t * hop % (len(speech) - hop)
        block = speech[at : at + hop]
        begin = time.perf_counter()
        codes = stream.encode(block)
        times[t, 0] = milliseconds(begin)
        begin = time.perf_counter()
        stream.decode(codes)
        times[t, 1] = milliseconds(begin)
    return percentiles(times) | {"resident_mib": resident()}


def percentiles(times: np.ndarray, frames: int = 1) -> dict[str, Any]:
    """Median and 99th percentile of [n, 2] milliseconds of encode and decode, for each of `frames` frames of 20 ms."""
    parts = {"encode": times[:, 0], "decode": times[:, 1], "both": times.sum(1)}
    return {part: [float(np.quantile(values, q)) / frames for q in (0.5, 0.99)] for part, values in parts.items()}


def both_ways(codec: SpeechTokenizer, speech: torch.Tensor, size: int, steps: int) -> float:
    """Streams per core at real time: batches of `size` streams, encoded and decoded."""
    stream, hop = codec.stream(batch=size), codec.hop_length
    times = []
    for t in range(steps):
        block = torch.stack([speech[(at := (t + 97 * i) * hop % (len(speech) - hop)) : at + hop] for i in range(size)])
        begin = time.perf_counter()
        stream.decode(stream.encode(block))
        times.append(milliseconds(begin))
    return size * 1000 * hop / codec.sample_rate / float(np.median(times[min(WARM, steps // 2) :]))


def mimi(speech: torch.Tensor, frames: int) -> dict[str, Any] | None:
    """The times of transformers' Mimi for each 20 ms, in blocks of its frames of 80 ms; None without transformers."""
    try:
        from transformers import MimiConfig, MimiModel
    except ImportError:
        return None
    torch.manual_seed(0)
    model = MimiModel(MimiConfig()).eval()
    hop = 1920  # 80 ms at 24 kHz; the speech's own rate does not matter for the time
    state: dict[str, Any] = {"encoder_past_key_values": None, "padding_cache": None}
    past, times = None, np.empty((frames, 2))
    with torch.inference_mode():
        for t in range(frames):
            at = t * hop % (len(speech) - hop)
            begin = time.perf_counter()
            out = model.encode(speech[None, None, at : at + hop], num_quantizers=8, use_streaming=True, **state)
            times[t, 0] = milliseconds(begin)
            state = {"encoder_past_key_values": out.encoder_past_key_values, "padding_cache": out.padding_cache}
            begin = time.perf_counter()
            spoken = model.decode(out.audio_codes, decoder_past_key_values=past, use_cache=True)
            times[t, 1] = milliseconds(begin)
            past = spoken.decoder_past_key_values
    return percentiles(times[min(WARM // 4, frames // 2) :], frames=4)


def resident() -> float:
    """MiB of the process's resident set. Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def table(report: dict[str, Any]) -> str:
    lines = [
        f"One thread of {report['cpu']}; ms for each 20 ms of speech, median / 99th percentile.",
        "",
        "| system | encode | decode | both | resident set, MiB |",
        "|---|---|---|---|---|",
    ]
    rows: list[tuple[str, dict[str, Any] | None]] = [
        (f"`{report['id']}`, {when}", figures) for when, figures in report["ours"].items()
    ]
    for name, figures in [*rows, ("Mimi of transformers, random weights", report["mimi"])]:
        if figures is not None:
            cells = [f"{figures[part][0]:.2f} / {figures[part][1]:.2f}" for part in ("encode", "decode", "both")]
            size = f"{figures['resident_mib']:.0f}" if "resident_mib" in figures else ""
            lines.append(f"| {name} | {' | '.join(cells)} | {size} |")
    streams = ", ".join(f"{rate:.0f} in batches of {size}" for size, rate in report["batches"].items())
    return "\n".join([*lines, "", f"Streams per core at real time, both ways: {streams}."])


if __name__ == "__main__":
    main()
