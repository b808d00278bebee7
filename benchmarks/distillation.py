"""What does distillation do to RVQ-1? A distilled codec against its undistilled twin, on speakers new to both.

    python benchmarks/distillation.py TWIN_A TWIN_B

TWIN_A is the distilled model. Three figures for each twin, from its first code of each frame alone:

teacher cosine   how well the teacher's features follow from the codebook vector of RVQ-1 by a linear map: their cosine
                 over time, averaged over dimensions and clips. The map is fitted for both twins (ridge regression),
                 because the undistilled twin's own was never trained. The teacher is the encoder of Whisper base.
phone accuracy   how often a linear classifier (multinomial logistic regression) reads the phone from that vector. The
                 phones are what `hama`, a phone recogniser with CTC, hears in the original speech: its greedy symbol at
                 the frames where it emits one. No forced alignment, and no text, is involved.
WER              of the speech decoded from RVQ-1 alone, by Whisper tiny.en, with Whisper's English normalizer.

Teacher and judge of the WER are both Whispers; hama is no kin of either, and A was not trained towards it.

Both maps are fitted on training and validation clips. The 95 % intervals of the paired differences A - B come from
resampling speakers with all their clips.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from phones import DECAY, PHONE_LAG, RVQ1, PhoneReader, PhoneRecogniser
from script import RESAMPLES, fail, speaker_interval, spread, versions
from vocable import SpeechTokenizer, audio
from vocable.corpus.manifest import Utterance, groups_by_duration, read_manifest
from vocable.files import atomic_path
from vocable.semantic.distillation import d_axis_cosine
from vocable.semantic.teacher import SAMPLE_RATE, Teacher

TEACHER, TEACHER_LAYER = "teacher/whisper-base-encoder", 6
ASR = "asr/whisper-tiny.en"
#: What this needs beyond vocable's core: modules, and what pip calls them.
TOOLS = {
    "transformers": "transformers",
    "hama": "hama",
    "faster_whisper": "faster-whisper",
    "whisper_normalizer": "whisper-normalizer",
    "jiwer": "jiwer",
}
#: Weight of the ridge, as a share of the mean variance of the codebook vectors.
RIDGE = 1e-3


def main() -> None:
    args = arguments()
    missing = [package for module, package in TOOLS.items() if importlib.util.find_spec(module) is None]
    if missing:
        fail(f"missing tools: pip install {' '.join(missing)}")
    for model in (TEACHER, ASR):
        if not (args.models / model).is_dir():
            fail(f"missing model: {args.models / model}; --models names the folder that holds {TEACHER} and {ASR}")
    try:
        run(args)
    except ValueError as error:  # a model, a manifest or a recording that cannot be used
        fail(str(error))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("twin_a", metavar="TWIN_A", help="the distilled model's folder")
    parser.add_argument("twin_b", metavar="TWIN_B", help="its undistilled twin's")
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/eval.jsonl"), help="held-out speech")
    parser.add_argument("--corpus", default="librispeech-test-clean", help="the corpus of the held-out clips to use")
    parser.add_argument("--limit", type=int, help="use this many of them, spread evenly")
    parser.add_argument(
        "--train-manifest", type=Path, default=Path("../shared/data/dev.jsonl"), help="speech to fit on, all of it"
    )
    parser.add_argument("--fit", type=Path, default=Path("../shared/data/train.jsonl"), help="more speech to fit on")
    parser.add_argument("--fit-clips", type=int, default=300, help="clips of --fit, spread evenly")
    parser.add_argument("--models", type=Path, default=Path(".cache/models"), help="teacher and recogniser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distillation.json"))
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    codecs = {"A": SpeechTokenizer.from_pretrained(args.twin_a), "B": SpeechTokenizer.from_pretrained(args.twin_b)}
    fit = read_manifest(args.train_manifest) + spread(read_manifest(args.fit), args.fit_clips)
    held_out = spread([u for u in read_manifest(args.manifest) if u.corpus == args.corpus and u.text], args.limit)
    if not held_out:
        raise ValueError(f"{args.manifest}: no clips with text of the corpus {args.corpus!r}")
    if shared := {u.speaker for u in fit} & {u.speaker for u in held_out} - {None}:
        raise ValueError(f"speakers {', '.join(sorted(map(str, shared)))} are in the fit and held out")

    listener = Listener(args.models)
    twins = {
        name: Twin(tok, listener.teacher.dimension, listener.recogniser.num_phones) for name, tok in codecs.items()
    }
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("fitting", total=len(fit))
        for clip in listener.hear(fit):
            for twin in twins.values():
                twin.learn(clip)
            progress.advance(task)
        for twin in twins.values():
            twin.fit()

        cosine, phones, words = Figure(), Figure(), Figure()
        task = progress.add_task("held-out", total=len(held_out))
        word_errors = word_error_counter(args.models / ASR)
        for clip in listener.hear(held_out):
            speech = {"original": clip.waveform}
            for name, twin in twins.items():
                encoded = twin.tok.encode(clip.waveform, layers=RVQ1)
                cosine.add(name, twin.cosine(encoded.codes[0, 0], clip))
                phones.add(name, twin.reader.right(encoded.codes[0, 0], clip.frames, clip.phones))
                speech[name] = twin.tok.decode(encoded).clips()[0].numpy()
            phones.add("chance", float((clip.phones == twins["A"].reader.commonest).sum()))
            for name, waveform in speech.items():
                errors, length = word_errors(waveform, clip.utterance.text or "")
                words.add(name, errors)
            cosine.sizes.append(1)
            phones.sizes.append(len(clip.phones))
            words.sizes.append(length)
            progress.advance(task)

    # A clip whose speaker is unknown stands for itself.
    speakers = [u.speaker or u.id for u in held_out]
    figures = {
        name: figure.summary(speakers, args.seed)
        for name, figure in (("teacher_cosine", cosine), ("phone_accuracy", phones), ("wer", words))
    }
    report = {
        "codecs": {name: twin.tok.id for name, twin in twins.items()},
        "figures": figures,
        "held_out": {
            "manifest": args.manifest.name,
            "corpus": args.corpus,
            "clips": len(held_out),
            "speakers": len(set(speakers)),
            "words": sum(words.sizes),
            "phones": sum(phones.sizes),
        },
        "fit": {
            "manifests": [args.train_manifest.name, args.fit.name],
            "clips": len(fit),
            "frames": int(twins["A"].frames.sum()),
            "phones": int(twins["A"].reader.counts.sum()),
            "phone_classes": int((twins["A"].reader.counts.sum(0) > 0).sum()),
        },
        "settings": {
            "teacher": TEACHER,
            "teacher_layer": TEACHER_LAYER,
            "asr": ASR,
            "phone_lag": PHONE_LAG,
            "ridge": RIDGE,
            "decay": DECAY,
            "resamples": RESAMPLES,
            "seed": args.seed,
        },
        "versions": versions("torch", "numpy", *TOOLS.values()),
    }
    show(report)
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")


@dataclass(frozen=True)
class Clip:
    """A clip as teacher and phone recogniser hear it."""

    utterance: Utterance
    waveform: np.ndarray  #: float32 [L]
    features: Tensor  #: the teacher's, float64 [T, features]
    frames: Tensor  #: int64 [N], the frames in which a phone was heard
    phones: Tensor  #: int64 [N], which one


class Listener:
    """The teacher and the phone recogniser, over one manifest after another."""

    def __init__(self, models: Path) -> None:
        self.teacher = Teacher(str(models / TEACHER), TEACHER_LAYER)
        self.recogniser = PhoneRecogniser()

    def hear(self, utterances: Sequence[Utterance]) -> Iterator[Clip]:
        """The clips, in order."""
        # Whisper's windows of 30 s are shared by the clips of a group.
        for group in groups_by_duration(utterances, 120.0):
            waveforms = [audio.read(u.path, SAMPLE_RATE)[0] for u in group]
            for utterance, waveform, features in zip(group, waveforms, self.teacher(waveforms), strict=True):
                yield Clip(utterance, waveform, features.double(), *self.recogniser(waveform))


class Twin:
    """One codec and the best linear readings of its RVQ-1.

    The codebook has N vectors, so sums and counts by code are all that a fit needs of the speech, and what a map
    predicts is a table with a row for each code.
    """

    def __init__(self, tok: SpeechTokenizer, num_features: int, num_phones: int) -> None:
        self.tok, self.reader = tok, PhoneReader(tok, num_phones)
        size = tok.codebook_size
        self.frames = torch.zeros(size, dtype=torch.float64)  # how often each code came
        self.sums = torch.zeros(size, num_features, dtype=torch.float64)  # of the teacher's features

    def learn(self, clip: Clip) -> None:
        """Add a clip to the sums and counts."""
        codes = self.tok.encode(clip.waveform, layers=RVQ1).codes[0, 0]
        self.frames.index_add_(0, codes, torch.ones(len(codes), dtype=torch.float64))
        self.sums.index_add_(0, codes, clip.features)
        self.reader.learn(codes, clip.frames, clip.phones)

    def fit(self) -> None:
        """Fit both maps to what was learnt, and tabulate what they predict."""
        self.features_mean = self.sums.sum(0) / self.frames.sum()
        centred_sums = self.sums - self.frames[:, None] * self.features_mean
        self.features_by_code = ridge(self.reader.vectors, self.frames, centred_sums)  # [N, features]
        self.reader.fit()

    def cosine(self, codes: Tensor, clip: Clip) -> float:
        """How well the map predicts the teacher's features of a clip from its codes [T]."""
        predicted = self.features_by_code[codes]
        return float(d_axis_cosine(predicted[None], (clip.features - self.features_mean)[None]).mean())


