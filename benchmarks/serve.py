"""How fast is `vocable serve`? Clients of this machine against a service of this machine.

    python benchmarks/serve.py
    python benchmarks/serve.py --streams 16 --seconds 600 --model models/fast-2

Speech: 1, 4 and 16 clients send a text of three sentences again and again. p50 and p95 of the time to the first byte
and to the last, and requests a second. Codec: eight clips at once, which the service encodes in batches, against the
same clips one after another; the ratio of the times is the gain. The best of several repetitions counts, because other
work of the machine can only slow a repetition; measured with one worker and with two. Leaving: a client disconnects
while its text is spoken; how long does the next request wait for the worker?

Streams, with --streams alone: clients send speech to `/v1/audio/codec` in real time, a frame in a message. How late is
each frame of codes: the time from the last sample that it needs, look-ahead included, to its arrival? Prints p50, p99
and max.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import connect

from script import cpu_name, publish, versions
from vocable import SpeechTokenizer, audio
from vocable.pcm import pcm_bytes

TEXT = "The boat came back in the evening. Nobody had waited for it. The harbour was dark."
CLIENTS = (1, 4, 16)
CLIPS = 8
LEAVES_AFTER = 2.5  #: seconds
PATIENCE = 600.0  #: seconds for an answer
HERE = Path(__file__).parent
MARK = "serve: written by benchmarks/serve.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=48, help="of each number of clients")
    parser.add_argument("--repetitions", type=int, default=5, help="of the codec's measurement")
    parser.add_argument("--takes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clip", type=Path, default=HERE.parent / "examples" / "speech.flac")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "serve.json")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "how-to" / "serve.md")
    parser.add_argument("--streams", type=int, help="measure this number of streams, and nothing else")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each stream")
    parser.add_argument("--model", default="models/fast-2", help="the causal codec of the streams")
    args = parser.parse_args()
    if args.streams:
        print(lateness(args.streams, args.seconds, args.model, args.clip))
        return
    clip = args.clip.read_bytes()
    with service(args.workers) as client:
        speech = [load(client, clients, args.requests, args.takes) for clients in CLIENTS]
        waits = [leave(client, clip) for _ in range(args.repetitions)]
    codec = []
    for workers in (1, 2):
        with service(workers) as client:
            codec.append({"workers": workers} | batching(client, clip, args.repetitions))
    setup = {"workers": args.workers, "takes": args.takes, "text": TEXT, "cpu": cpu_name()}
    report = {
        "setup": setup | versions("torch", "fastapi", "uvicorn"),
        "speech": speech,
        "leaving": {"repetitions": args.repetitions, "longest_wait": max(waits)},
        "codec": codec,
    }
    publish(report, args.out, args.page, MARK, table(report))


@contextmanager
def service(workers: int, *options: object) -> Iterator[httpx.Client]:
    """Run a service; yield a client of it."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(Path(folder, "log"), workers, *options)
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE) as client:
                yield client
        finally:
            process.terminate()
            process.wait()


