"""Are the times of words right, and what does a rate of speaking do to the words?

    python benchmarks/timings.py --manifest ../shared/data/eval.jsonl

Speaks the first words of the manifest's texts in the voices of their speakers' other clips. Times: the start and the
end of each word beside two references. One is a forced alignment by hama (forced.py). The other is Whisper, for the
words that it recognizes as they are written; its times come from its attention, so they have errors of their own.
Rates: the durations, and the word error rate of the first `--rated` texts at each rate.

Writes results/timings.json and a table in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from forced import Aligner
from script import cpu_name, fail, publish, quartiles, versions
from speaking import at_16_khz, voice_of
from vocable import USLM
from vocable.corpus.manifest import read_manifest, spread
from vocable.evaluation.metrics import Judges
from vocable.evaluation.metrics.words import normalizer, recogniser
from vocable.evaluation.pairs import pair_with_prompts
from vocable.lm.generated import GeneratedSpeech, Word
from vocable.lm.model import digest

RATES = (0.8, 1.0, 1.25)
WANTED = 0.06  #: seconds; the median difference of a boundary should not be more
PARTS = ("start", "end", "boundary")
HERE = Path(__file__).parent
MARK = "timings: written by benchmarks/timings.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"))
    parser.add_argument("--corpus", default="librispeech-test-clean", help="only the clips of this corpus")
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--rated", type=int, default=8, help="texts that are spoken at every rate")
    parser.add_argument("--words", type=int, default=14, help="of each text")
    parser.add_argument("--takes", type=int, default=8)
    parser.add_argument("--models", type=Path, default=Judges.folder, help="holds asr/whisper-tiny.en; else the hub's")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "timings.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        report = run(args)
    except (ValueError, OSError) as error:
        fail(str(error))
    publish(report, args.out, HERE / "README.md", MARK, table(report))


def run(args: argparse.Namespace) -> dict[str, Any]:
    clips = [u for u in read_manifest(args.manifest) if u.text and args.corpus in (None, u.corpus)]
    pairs = spread(pair_with_prompts(clips, clips, seed=0)[0], args.texts)
    uslm, hear, console = USLM.from_pretrained(), recogniser(Judges(args.models, "tiny.en")), Console(stderr=True)
    aligner = Aligner()
    by_hama: list[tuple[float, float]] = []
    by_whisper: list[tuple[float, float]] = []
    spoken = 0
    seconds: dict[float, float] = dict.fromkeys(RATES, 0.0)
    errors = {rate: np.zeros(2) for rate in RATES}
    for number, pair in enumerate(track(pairs, "texts", console=console)):
        text = " ".join(str(pair.source.text).split()[: args.words])
        voice = voice_of(uslm, pair.reference)
        for rate in RATES if number < args.rated else (1.0,):
            speech = uslm.generate(text, voice, takes=args.takes, rate=rate)
            waveform = at_16_khz(speech.waveform, speech.sample_rate)
            if number < args.rated:
                seconds[rate] += len(waveform) / 16_000
                errors[rate] += word_errors(text, hear(waveform, "en"))
            if rate == 1.0:
                words = words_of(speech)
                times = aligner.word_times(waveform, [word.text for word in words])
                by_hama += [
                    (word.start - start, word.end - end) for word, (start, end) in zip(words, times, strict=True)
                ]
                by_whisper += boundaries(words, hear.timed_words(waveform, "en"))
                spoken += len(text.split())
    return {
        "system": f"{digest(uslm.models)} on {uslm.codec.id}",
        "texts": len(pairs),
        "takes": args.takes,
        "words": spoken,
        "references": {"hama": summary(by_hama), "Whisper": summary(by_whisper)},
        "rated": args.rated,
        "rates": {
            rate: {"duration": seconds[rate] / seconds[1.0], "wer": errors[rate][0] / errors[rate][1]} for rate in RATES
        },
        "cpu": cpu_name(),
        "versions": versions("torch", "numpy", "faster-whisper", "hama"),
    }


def words_of(speech: GeneratedSpeech) -> tuple[Word, ...]:
    if speech.words is None:
        raise ValueError("these models give no times of words")
    return speech.words


def boundaries(words: Sequence[Word], heard: Sequence[Any]) -> list[tuple[float, float]]:
    """Return the differences of starts and of ends, in seconds, of the words that were heard as written.

    heard: words with times.
    """
    normalize = normalizer("en")
    written, recognized = ([normalize(word.text) for word in several] for several in (words, heard))
    matcher = SequenceMatcher(None, written, recognized, autojunk=False)
    matched = [(i + k, j + k) for i, j, size in matcher.get_matching_blocks() for k in range(size)]
    return [(words[i].start - heard[j].start, words[i].end - heard[j].end) for i, j in matched]


def summary(differences: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Summarize the differences of starts and ends in seconds: their sizes, and the medians with their signs."""
    starts, ends = np.abs(differences).T
    return {
        "compared": len(differences),
        "start": quartiles(starts),
        "end": quartiles(ends),
        "boundary": quartiles(np.concatenate([starts, ends])),
        "bias": np.median(differences, 0).tolist(),
    }


def word_errors(text: str, heard: str) -> np.ndarray:
    """Return the number of word errors and of words."""
    normalize = normalizer("en")
    found = jiwer.process_words(normalize(text), normalize(heard))
    return np.array([found.substitutions + found.deletions + found.insertions, len(found.references[0])])


def table(report: dict[str, Any]) -> str:
    lines = [
        f"`{report['system']}`, {report['texts']} texts of {report['words']} words, {report['takes']} takes. Wanted: a "
        f"median of {WANTED * 1000:.0f} ms.",
        "",
        "| beside | words compared | start, ms: median (quartiles) | end | both | start, median with its sign | end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in report["references"].items():
        sizes = [[found[part][key] * 1000 for key in ("median", "quartile_1", "quartile_3")] for part in PARTS]
        cells = [f"{median:.0f} ({low:.0f} to {high:.0f})" for median, low, high in sizes]
        cells += [f"{1000 * seconds:+.0f}" for seconds in found["bias"]]
        lines.append(f"| {name} | {found['compared']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| rate, {report['rated']} texts | duration, beside rate 1 | WER, % |",
        "|---|---|---|",
    ]
    for rate, found in report["rates"].items():
        lines.append(f"| {rate:g} | {found['duration']:.2f} | {100 * found['wer']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