def ridge(vectors: Tensor, counts: Tensor, sums: Tensor) -> Tensor:
    """The closed-form ridge regression of centred targets on vectors, at each vector.

    vectors: [N, D]. counts: [N], how often each one came. sums: [N, F], the targets' sum over the times it came.
    """
    inputs = vectors - counts @ vectors / counts.sum()
    gram = inputs.T @ (counts[:, None] * inputs)
    penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return inputs @ torch.linalg.solve(gram + penalty, inputs.T @ sums)


def word_error_counter(model: Path) -> Callable[[np.ndarray, str], tuple[int, int]]:
    """A function that gives the word errors of speech [L] against its text, and the number of words of the text."""
    import jiwer
    from faster_whisper import WhisperModel
    from whisper_normalizer.english import EnglishTextNormalizer

    whisper = WhisperModel(str(model), device="cpu", compute_type="float32")
    normalize = EnglishTextNormalizer()

    def count(waveform: np.ndarray, text: str) -> tuple[int, int]:
        # Temperature 0: no sampling, the same words each time. On speech that is hard to make out, Whisper can repeat
        # itself to the end of its window; forbidding repeated 4-grams keeps one such clip from outweighing the others.
        segments, _ = whisper.transcribe(
            waveform,
            language="en",
            temperature=0.0,
            no_repeat_ngram_size=4,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        words = jiwer.process_words(normalize(text), normalize(" ".join(s.text for s in segments)))
        errors = words.substitutions + words.deletions + words.insertions
        return errors, words.hits + words.substitutions + words.deletions

    return count


@dataclass
class Figure:
    """A figure that is a ratio of sums over clips, for several systems: what each counted, and out of how much."""

    sizes: list[float] = field(default_factory=list)
    counted: dict[str, list[float]] = field(default_factory=dict)

    def add(self, system: str, value: float) -> None:
        self.counted.setdefault(system, []).append(value)

    def summary(self, speakers: Sequence[str], seed: int) -> dict[str, object]:
        """The figure of each system, and A - B with its 95 % interval by resampling speakers with all their clips."""
        sizes = np.array(self.sizes, float)
        difference = np.array(self.counted["A"]) - np.array(self.counted["B"])
        return {
            **{system: float(sum(values) / sizes.sum()) for system, values in self.counted.items()},
            "difference": float(difference.sum() / sizes.sum()),
            "interval": speaker_interval(difference, sizes, speakers, seed),
        }


def show(report: dict[str, Any]) -> None:
    """The table, a row for each figure, and what to compare it with."""
    console, figures, held_out = Console(), report["figures"], report["held_out"]
    console.print(f"A: {report['codecs']['A']}\nB: {report['codecs']['B']}")
    table = Table(title=f"RVQ-1 alone, {held_out['clips']} clips of {held_out['speakers']} held-out speakers")
    for column in ("", "A", "B", "A - B", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    names = {"teacher_cosine": "teacher cosine ↑", "phone_accuracy": "phone accuracy, % ↑", "wer": "WER, % ↓"}
    for key, name in names.items():
        scale, places = (1, 3) if key == "teacher_cosine" else (100, 1)
        f = figures[key]
        low, high = (f"{scale * bound:+.{places}f}" for bound in f["interval"])
        cells = [
            f"{scale * f['A']:.{places}f}",
            f"{scale * f['B']:.{places}f}",
            f"{scale * f['difference']:+.{places}f}",
        ]
        table.add_row(name, *cells, f"{low} to {high}")
    console.print(table)
    console.print(f"the commonest phone for every frame: {100 * figures['phone_accuracy']['chance']:.1f} % right")
    console.print(f"WER of the original speech: {100 * figures['wer']['original']:.1f} %")


if __name__ == "__main__":
    main()
