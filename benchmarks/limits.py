"""What forbids the codec to be faster? Operations and bytes of every stage, and how far it is from the floor they give.

    python benchmarks/limits.py

Rates are measured first, on one thread: products of large float32 matrices, and reading memory that no cache holds. A
stage's floor is its operations at the first rate or its bytes at the second, whichever takes longer. Bytes are weights
once a call, recurrent weights once a frame (they do not stay in the caches beside the rest), and what goes in and out.
Random weights of the full size; times are CPU time, median of several runs, of noise of 10 s, batch 1 and 8.

Writes `limits.md` and `results/limits.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from script import cpu_name, timed, versions
from vocable import SpeechTokenizer
from vocable.codec.config import PRESETS
from vocable.codec.layers import LSTM
from vocable.codec.rvq import ResidualVectorQuantizer
from vocable.codec.spectral import STFT
from vocable.files import atomic_path

SECONDS = 10
BATCHES = (1, 8)
STAGES = {  #: what is timed together: a name, and the modules whose names begin with one of these
    "fast": {
        "encoder STFT and embedding": ("encoder.stft", "encoder.embed"),
        "encoder blocks, 100 Hz": ("encoder.fine", "encoder.down"),
        "encoder blocks, 50 Hz": ("encoder.frame",),
        "encoder recurrence": ("encoder.lstm",),
        "quantizer": ("quantizer", "encoder.project"),
        "decoder recurrence": ("decoder.lstm", "decoder.embed"),
        "decoder blocks, 50 Hz": ("decoder.frame", "decoder.up"),
        "decoder blocks, 100 Hz": ("decoder.fine",),
        "decoder head and inverse STFT": ("decoder.head", "decoder.stft", "decoder.norm"),
    },
    "paper": {
        "encoder, first convolution": ("encoder.first",),
        **{f"encoder, stride {s}": (f"encoder.stages.{i}",) for i, s in enumerate((2, 4, 5, 8))},
        "encoder recurrence": ("encoder.recurrence",),
        "encoder, last convolution": ("encoder.last",),
        "quantizer": ("quantizer",),
        "decoder, first convolution": ("decoder.first",),
        "decoder recurrence": ("decoder.recurrence",),
        **{f"decoder, stride {s}": (f"decoder.stages.{i}",) for i, s in enumerate((8, 5, 4, 2))},
        "decoder, last convolution": ("decoder.last",),
    },
}


@dataclass
class Work:
    """Of one stage, for one second of audio."""

    operations: float = 0.0  #: a product and a sum are two
    bytes: float = 0.0
    seconds: float = 0.0  #: of CPU time, measured

    def floor(self, rates: dict[str, float]) -> float:
        return max(self.operations / rates["operations"], self.bytes / rates["bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--models", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--page", type=Path, default=Path(__file__).parent / "limits.md")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "limits.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure_rates()
    report: dict[str, Any] = {
        "rates": rates,
        "cpu": cpu_name(),
        "settings": {"seconds": SECONDS, "runs": args.runs, "threads": 1},
        "versions": versions("torch", "numpy"),
        "models": {},
    }
    for name in args.models:
        torch.manual_seed(0)
        config = PRESETS[name]
        if config.seanet:  # weight norm is folded when a model is loaded to be used
            config = dataclasses.replace(config, seanet=dataclasses.replace(config.seanet, weight_norm=False))
        codec = SpeechTokenizer(config).eval()
        report["models"][name] = {}
        for batch in BATCHES:
            work = measure(codec, STAGES[name], batch, args.runs, f"{name}, batch {batch}")
            report["models"][name][str(batch)] = {
                stage: vars(w) | {"floor": w.floor(rates)} for stage, w in work.items()
            }
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    with atomic_path(args.page) as temporary:
        temporary.write_text(page(report), encoding="utf-8")
    print(page(report))


def measure_rates() -> dict[str, float]:
    """Operations and bytes a second that one thread reaches: the best of several."""
    a, b = torch.randn(2, 1536, 1536).unbind()
    big = torch.randn(2**27)  # 512 MiB
    with torch.inference_mode():
        product = min(timed(lambda: a @ b)[1] for _ in range(7))
        read = min(timed(big.sum)[1] for _ in range(5))
    return {"operations": 2 * 1536**3 / product, "bytes": 4 * big.numel() / read}


@torch.inference_mode()
def measure(
    codec: SpeechTokenizer, stages: dict[str, tuple[str, ...]], batch: int, runs: int, name: str
) -> dict[str, Work]:
    """What each stage does, counted once, and the median of its time, for each second of audio."""
    speech = 0.1 * torch.randn(batch, SECONDS * codec.sample_rate, generator=torch.Generator().manual_seed(0))
    stage_of = {
        module: stage
        for path, module in codec.named_modules()
        for stage, beginnings in stages.items()
        if any(path == b or path.startswith(f"{b}.") for b in beginnings)
    }
    work = {stage: Work() for stage in stages}
    with counted(stage_of, work):
        codec.decode(codec.encode(speech))
    audio_seconds = batch * SECONDS
    for w in work.values():
        w.operations /= audio_seconds
        w.bytes /= audio_seconds
    times: dict[str, list[float]] = defaultdict(list)
    for run in track(range(runs + 1), name, console=Console(stderr=True)):
        with clocked(stage_of) as spent:
            codec.decode(codec.encode(speech))
        if run:  # the first warms up
            for stage in stages:
                times[stage].append(spent[stage] / audio_seconds)
    for stage, w in work.items():
        w.seconds = float(np.median(times[stage]))
    return work


@contextmanager
def counted(stage_of: dict[nn.Module, str], work: dict[str, Work]) -> Iterator[None]:
    """Adds up what leaves of the stages do."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, LSTM, STFT)
    handles = [
        module.register_forward_hook(_counter(work[stage]))
        for module, stage in stage_of.items()
        if isinstance(module, kinds)
    ]
    # These two are no modules' own calls.
    search, inverse = ResidualVectorQuantizer.encode, STFT.inverse

    def searched(self: ResidualVectorQuantizer, latents: Tensor, last: int) -> Tensor:
        w, books = work["quantizer"], self.codebooks[:last]
        w.operations += 2 * books.numel() * latents.shape[0] * latents.shape[1]
        w.bytes += 4 * (books.numel() + 2 * last * latents.numel())
        return search(self, latents, last)

    def inverted(self: STFT, real: Tensor, imag: Tensor, mask: Tensor | None) -> Tensor:
        w = work[stage_of[self]]
        w.operations += 2 * self.synthesis.numel() * real.shape[0] * real.shape[1]
        w.bytes += 4 * (self.synthesis.numel() + 3 * real.numel())
        return inverse(self, real, imag, mask)

    ResidualVectorQuantizer.encode, STFT.inverse = searched, inverted  # type: ignore[method-assign]
    try:
        yield
    finally:
        ResidualVectorQuantizer.encode, STFT.inverse = search, inverse  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()


