"""What short trainings are compared by: the figures of `ablations.py`.

`Ablations`: phones that a linear classifier reads from RVQ-1, and the mel distance. `Trials`: these, and what else the
second codec is chosen by. Both measure one codec after another on the same clips, in any process: what does not depend
on the codec (`Known`) is found once, and lies in a file beside the results.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocable import SpeechTokenizer, audio
from vocable.conversion import swap_layers
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import statistics
from vocable.evaluation.linear import fit_speaker, softmax_regression
from vocable.evaluation.metrics import Judges, Metric, NoAnswer, Pair, load_metric, made_with
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.phones import PHONE_LAG, PhoneRecogniser
from vocable.evaluation.robustness import CHANGES, gain
from vocable.evaluation.scoring import fit_length
from vocable.evaluation.statistics import Figure
from vocable.files import atomic_path
from vocable.lm.voice import SHORTEST
from vocable.training.losses import SpectralLoss
from vocable.training.recipe import Losses

RVQ1 = slice(0, 1)
FRAME_RATE = 50  #: of the codecs that are compared
LAYERS = 8  #: that the mel distance is of
DECAY = 1e-4  #: of the phone classifier's coefficients

# Counts of clips are those that a core measures in five minutes, most of them Whisper's.
FOLDS = 4  #: of the speaker classifier, and clips of each speaker
FIT_SPEAKERS = 60  #: of training, whom the speaker classifier tells apart
SOUND_CLIPS = 3  #: of each dev speaker
WORD_CLIPS, WORD_SECONDS = 40, 15.0  #: of dev with text: how many, none of them longer
FEWER_WORD_CLIPS = 10  #: of these, that are heard at :8 and converted too
CHANGED_CLIPS = 1  #: of each dev speaker
BAD = {  #: what happens to recordings: how a table names it, and the change
    "-20 dB": gain(-20),
    "+10 dB": gain(10),
    "noise 20 dB": CHANGES["noise 20 dB"],
    "room 0.5 s": CHANGES["reverberation 0.5 s"],
    "8 kHz": CHANGES["8 kHz"],
}

Progress = Callable[[Iterable[Any], str], Iterable[Any]]  #: items and what is done to them -> the items
Scores = list[Sequence[float] | None]  #: (sum, count) for each clip; None where a metric has no answer


@dataclass
class Known:
    """What is known of recordings before any codec is, by clip, and the file that it is kept in."""

    path: Path
    phones: dict[str, list[list[int]]]  #: frames [N] at 50 Hz in which phones are heard, and which
    voices: dict[str, list[float]]  #: Resemblyzer's embeddings
    words: dict[str, Sequence[float]]  #: word errors and words of what Whisper hears in the recording

    @classmethod
    def read(cls, path: Path) -> Known:
        known = json.loads(path.read_text()) if path.exists() else {"phones": {}, "voices": {}, "words": {}}
        return cls(path, **known)

    def write(self) -> None:
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps({"phones": self.phones, "voices": self.voices, "words": self.words}))

    def hear_phones(self, clips: Iterable[Utterance], progress: Progress) -> None:
        if missing := [clip for clip in clips if clip.id not in self.phones]:
            recognise = PhoneRecogniser()
            try:
                for clip in progress(missing, "hearing phones"):
                    waveform = read(clip)
                    heard = recognise(waveform)
                    frames = heard.frames(FRAME_RATE, -(-len(waveform) * FRAME_RATE // SAMPLE_RATE))
                    self.phones[clip.id] = [frames.tolist(), heard.phones.tolist()]
            finally:  # minutes of work: what is heard so far is kept
                self.write()

    def phones_of(self, clip: Utterance) -> tuple[Tensor, Tensor]:
        """int64 [N] each: frames, and the phones that are heard in them."""
        frames, phones = (torch.tensor(values, dtype=torch.int64) for values in self.phones[clip.id])
        return frames, phones


def read(clip: Utterance) -> np.ndarray:
    """float32 [L] at 16 kHz."""
    return audio.read(clip.path, SAMPLE_RATE)[0]


# ---- phones ----------------------------------------------------------------------------------------------------------


class PhoneReader:
    """The best linear reading of phones from one codec's RVQ-1.

    The codebook has N vectors, so counts by code are all that the fit needs of the speech, and what the classifier
    reads is a table with a row for each code.
    """

    def __init__(self, tok: SpeechTokenizer, num_phones: int) -> None:
        if (tok.sample_rate, tok.frame_rate) != (SAMPLE_RATE, FRAME_RATE):
            raise ValueError(f"{tok.id}: phones need {FRAME_RATE} frames a second of {SAMPLE_RATE} Hz")
        self.vectors = tok.embed(torch.arange(tok.codebook_sizes[0])[None, None], layers=RVQ1)[0].T.double()  # [N, D]
        #: How often each phone came with each code.
        self.counts = torch.zeros(tok.codebook_sizes[0], num_phones, dtype=torch.float64)

    def learn(self, codes: Tensor, frames: Tensor, phones: Tensor) -> None:
        """Add a clip to the counts. codes: RVQ-1's [T]; frames, phones: the recogniser's."""
        self.counts.index_put_((codes[frames], phones), torch.ones(1, dtype=torch.float64), accumulate=True)

    def fit(self) -> None:
        weight = softmax_regression(self.vectors, self.counts, decay=DECAY)
        self.phone_by_code = (self.vectors @ weight[:-1] + weight[-1]).argmax(1)  # [N]
        #: The same phone for every frame, the most common one of the fit, is what knowing nothing earns.
        self.commonest = self.counts.sum(0).argmax()

    def right(self, codes: Tensor, frames: Tensor, phones: Tensor) -> float:
        """How many phones of a clip the classifier reads from its codes [T]."""
        return float((self.phone_by_code[codes[frames]] == phones).sum())


def num_phones(known: Known) -> int:
    return 1 + max(max(phones, default=0) for _, phones in known.phones.values())


# ---- ablations -------------------------------------------------------------------------------------------------------


@dataclass
class Ablations:
    """Phone accuracy and mel distance, on all dev clips."""

    fit: list[Utterance]  #: training clips that the phone classifier is fitted on
    dev: list[Utterance]
    known: Known

    packages = ("torch", "numpy", "hama")

    def setup(self) -> dict[str, Any]:
        return {
            "fit": [u.id for u in self.fit],
            "dev": [u.id for u in self.dev],
            "settings": {"phone_lag": PHONE_LAG, "decay": DECAY, "layers": LAYERS},
        }

    def prepare(self, progress: Progress) -> None:
        self.known.hear_phones([*self.fit, *self.dev], progress)

    def measure(self, tok: SpeechTokenizer) -> dict[str, Any]:
        """Phones that are read right from RVQ-1, phones in all, and the mel distance, a number for each dev clip."""
        reader = PhoneReader(tok, num_phones(self.known))
        for clip in self.fit:
            reader.learn(tok.encode(read(clip), layers=RVQ1).codes[0, 0], *self.known.phones_of(clip))
        reader.fit()
        distance = SpectralLoss(SAMPLE_RATE, Losses().resolutions)
        counts: dict[str, list[float]] = {"right": [], "commonest": [], "phones": [], "mel": []}
        layers = min(LAYERS, tok.num_quantizers)
        for clip in self.dev:
            waveform, (frames, phones) = read(clip), self.known.phones_of(clip)
            encoded = tok.encode(waveform, layers=slice(0, layers))
            decoded = tok.decode(encoded).clips()[0]
            counts["right"].append(reader.right(encoded.codes[0, 0], frames, phones))
            counts["commonest"].append(float((phones == reader.commonest).sum()))
            counts["phones"].append(len(phones))
            counts["mel"].append(round(float(distance(decoded[None], torch.from_numpy(waveform)[None])["mel"]), 5))
        return {"codec": tok.id, "layers": layers, **counts}


# ---- trials ----------------------------------------------------------------------------------------------------------


@dataclass
class Trials:
    """What the second codec is chosen by, on dev and on training clips of many speakers."""

    train: list[Utterance]
    dev: list[Utterance]
    known: Known
    judges: Judges

    packages = ("torch", "numpy", "hama")

    def __post_init__(self) -> None:
        pool = [u for u in self.train if 2.0 <= u.duration <= 10.0 and (u.language or "en") == "en"]
        speakers = [clips for clips in by_speaker(pool).values() if len(clips) >= FOLDS]
        #: Four clips of each of many training speakers, one after the other: what linear readings are fitted on.
        self.fit = [u for clips in spread(speakers, FIT_SPEAKERS) for u in spread(clips, FOLDS)]
        dev_speakers = by_speaker(self.dev).values()
        self.sound = [u for clips in dev_speakers for u in spread(clips, SOUND_CLIPS)]
        self.changed = [u for clips in dev_speakers for u in spread(clips, CHANGED_CLIPS)]
        self.words = spread([u for u in self.dev if u.text and u.duration <= WORD_SECONDS], WORD_CLIPS)
        self.fewer = spread(self.words, FEWER_WORD_CLIPS)
        untold = [u for u in self.changed if not u.text]
        self.sources = self.fewer + untold

    def clips(self, of: str) -> list[Utterance]:
        """That a kind of figure is of."""
        found: list[Utterance] = getattr(self, of)
        return found

    def setup(self) -> dict[str, Any]:
        kinds = ("fit", "sound", "changed", "words", "sources")
        judges = made_with(("pesq", "stoi", "wer", "speaker"), self.judges)
        return {kind: [u.id for u in self.clips(kind)] for kind in kinds} | {
            "settings": {"phone_lag": PHONE_LAG, "decay": DECAY, "layers": LAYERS, "changes": list(BAD)},
            "judges": judges,
        }

    def prepare(self, progress: Progress) -> None:
        self.known.hear_phones([*self.fit, *self.sound], progress)
        embed, hear = load_metric("speaker", self.judges).embedding, load_metric("wer", self.judges)  # type: ignore
        for clip in progress([u for u in [*self.sound, *self.sources] if u.id not in self.known.voices], "voices"):
            self.known.voices[clip.id] = embed(read(clip)).tolist()
        for clip in progress([u for u in self.words if u.id not in self.known.words], "hearing words"):
            self.known.words[clip.id] = judged(hear, Pair(read(clip), read(clip), clip.text))
        self.known.write()

    def references(self) -> list[Utterance]:
        """For each source, a random one of the clips in other voices: the half of other speakers' that are least
        alike."""
        rng = np.random.default_rng(0)
        found = []
        for source in self.sources:
            others = [u for u in self.sound if u.speaker != source.speaker and u.duration >= SHORTEST]
            others.sort(key=lambda u: float(np.dot(self.known.voices[u.id], self.known.voices[source.id])))
            found.append(others[rng.integers(len(others) // 2)])
        return found

    def measure(self, tok: SpeechTokenizer) -> dict[str, Any]:
        """(sum, count) of each figure for each of its clips, and the CPU seconds that this took."""
        begin = time.process_time()
        scores = self.read_linearly(tok) | self.listen(tok) | self.change(tok) | self.convert(tok)
        rounded = {
            key: [None if score is None else [round(float(part), 5) for part in score] for score in found]
            for key, found in scores.items()
        }
        seconds = round(time.process_time() - begin, 1)
        return {"codec": tok.id, "layers": min(LAYERS, tok.num_quantizers), "cpu_seconds": seconds, "scores": rounded}

    def read_linearly(self, tok: SpeechTokenizer) -> dict[str, Scores]:
        """Who speaks from mean vectors of RVQ-1, of training's speakers, and the phones of dev."""
        reader = PhoneReader(tok, num_phones(self.known))
        means = []
        for clip in self.fit:
            codes = tok.encode(read(clip), layers=RVQ1).codes
            reader.learn(codes[0, 0], *self.known.phones_of(clip))
            means.append(tok.embed(codes, layers=RVQ1)[0].T.double().mean(0, keepdim=True))
        reader.fit()
        found: Scores = []
        for clip in self.sound:
            frames, phones = self.known.phones_of(clip)
            codes = tok.encode(read(clip), layers=RVQ1).codes[0, 0]
            found.append((reader.right(codes, frames, phones), len(phones)))
        speakers = fit_speaker(means, [u.speaker_key for u in self.fit], np.arange(len(self.fit)) % FOLDS)
        return {"phones": found, "speaker read": list(speakers)}

    def listen(self, tok: SpeechTokenizer) -> dict[str, Scores]:
        """Decoded speech, by PESQ, STOI, mel distance, stripes, its voice and its words."""
        names = ("pesq", "stoi", "stripes")
        judges = {name: load_metric(name, self.judges) for name in names}
        distance = SpectralLoss(SAMPLE_RATE, Losses().resolutions)
        scores: dict[str, Scores] = {}
        for layers in (1, LAYERS):
            for clip in self.sound:
                waveform = read(clip)
                decoded = decode(tok, waveform, layers)
                pair = Pair(waveform, decoded)
                found = {name: judged(judge, pair) for name, judge in judges.items()}
                mel = distance(torch.from_numpy(decoded)[None], torch.from_numpy(waveform)[None])["mel"]
                found |= {"mel": (float(mel), 1), "voice": self.cosine(clip, decoded)}
                for name, score in found.items():
                    scores.setdefault(f"{name} :{layers}", []).append(score)
        hear = load_metric("wer", self.judges)
        for layers, clips in ((1, self.words), (LAYERS, self.fewer)):
            heard = [judged(hear, Pair(w, decode(tok, w, layers), clip.text)) for clip in clips for w in [read(clip)]]
            scores[f"wer :{layers}"] = list(heard)
        return scores

    def cosine(self, clip: Utterance, speech: np.ndarray) -> Sequence[float] | None:
        """Of the voices of a recording and of speech; None where it is silent."""
        try:
            embedding = load_metric("speaker", self.judges).embedding(speech)  # type: ignore[attr-defined]
        except ValueError:
            return None
        return float(np.dot(embedding, self.known.voices[clip.id])), 1

    def change(self, tok: SpeechTokenizer) -> dict[str, Scores]:
        """Codes that stay when the recording gets worse: of RVQ-1, and of all layers."""
        scores: dict[str, Scores] = {}
        for clip in self.changed:
            waveform = read(clip)
            codes = tok.encode(waveform).codes[0]
            for name, apply in BAD.items():
                changed = apply(waveform, np.random.default_rng([0, *clip.id.encode()]))
                stay = tok.encode(changed.astype(np.float32)).codes[0].eq(codes).double()  # [K, T]
                scores.setdefault(f"{name} 1", []).append((float(stay[0].sum()), stay.shape[1]))
                scores.setdefault(f"{name} all", []).append((float(stay.mean(0).sum()), stay.shape[1]))
        return scores

    def convert(self, tok: SpeechTokenizer) -> dict[str, Scores]:
        """RVQ-1 of a source, the layers above of a reference: both voices, and the words."""
        hear = load_metric("wer", self.judges)
        names = ("to reference", "to source", "nearer", "wer converted")
        scores: dict[str, Scores] = {name: [] for name in names}
        layers = slice(1, min(LAYERS, tok.num_quantizers))
        for source, reference in zip(self.sources, self.references(), strict=True):
            waveform = read(source)
            swapped = swap_layers(tok, waveform, read(reference), layers=layers)  # both at the codec's sample rate
            speech = fit_length(swapped.waveform[0].numpy(), len(waveform))
            cosines = self.cosine(reference, speech), self.cosine(source, speech)
            nearer = (float(cosines[0] > cosines[1]), 1) if cosines[0] and cosines[1] else None
            words = judged(hear, Pair(waveform, speech, source.text))
            for name, score in zip(names, (*cosines, nearer, words), strict=True):
                scores[name].append(score)
        return scores

    def figure(self, run: dict[str, Any], of: str, name: str, seed: int) -> Figure:
        """A figure of a run with its interval over speakers. of: the kind of clips that it is of."""
        known = [(s, u.speaker_key) for s, u in zip(run["scores"][name], self.clips(of), strict=True) if s]
        return statistics.figure([score for score, _ in known], [speaker for _, speaker in known], seed=seed)