def start(log: Path, workers: int, *options: object) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service; return it and its address when it is ready."""
    command = [sys.executable, "-m", "vocable", "serve", "--port", "0", "--no-page", "--workers", str(workers)]
    command += map(str, options)
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    while not (found := re.search(r"running on (http://\S+)", log.read_text())):
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.1)
    while f"vocable_workers {workers}.0" not in httpx.get(f"{found[1]}/metrics", timeout=PATIENCE).text:
        time.sleep(0.1)
    return process, found[1]


def load(client: httpx.Client, clients: int, requests: int, takes: int) -> dict[str, Any]:
    """Speak the text `requests` times, with so many clients at a time."""

    def speak(_: int) -> tuple[float, float]:
        begun, first = time.perf_counter(), 0.0
        body = {"input": TEXT, "takes": takes, "response_format": "pcm"}  # with a seed, it would be spoken alone
        with client.stream("POST", "/v1/audio/speech", json=body) as response:
            response.raise_for_status()
            for _ in response.iter_raw():
                first = first or time.perf_counter() - begun
        return first, time.perf_counter() - begun

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = np.array(list(pool.map(speak, range(requests))))
    seconds = time.perf_counter() - begun
    p50, p95 = np.quantile(times, [0.5, 0.95], axis=0).tolist()
    return {
        "clients": clients,
        "requests": requests,
        "first_byte": {"p50": p50[0], "p95": p95[0]},
        "whole": {"p50": p50[1], "p95": p95[1]},
        "requests_per_second": requests / seconds,
    }


def leave(client: httpx.Client, clip: bytes) -> float:
    """Return the seconds that a worker still takes when the client of a long text has left."""

    def encode() -> float:
        begun = time.perf_counter()
        client.post("/v1/audio/tokens", files={"file": clip}).raise_for_status()
        return time.perf_counter() - begun

    alone = min(encode() for _ in range(3))
    with suppress(httpx.ReadTimeout):
        client.post("/v1/audio/speech", json={"input": TEXT * 20, "stream_format": "audio"}, timeout=LEAVES_AFTER)
    return encode() - alone


def batching(client: httpx.Client, clip: bytes, repetitions: int) -> dict[str, Any]:
    """Encode the clip CLIPS times, one after another and at once."""

    def encode(_: int) -> None:
        client.post("/v1/audio/tokens", files={"file": clip}, data={"format": "npy"}).raise_for_status()

    def timed(clients: int) -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(encode, range(CLIPS)))
        return time.perf_counter() - begun

    timed(CLIPS)  # connections, and torch's first calls
    pairs = [(timed(1), timed(CLIPS)) for _ in range(repetitions)]
    one, all_at_once = (min(times) for times in zip(*pairs, strict=True))
    return {"clips": CLIPS, "one_after_another": one, "at_once": all_at_once, "gain": one / all_at_once}


def lateness(count: int, seconds: float, model: str, clip: Path) -> str:
    """Encode streams in real time; return how late their frames are."""
    codec = SpeechTokenizer.from_pretrained(model, parts="encoder")
    hop, rate, look_ahead = codec.hop_length, codec.sample_rate, codec.stream().steps.encoder_delay
    pcm = np.frombuffer(pcm_bytes(audio.read(clip, rate)[0]), "<i2")
    blocks = int(seconds * rate / hop)
    late: list[float] = []

    async def stream(address: str, number: int) -> None:
        async with connect(
            f"{address}/v1/audio/codec?direction=encode", open_timeout=PATIENCE, ping_interval=None
        ) as client:
            await client.recv()  # the header
            begun = time.monotonic() + number / count * hop / rate  # the frames of the streams end at different times

            async def talk() -> None:
                for i in range(blocks):
                    await asyncio.sleep(begun + (i + 1) * hop / rate - time.monotonic())
                    await client.send(np.take(pcm, range(i * hop, (i + 1) * hop), mode="wrap").tobytes())
                await client.send("end")

            talking = asyncio.create_task(talk())
            for i in range(blocks - look_ahead):
                await client.recv()
                late.append(time.monotonic() - begun - (i + 1 + look_ahead) * hop / rate)
            await talking

    async def all_streams(address: str) -> None:
        await asyncio.gather(*(stream(address, number) for number in range(count)))

    with service(1, "-m", model, "--max-streams", count, "--max-stream-seconds", seconds + 1) as client:
        asyncio.run(all_streams(str(client.base_url).replace("http", "ws", 1).rstrip("/")))
        batches = client.get("/metrics").text
    steps, sizes = (
        float(re.search(rf"^vocable_stream_batch_{name} (\S+)$", batches, re.MULTILINE)[1]) for name in ("count", "sum")
    )
    p50, p99, most = 1000 * np.quantile(late, [0.5, 0.99, 1])
    return (
        f"{cpu_name()}: {count} streams of {codec.id} for {seconds:g} s, {len(late)} frames of {1000 * hop / rate:g} "
        f"ms; late by p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {most:.1f} ms; {sizes / steps:.1f} streams in a step"
    )


def table(report: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    setup = report["setup"]
    workers = f"{setup['workers']} worker{'s' * (setup['workers'] > 1)}"
    lines = [
        f"{setup['cpu']}, {workers} of one thread; a text of three sentences, takes={setup['takes']}.",
        "",
        "| clients | first byte, p50 | p95 | whole, p50 | p95 | requests per second |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["speech"]:
        times = [row[part][p] for part in ("first_byte", "whole") for p in ("p50", "p95")]
        cells = [str(row["clients"]), *(f"{t:.2f} s" for t in times), f"{row['requests_per_second']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    leaving = report["leaving"]
    lines += [
        "",
        f"A client leaves while a long text is spoken: its worker is free after {leaving['longest_wait']:.2f} s, the "
        f"longest of {leaving['repetitions']} times.",
        "",
        "| clips to tokens | one after another | at once | gain |",
        "| --- | --- | --- | --- |",
    ]
    for row in report["codec"]:
        seconds = f"{row['one_after_another']:.2f} s | {row['at_once']:.2f} s | {row['gain']:.1f} times as fast"
        lines.append(f"| {row['clips']} clips, workers: {row['workers']} | {seconds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
