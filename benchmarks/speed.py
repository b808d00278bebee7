"""How fast is the codec on one CPU thread, beside EnCodec of the same bitrate class?

    python benchmarks/speed.py --manifest ../shared/data/eval.jsonl

Each run takes the next 10 s of real speech and times, in turn, encode and decode of vocable and of transformers'
EnCodec 24 kHz at 6 kbps: 8 codebooks, as here. The measure is the CPU time of the process: other work on the machine
disturbs it less than it does a clock on the wall. EnCodec's weights are random: its speed does not depend on them, and
nothing needs downloading. Both are called as a user calls them, checks and all; EnCodec's input is resampled outside
the timing.

RTF is CPU time over audio time, encode and decode together; the ratio is how many times as fast as EnCodec encode and
decode are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from script import cpu_name, fail, quartiles, timed, versions
from vocable import SpeechTokenizer, audio
from vocable.corpus.manifest import read_manifest
from vocable.files import atomic_path

SECONDS = 10
WARM_UP = 2
#: What the project promises of encode and of decode, in x real time.
TARGET = 50.0
#: kbps; with 8 codebooks of 10 bits at 75 Hz.
ENCODEC_BANDWIDTH = 6.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--model", help="a folder or a hub id; without it, the embedded model")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    args = parser.parse_args()
    if importlib.util.find_spec("transformers") is None:
        fail("EnCodec is missing: pip install transformers")
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)

    try:
        tok = SpeechTokenizer.from_pretrained(args.model)
        clips = speech(args.manifest, args.runs, tok.sample_rate)
    except ValueError as error:  # a model, a manifest or a recording that cannot be used
        fail(str(error))
    name = "EnCodec 6 kbps"
    times = measure(tok, encodec(), clips, ours=tok.id, theirs=name)
    systems: dict[str, dict[str, Any]] = {
        system: {part: speeds(runs) for part, runs in parts.items()} for system, parts in times.items()
    }
    for system, parts in times.items():
        systems[system]["rtf"] = float(np.median(np.add(parts["encode"], parts["decode"])) / SECONDS)
    ratio = {part: systems[tok.id][part]["median"] / systems[name][part]["median"] for part in ("encode", "decode")}
    reached = min(systems[tok.id][part]["median"] for part in ("encode", "decode")) >= TARGET

    show(systems, ratio, tok.id, cpu_name())
    print(f"target, encode and decode each >= {TARGET:.0f} x real time: {'reached' if reached else 'NOT reached'}")
    report = {
        "codec": tok.id,
        "systems": systems,
        "ratio": ratio,
        "target": {"x_real_time": TARGET, "reached": reached},
        "settings": {"seconds": SECONDS, "runs": args.runs, "warm_up": WARM_UP, "threads": torch.get_num_threads()},
        "cpu": cpu_name(),
        "versions": versions("torch", "transformers", "numpy"),
    }
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


def speech(manifest: Path, count: int, sample_rate: int) -> list[np.ndarray]:
    """`count` waveforms of exactly SECONDS: the manifest's recordings one after another, cut into equal parts."""
    length = SECONDS * sample_rate
    held = np.zeros(0, np.float32)
    for utterance in read_manifest(manifest):
        held = np.concatenate([held, audio.read(utterance.path, sample_rate)[0]])
        if len(held) >= count * length:
            return list(held[: count * length].reshape(count, length))
    raise ValueError(f"{manifest}: holds {len(held) / sample_rate:.0f} s of speech, {count * SECONDS} s are needed")


def encodec() -> torch.nn.Module:
    """transformers' EnCodec with its default config (24 kHz) and random weights."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig()).eval()
    for layer in model.quantizer.layers:
        # Fresh codebooks are all zero, so that the decoder would be given silence: give it something to do.
        layer.codebook.embed.normal_()
    return model


@torch.no_grad()
def measure(
    tok: SpeechTokenizer, peer: torch.nn.Module, clips: list[np.ndarray], ours: str, theirs: str
) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of each run, by system and part. The systems take turns, so that a slow minute slows both."""
    times: dict[str, dict[str, list[float]]] = {name: {"encode": [], "decode": []} for name in (ours, theirs)}
    peer_rate = peer.config.sampling_rate
    warm_up = clips[:1] * WARM_UP
    for i, clip in enumerate(track(warm_up + clips, "timing", console=Console(stderr=True))):
        peer_clip = torch.from_numpy(audio.resample(clip, tok.sample_rate, peer_rate))[None, None]
        codes, our_encode = timed(lambda clip=clip: tok.encode(clip))
        peer_codes, their_encode = timed(lambda x=peer_clip: peer.encode(x, bandwidth=ENCODEC_BANDWIDTH))
        decoded, our_decode = timed(lambda codes=codes: tok.decode(codes))
        peer_decoded, their_decode = timed(lambda c=peer_codes: peer.decode(c.audio_codes, c.audio_scales))
        # A wrong shape would make a wrong time: all codebooks in, all of the speech out.
        assert codes.codes.shape[1] == tok.num_quantizers and decoded.waveform.shape[1] == len(clip)
        assert peer_codes.audio_codes.shape[2] == 8 and peer_decoded.audio_values.shape[-1] >= peer_clip.shape[-1]
        if i >= len(warm_up):
            for name, encode, decode in ((ours, our_encode, our_decode), (theirs, their_encode, their_decode)):
                times[name]["encode"].append(encode)
                times[name]["decode"].append(decode)
    return times


def speeds(runs: list[float]) -> dict[str, float]:
    """Median and quartiles of x real time."""
    return quartiles(SECONDS / np.array(runs))


def show(systems: dict[str, dict[str, Any]], ratio: dict[str, float], ours: str, cpu: str) -> None:
    """The table: medians, with quartiles in brackets."""
    table = Table(title=f"x real time on one thread ({cpu}), median (quartiles)")
    for column in ("system", "encode x RT", "decode x RT", "RTF", "ratio"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, parts in systems.items():
        cells = ["{median:.1f} ({quartile_1:.1f}-{quartile_3:.1f})".format(**parts[p]) for p in ("encode", "decode")]
        times_as_fast = f"{ratio['encode']:.1f} / {ratio['decode']:.1f}" if name == ours else "1 / 1"
        table.add_row(name, *cells, f"{parts['rtf']:.4f}", times_as_fast)
    Console().print(table)


if __name__ == "__main__":
    main()