def by_speaker(clips: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Clips of each speaker who is known."""
    found: dict[str, list[Utterance]] = {}
    for clip in clips:
        if clip.speaker:
            found.setdefault(clip.speaker, []).append(clip)
    return found


def judged(metric: Metric, pair: Pair) -> Sequence[float] | None:
    """Return the metric's score of a pair; None where it has no answer."""
    try:
        return metric(pair)
    except NoAnswer:
        return None


def decode(tok: SpeechTokenizer, waveform: np.ndarray, layers: int) -> np.ndarray:
    """What remains of speech, float32 [L] at 16 kHz, decoded from its first layers, or all of fewer."""
    decoded = tok.reconstruct(waveform, sample_rate=SAMPLE_RATE, layers=slice(0, min(layers, tok.num_quantizers)))
    return fit_length(decoded.waveform[0].numpy(), len(waveform))


#: The tables of trials: a heading; the columns, each the figure's name, its clips, heading, scale and digits.
TABLES: dict[str, list[tuple[str, str, str, float, int]]] = {
    "Content: RVQ-1": [
        ("phones", "sound", "phone accuracy, % ↑", 100, 1),
        ("wer :1", "words", "WER of `:1`, % ↓", 100, 1),
        ("speaker read", "fit", "speaker accuracy, % ↓", 100, 1),
        ("voice :1", "sound", "speaker cosine of `:1` ↓", 1, 3),
    ],
    "Sound": [
        ("pesq :8", "sound", "PESQ-WB of `:8` ↑", 1, 2),
        ("stoi :8", "sound", "STOI of `:8` ↑", 1, 3),
        ("mel :8", "sound", "mel distance of `:8`, nats ↓", 1, 3),
        ("wer :8", "fewer", "WER of `:8`, % ↓", 100, 1),
        ("voice :8", "sound", "speaker cosine of `:8` ↑", 1, 3),
        ("stripes :8", "sound", "stripes of `:8`, % ↓", 100, 2),
        ("pesq :1", "sound", "PESQ-WB of `:1` ↑", 1, 2),
        ("stoi :1", "sound", "STOI of `:1` ↑", 1, 3),
        ("mel :1", "sound", "mel distance of `:1`, nats ↓", 1, 3),
    ],
    "Ids of RVQ-1 that stay, %": [(f"{name} 1", "changed", name, 100, 1) for name in BAD],
    "Ids of all layers that stay, %": [(f"{name} all", "changed", name, 100, 1) for name in BAD],
    "Conversion: layers 1:8 of a reference": [
        ("to reference", "sources", "cosine to the reference ↑", 1, 3),
        ("to source", "sources", "cosine to the source ↓", 1, 3),
        ("nearer", "sources", "nearer to the reference, % ↑", 100, 0),
        ("wer converted", "sources", "WER, % ↓", 100, 1),
    ],
}


def cell(found: Figure, scale: float, digits: int) -> str:
    """A figure and its interval, if there is one."""
    value, low, high = (f"{scale * part:.{digits}f}" for part in (found.value, found.low, found.high))
    return value if np.isnan(found.low) else f"{value} ({low} to {high})"