def _counter(work: Work) -> Callable[[nn.Module, Any, Any], None]:
    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        x, outputs = inputs[0], output if isinstance(output, tuple) else (output,)
        y, moved = outputs[0], x.numel() + sum(o.numel() for o in outputs)
        if isinstance(module, LSTM):
            given, carried = module.weight_ih_l0.numel(), module.weight_hh_l0.numel()
            work.operations += 2 * (given + carried) * x.shape[0] * x.shape[1]
            work.bytes += 4 * (given + carried * x.shape[1] + moved)  # one reading serves the whole batch
            return
        weights: Tensor = module.analysis if isinstance(module, STFT) else module.weight  # type: ignore[assignment]
        if isinstance(module, nn.Conv2d):  # depthwise, over an image [B, C, 1, L]
            places = y.shape[0] * y.shape[3]
        else:  # [B, L, C]: a transposed convolution works on each input, all others for each output
            over = x if isinstance(module, nn.ConvTranspose1d) else y
            places = over.shape[0] * over.shape[1]
        work.operations += 2 * weights.numel() * places
        work.bytes += 4 * (weights.numel() + moved)

    return count


@contextmanager
def clocked(stage_of: dict[nn.Module, str]) -> Iterator[dict[str, float]]:
    """CPU seconds by stage: of the outermost modules of each, and of the two methods that are no modules' own calls."""
    spent: dict[str, float] = defaultdict(float)
    depth = [0]
    begun = [0.0]

    def enter(module: nn.Module, inputs: Any) -> None:
        if depth[0] == 0:
            begun[0] = time.process_time()
        depth[0] += 1

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        depth[0] -= 1
        if depth[0] == 0:
            spent[stage_of[module]] += time.process_time() - begun[0]

    handles = []
    for module in stage_of:
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    search, inverse = ResidualVectorQuantizer.encode, STFT.inverse

    def searched(self: ResidualVectorQuantizer, *args: Any) -> Tensor:
        result, seconds = timed(lambda: search(self, *args))
        spent["quantizer"] += seconds
        return result

    def inverted(self: STFT, *args: Any) -> Tensor:
        result, seconds = timed(lambda: inverse(self, *args))
        spent[stage_of[self]] += seconds
        return result

    ResidualVectorQuantizer.encode, STFT.inverse = searched, inverted  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        ResidualVectorQuantizer.encode, STFT.inverse = search, inverse  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()


def page(report: dict[str, Any]) -> str:
    rates = report["rates"]
    lines = [
        "# Limits",
        "",
        "Written by `benchmarks/limits.py`; its docstring says how. One thread of "
        f"{report['cpu']}: {rates['operations'] / 1e9:.0f} GFLOP/s in products of float32 matrices, "
        f"{rates['bytes'] / 1e9:.1f} GB/s from memory.",
        "",
        "For each second of audio. The floor is what these rates allow; the last column says how many floors a stage",
        "takes, less than one where recurrent weights do stay in a cache.",
    ]
    for model, batches in report["models"].items():
        for batch, stages in batches.items():
            lines += [
                "",
                f"## `{model}`, batch {batch}",
                "",
                "| stage | GFLOP | GB | floor, ms | measured, ms | floors |",
                "|---|---|---|---|---|---|",
            ]
            total = {key: sum(s[key] for s in stages.values()) for key in ("operations", "bytes", "floor", "seconds")}
            for stage, s in [*sorted(stages.items(), key=lambda item: -item[1]["seconds"]), ("**all**", total)]:
                cells = [f"{s['operations'] / 1e9:.3f}", f"{s['bytes'] / 1e9:.3f}", f"{1e3 * s['floor']:.2f}"]
                cells += [f"{1e3 * s['seconds']:.2f}", f"{s['seconds'] / max(s['floor'], 1e-12):.1f}"]
                lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
