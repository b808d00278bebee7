"""How fast does USLM speak, how soon, in how much memory, and does a minute of speech hold together?

    python benchmarks/speaking.py --manifest ../shared/data/eval.jsonl

Speed: the manifest's texts in the voices of their speakers' other clips, one thread, CPU time of the process; median
and quartiles over texts, after one that warms up. First audio: a clock on the wall, from a text of a minute to its
first sentence. Memory: the largest resident set once ten seconds of that text are spoken, and once all are. By
position: texts of a minute, sentence by sentence and in one go; errors by quarter of the text, as Whisper hears them.

Writes results/speaking.json and a table in benchmarks/README.md. Forty minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from script import cpu_name, fail, peak_resident, publish, quartiles, timed, versions
from vocable import USLM, audio
from vocable.codec.tokens import Encoded
from vocable.corpus.manifest import Utterance, read_manifest, spread
from vocable.evaluation.metrics import Judges
from vocable.evaluation.metrics.words import normalizer, recogniser
from vocable.evaluation.pairs import pair_with_prompts
from vocable.evaluation.tts import load
from vocable.lm.model import digest

TAKES = (1, 4, 8)
MINUTE = 150  #: words, about
IN_ONE_GO = "in one go"
WAYS = ("sentence by sentence", IN_ONE_GO)
QUARTERS = 4
HERE = Path(__file__).parent
MARK = "speaking: written by benchmarks/speaking.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--corpus", default="librispeech-test-clean", help="only the clips of this corpus")
    parser.add_argument("--system", help="FOLDER or FOLDER@CODEC of language models (default: those shipped)")
    parser.add_argument("--texts", type=int, default=12, help="that speed is measured on")
    parser.add_argument("--minutes", type=int, default=6, help="texts of a minute that positions are judged on")
    parser.add_argument("--models", type=Path, default=Judges.folder, help="holds asr/whisper-tiny.en; else the hub's")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speaking.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        report = run(args)
    except (ValueError, OSError) as error:
        fail(str(error))
    publish(report, args.out, HERE / "README.md", MARK, table(report))


def run(args: argparse.Namespace) -> dict[str, Any]:
    clips = [u for u in read_manifest(args.manifest) if u.text and args.corpus in (None, u.corpus)]
    uslm = load(args.system) if args.system else USLM.from_pretrained()
    pairs = spread(pair_with_prompts(clips, clips, seed=0)[0], max(args.texts, args.minutes))
    spoken = [(pair.source.text or "", voice_of(uslm, pair.reference)) for pair in pairs]
    console = Console(stderr=True)
    minutes = [(text, voice) for text, (_, voice) in zip(long_texts(clips, args.minutes), spoken, strict=False)]
    report: dict[str, Any] = {
        "system": f"{digest(uslm.models)} on {uslm.codec.id}",
        "first_audio": quartiles(np.array([first_audio(uslm, *one) for one in minutes])),
        "memory_mib": memory(uslm, *minutes[0]),
        "speed": {},
        "positions": {},
        "cpu": cpu_name(),
        "versions": versions("torch", "numpy", "faster-whisper"),
    }
    for takes in TAKES:
        speeds = [speed(uslm, *one, takes) for one in track(spoken[: args.texts], f"{takes} takes", console=console)]
        report["speed"][takes] = quartiles(np.array(speeds[1:]))
    hear = recogniser(Judges(args.models, "tiny.en"))
    for way in WAYS:
        counts = np.zeros((QUARTERS, 2))
        seconds = warned = 0.0
        for text, voice in track(minutes, way, console=console):
            if way == IN_ONE_GO:
                speech = uslm.generate(text.replace(". ", ", "), voice, longest=len(text))
            else:
                speech = uslm.generate(text, voice)
            counts += errors(text, hear(at_16_khz(speech.waveform, speech.sample_rate), "en"))
            seconds += len(speech.waveform) / speech.sample_rate
            warned += bool(speech.warnings)
        rates = (counts[:, 0] / counts[:, 1]).tolist()
        report["positions"][way] = {"wer": rates, "seconds": seconds / len(minutes), "warned": warned}
    return report


def voice_of(uslm: USLM, clip: Utterance) -> Encoded:
    waveform, rate = audio.read(clip.path)
    return uslm.prepare_voice(waveform, sample_rate=rate)


def long_texts(clips: Sequence[Utterance], count: int) -> list[str]:
    """So many texts of about a minute, each of clips that follow each other in the manifest."""
    texts: list[str] = []
    parts: list[str] = []
    for clip in clips:
        parts.append(str(clip.text).rstrip(".") + ".")
        if sum(len(part.split()) for part in parts) >= MINUTE:
            texts.append(" ".join(parts))
            parts = []
        if len(texts) == count:
            return texts
    raise ValueError(f"the manifest's texts make {len(texts)} of {MINUTE} words, not {count}")


def speed(uslm: USLM, text: str, voice: Encoded, takes: int) -> float:
    """Seconds of speech in a second of the process."""
    speech, seconds = timed(lambda: uslm.generate(text, voice, takes=takes))
    return len(speech.waveform) / speech.sample_rate / seconds


def first_audio(uslm: USLM, text: str, voice: Encoded) -> float:
    begin = time.perf_counter()
    next(uslm.stream(text, voice))
    return time.perf_counter() - begin


def memory(uslm: USLM, text: str, voice: Encoded) -> dict[str, float]:
    spoken, early = 0.0, 0.0
    for part in uslm.stream(text, voice):
        spoken += len(part.waveform) / part.sample_rate
        if spoken >= 10.0 and not early:
            early = peak_resident()
    return {"after_10_s": early, "after_all": peak_resident(), "seconds": spoken}


def errors(text: str, heard: str) -> np.ndarray:
    """Errors and words in each quarter of a text: float64 [QUARTERS, 2]. What was added counts where it stands."""
    said, heard = (normalizer("en")(one).strip() for one in (text, heard))
    words = len(said.split())
    counts = np.zeros((QUARTERS, 2))
    for place in range(words):
        counts[place * QUARTERS // words, 1] += 1
    for chunk in jiwer.process_words(said, heard or "-").alignments[0]:
        if chunk.type == "equal":
            continue
        places = range(chunk.ref_start_idx, chunk.ref_end_idx) or [chunk.ref_start_idx] * (
            chunk.hyp_end_idx - chunk.hyp_start_idx
        )
        for place in places:
            counts[min(place, words - 1) * QUARTERS // words, 0] += 1
    return counts


def at_16_khz(waveform: torch.Tensor, sample_rate: int) -> np.ndarray:
    return audio.resample(waveform.numpy(), sample_rate, 16_000)


def table(report: dict[str, Any]) -> str:
    memory, first = report["memory_mib"], report["first_audio"]
    lines = [
        f"`{report['system']}`, one thread of {report['cpu']}.",
        "",
        "| takes a sentence | x real time (quartiles) |",
        "|---|---|",
    ]
    for takes, row in report["speed"].items():
        lines.append(f"| {takes} | {row['median']:.2f} ({row['quartile_1']:.2f} to {row['quartile_3']:.2f}) |")
    lines += [
        "",
        f"First sentence of a text of a minute: after {first['median']:.1f} s ({first['quartile_1']:.1f} to "
        f"{first['quartile_3']:.1f}). Largest resident set: {memory['after_10_s']:.0f} MiB when 10 s were spoken, "
        f"{memory['after_all']:.0f} MiB after {memory['seconds']:.0f} s.",
        "",
        "| a minute | WER by quarter of the text, % | seconds | with warnings |",
        "|---|---|---|---|",
    ]
    for way, row in report["positions"].items():
        rates = ", ".join(f"{100 * rate:.0f}" for rate in row["wer"])
        lines.append(f"| {way} | {rates} | {row['seconds']:.0f} | {row['warned']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
