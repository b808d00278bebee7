"""The probe of text alignment: a small recogniser of text from a tokenizer's vectors.

As in SpeechTokenizer (arXiv 2308.16692), section 3.1, it is a BiLSTM with a character CTC head on token embeddings. The
paper's has two layers of 1,024 units; the default here is one layer of 256, which two CPU cores train in minutes. The
probes of all tokenizers are trained for the same CPU time. Their errors can be compared with each other, but not with
those of speech recognisers.
"""

from __future__ import annotations

import itertools
import math
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

CHARACTERS = " abcdefghijklmnopqrstuvwxyz'"  #: label k + 1 is CHARACTERS[k]; label 0 is CTC's blank
BATCH_FRAMES = 6_000  #: at most, padding included
LEARNING_RATE = 2e-3
CLIP_NORM = 1.0  #: of gradients


@dataclass(frozen=True)
class Example:
    """A training clip."""

    codes: Tensor  #: int64 [K', T]
    text: str  #: in CHARACTERS


class TextProbe(nn.Module):
    """A BiLSTM with a CTC head: vectors [B, T, D] -> log-probabilities of the blank and CHARACTERS, [B, T, 29]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dimension: int, *, hidden: int = 256, layers: int = 1) -> None:
        """dimension: D. hidden: units of each direction. layers: bidirectional layers."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("deviation", torch.ones(dimension))
        # One LSTM for each direction: on a CPU, torch trains packed bidirectional LSTMs fifteen times slower.
        inputs = [dimension, *[2 * hidden] * (layers - 1)]
        self.onward = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in inputs)
        self.back = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in inputs)
        self.head = nn.Linear(2 * hidden, len(CHARACTERS) + 1)

    def forward(self, vectors: Tensor, num_frames: Tensor) -> Tensor:
        """Return log-probabilities [B, T, 29] of padded vectors [B, T, D] with `num_frames` [B] valid frames."""
        x = (vectors - self.mean) / self.deviation
        # Each clip is reversed within its own frames, so that the padding comes last in both directions.
        last_first = (num_frames[:, None] - 1 - torch.arange(x.shape[1])).clamp_min(0)[..., None]
        for onward, back in zip(self.onward, self.back, strict=True):
            turned, _ = back(x.gather(1, last_first.expand(-1, -1, x.shape[2])))
            x = torch.cat([onward(x)[0], turned.gather(1, last_first.expand(-1, -1, turned.shape[2]))], -1)
        return self.head(x).log_softmax(-1)  # type: ignore[no-any-return]


def normalize(text: str) -> str:
    """Return the text in lower case, without accents and other characters than CHARACTERS, with single spaces."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'")) if not _is_accent(c))
    kept = "".join(c if c in CHARACTERS else " " for c in plain)
    return " ".join(kept.split())


def readable(text: str) -> float:
    """Return the fraction of a text's letters that are in CHARACTERS."""
    plain = [c for c in unicodedata.normalize("NFKD", text.lower()) if c.isalpha()]
    return sum(c in CHARACTERS for c in plain) / max(1, len(plain))


def _is_accent(character: str) -> bool:
    return unicodedata.combining(character) != 0


def labels(text: str) -> Tensor:
    """Return the labels of a text in CHARACTERS: int64 [S]."""
    return torch.tensor([CHARACTERS.index(c) + 1 for c in text], dtype=torch.int64)


def frames_needed(text: str) -> int:
    """Return the fewest frames with a CTC path: one for each character, and a blank between equal neighbours."""
    return len(text) + sum(a == b for a, b in itertools.pairwise(text))


def train_probe(
    examples: Sequence[Example],
    embed: Callable[[Tensor], Tensor],
    *,
    seconds: float,
    hidden: int = 256,
    layers: int = 1,
    seed: int = 0,
) -> tuple[TextProbe, int]:
    """Train a probe for `seconds` of CPU time, summed over threads; return it with the number of steps.

    embed: codes int64 [K', T] -> float32 [T, D]; its time does not count, because it is not a property of the tokens.
    Clips whose text has no CTC path are left out. Raises ValueError if no clip remains.
    """
    examples = [e for e in examples if e.text and frames_needed(e.text) <= e.codes.shape[1]]
    if not examples:
        raise ValueError("no clip with text to train the probe on")
    sample = torch.cat([embed(e.codes) for e in examples[:: max(1, len(examples) // 100)]])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        probe = TextProbe(sample.shape[1], hidden=hidden, layers=layers)
    probe.mean.copy_(sample.mean(0))
    probe.deviation.copy_(sample.std(0).clamp_min(1e-5))
    optimizer = torch.optim.AdamW(probe.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(examples)
    spent, steps = 0.0, 0
    while spent < seconds:
        for k in torch.randperm(len(batches), generator=generator).tolist():
            if spent >= seconds:
                break
            vectors = [embed(e.codes) for e in batches[k]]
            started, done = time.process_time(), spent / seconds
            for group in optimizer.param_groups:  # a warm-up, then a half cosine
                group["lr"] = LEARNING_RATE * min(done / 0.02, 0.5 * (1 + math.cos(math.pi * done)))
            loss = _loss(probe, vectors, [labels(e.text) for e in batches[k]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(probe.parameters(), CLIP_NORM)
            optimizer.step()
            spent, steps = spent + time.process_time() - started, steps + 1
    return probe.eval(), steps


def _batches(examples: Sequence[Example]) -> list[list[Example]]:
    """Group clips of similar lengths into batches of at most BATCH_FRAMES, padding included."""
    batches: list[list[Example]] = [[]]
    for example in sorted(examples, key=lambda e: e.codes.shape[1]):
        if (len(batches[-1]) + 1) * example.codes.shape[1] > BATCH_FRAMES and batches[-1]:
            batches.append([])
        batches[-1].append(example)
    return batches


def _loss(probe: TextProbe, vectors: list[Tensor], texts: Sequence[Tensor]) -> Tensor:
    """Return the CTC loss per character."""
    num_frames = torch.tensor([len(v) for v in vectors])
    num_labels = torch.tensor([len(t) for t in texts])
    log_probs = probe(pad_sequence(vectors, batch_first=True), num_frames)
    losses = F.ctc_loss(log_probs.transpose(0, 1), torch.cat(list(texts)), num_frames, num_labels, reduction="none")
    return losses.sum() / num_labels.sum()


@torch.inference_mode()
def decode(probe: TextProbe, vectors: Tensor) -> str:
    """Return the text of one clip's vectors [T, D], by greedy decoding."""
    best = probe(vectors[None], torch.tensor([len(vectors)]))[0].argmax(-1)
    merged = torch.unique_consecutive(best).tolist()
    return " ".join("".join(CHARACTERS[k - 1] for k in merged if k).split())


@torch.inference_mode()
def log_likelihoods(probe: TextProbe, windows: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
    """Return log q(text j | window i), [N, N]; -inf if there is no CTC path. windows: vectors [T, D] of equal T."""
    log_probs = probe(torch.stack(list(windows)), torch.full((len(windows),), len(windows[0]))).transpose(0, 1)
    frames = torch.full((len(windows),), log_probs.shape[0])
    columns = []
    for text in texts:
        target = labels(text)
        length = torch.full((len(windows),), len(target))
        targets = target.expand(len(windows), -1)
        columns.append(-F.ctc_loss(log_probs, targets, frames, length, reduction="none"))
    return torch.stack(columns, 1)
