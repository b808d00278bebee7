"""A tokenized corpus with texts, as the language models learn from it: symbols, codes, timings, voices.

CACHE/symbols-FRONT_END.json  of each text
CACHE/aligner.safetensors     what found the timings
CACHE/timings.json            of each clip
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vocable.codec.base import Codec
from vocable.corpus.dataset import TokenDataset
from vocable.corpus.manifest import Utterance
from vocable.files import atomic_path
from vocable.lm.aligner import PAUSE, Aligner, AlignerConfig, Timing
from vocable.lm.recipe import AlignerRecipe, Data
from vocable.lm.text import SymbolTable, read_text
from vocable.training.precision import autocast

CLIP_NORM = 1.0
WEIGHTS = "aligner.safetensors"


@dataclass(frozen=True)
class Clip:
    id: str
    speaker: str
    symbols: list[int]
    codes: np.ndarray  #: int16 [K, T]
    timing: Timing | None


@dataclass(frozen=True)
class Corpus:
    language: str  #: of most clips
    table: SymbolTable
    clips: list[Clip]
    left_out: dict[str, str]  #: clips that cannot be learned from, and why
    aligner: Aligner | None = None  #: what found the timings


def load_corpus(
    tokens: str,
    utterances: Sequence[Utterance],
    data: Data,
    codec: Codec,
    aligner: AlignerRecipe | Aligner | None,
    table: SymbolTable | None = None,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Corpus:
    """Clips that have tokens and a text. table: that of the training corpus, for others; None makes one.

    aligner: what finds the timings, or how to train it; None for none. What was made before is taken from the cache.
    Raises ValueError for tokens of another codec, or of few layers, and where no clip is left.
    """
    dataset = TokenDataset(tokens)
    codec.check_token_id(dataset.token_id, f"{tokens}: tokens")
    places = {name: i for i, name in enumerate(dataset.ids)}
    left_out: dict[str, str] = {}
    kept = []
    for u in utterances:
        if u.id not in places:
            left_out[u.id] = "no tokens"
        elif not u.text:
            left_out[u.id] = "no text"
        elif u.duration > data.longest:
            left_out[u.id] = f"longer than {data.longest:g} s"
        else:
            kept.append(u)
    cache = Path(data.cache)
    cache.mkdir(parents=True, exist_ok=True)
    written = _symbols(kept, data, cache, left_out, progress)
    kept = [u for u in kept if u.id in written]
    table = table or SymbolTable.of(written.values())
    encoded: dict[str, list[int]] = {}
    codes: dict[str, np.ndarray] = {}
    for u in kept:
        if unknown := table.unknown(written[u.id]):
            left_out[u.id] = f"the model was trained on nothing like {', '.join(map(repr, unknown))}"
            continue
        encoded[u.id] = table.encode(written[u.id])
        codes[u.id] = dataset[places[u.id]]["codes"].numpy().astype(np.int16)
        if len(codes[u.id]) != codec.num_quantizers:
            raise ValueError(f"{tokens} holds {len(codes[u.id])} layers: tokenize without --layers")
    _check_any(encoded, tokens, left_out)
    model: Aligner | None = None
    timings: dict[str, Timing] = {}
    if aligner:
        if isinstance(aligner, Aligner):
            model = aligner
        else:
            model = _aligner(encoded, codes, table, codec, aligner, cache, progress)
        timings = _timings(model, encoded, codes, codec, cache, left_out, progress)
    clips = [
        Clip(u.id, u.speaker_key, encoded[u.id], codes[u.id], timings.get(u.id))
        for u in kept
        if u.id in encoded and (u.id in timings or not aligner)
    ]
    _check_any(clips, tokens, left_out)
    language = Counter(u.language or data.language for u in kept).most_common(1)[0][0]
    return Corpus(language, table, clips, left_out, model)


def _check_any(clips: Collection[object], tokens: str, left_out: dict[str, str]) -> None:
    if not clips:
        reason = next(iter(left_out.values()), "the manifest is empty")
        raise ValueError(f"{tokens}: no clip has tokens and a text to learn from ({reason})")


def _symbols(
    utterances: Sequence[Utterance],
    data: Data,
    cache: Path,
    left_out: dict[str, str],
    progress: Callable[[str, float], None],
) -> dict[str, list[str]]:
    """The symbols of each clip's text, as `read_text` writes them, kept in the cache."""
    path = cache / f"symbols-{data.front_end}.json"
    known: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found, new = {}, False
    for i, u in enumerate(utterances):
        assert u.text
        language = u.language or data.language
        key = f"{language}: {u.text}"
        if key not in known:
            try:
                known[key] = read_text(u.text, language, data.front_end)
            except ValueError as error:
                left_out[u.id] = str(error)
                continue
            new = True
        found[u.id] = known[key]
        if i % 100 == 0:
            progress("reading texts", i / len(utterances))
    if new:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
    return found


def _aligner(
    symbols: dict[str, list[int]],
    codes: dict[str, np.ndarray],
    table: SymbolTable,
    codec: Codec,
    recipe: AlignerRecipe,
    cache: Path,
    progress: Callable[[str, float], None],
) -> Aligner:
    """The cache's, or one that is trained now if there is none of these clips, symbols, codec and recipe."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Aligner(AlignerConfig(codec.dimension, len(table)))
    texts = hashlib.sha256(json.dumps(symbols, sort_keys=True).encode()).hexdigest()
    made_for = {"codec": codec.token_id, "symbols": " ".join(table.symbols), "texts": texts, "recipe": str(recipe)}
    weights = cache / WEIGHTS
    if weights.is_file() and _metadata(weights) == made_for:
        model.load_state_dict(safetensors.torch.load_file(weights))
    else:
        train_aligner(model, symbols, codes, codec, recipe, progress)
        with atomic_path(weights) as temporary:
            safetensors.torch.save_file(model.state_dict(), temporary, made_for)
    return model.eval()


def _timings(
    model: Aligner,
    symbols: dict[str, list[int]],
    codes: dict[str, np.ndarray],
    codec: Codec,
    cache: Path,
    left_out: dict[str, str],
    progress: Callable[[str, float], None],
) -> dict[str, Timing]:
    """The timing of each clip, kept in the cache."""
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()
    path = cache / "timings.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    if known.get("aligner") != digest:
        known = {"aligner": digest, "clips": {}}
    found, new = {}, False
    for i, (name, text) in enumerate(symbols.items()):
        timing = Timing(*known["clips"].get(name, [[], []]))
        said = [symbol for symbol in timing.symbols if symbol != PAUSE]
        if said != text or sum(timing.frames) != codes[name].shape[1]:  # none yet, or of another text
            try:
                timing = model.align(vectors_of(codec, codes[name]), text)
            except ValueError as error:
                left_out[name] = str(error)
                continue
            known["clips"][name], new = [timing.symbols, timing.frames], True
        found[name] = timing
        if i % 100 == 0:
            progress("timing symbols", i / len(symbols))
    if new:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(known))
    return found


@torch.random.fork_rng(devices=())
def train_aligner(
    model: Aligner,
    symbols: dict[str, list[int]],
    codes: dict[str, np.ndarray],
    codec: Codec,
    recipe: AlignerRecipe,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> None:
    """Train on clips of like lengths, at `recipe.batch_frames` a step; always alike, so that runs of several seeds
    learn from the same timings."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    names = sorted(codes, key=lambda name: codes[name].shape[1])
    lengths = np.array([codes[name].shape[1] for name in names])
    some = torch.cat([vectors_of(codec, codes[names[i]]) for i in rng.integers(len(names), size=min(64, len(names)))])
    model.mean.copy_(some.mean(0))
    model.deviation.copy_(some.std(0).clamp_min(1e-5))
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.1)
    model.train()
    for step in range(recipe.steps):
        chosen = like_lengths(lengths, recipe.batch_frames, rng)
        batch = [(vectors_of(codec, codes[names[i]]), torch.tensor(symbols[names[i]])) for i in chosen]
        vectors, texts = (pad_sequence([pair[k] for pair in batch], batch_first=True) for k in range(2))
        sizes, counts = (torch.tensor([len(pair[k]) for pair in batch]) for k in range(2))
        with autocast("cpu"):
            loss = model.loss(vectors, sizes, texts, counts)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        progress("training the aligner", (step + 1) / recipe.steps)
    model.eval()


def like_lengths(lengths: np.ndarray, most: int, rng: np.random.Generator, noise: float = 0.1) -> list[int]:
    """Clips of like lengths, about `most` frames with padding: indices into `lengths`, each with a like chance."""
    order = np.argsort(lengths * rng.uniform(1 - noise, 1 + noise, len(lengths)))
    # Short clips come in larger batches, so a batch begins with one the less often.
    start = int(rng.choice(len(order), p=lengths[order] / lengths.sum()))
    chosen: list[int] = []
    longest = 0
    for i in order[start:].tolist():
        longest = max(longest, int(lengths[i]))
        if chosen and longest * (len(chosen) + 1) > most:
            break
        chosen.append(i)
    return chosen


def vectors_of(codec: Codec, codes: np.ndarray) -> Tensor:
    """What the codec's decoder would be given: int16 [K, T] -> float32 [T, D]."""
    return codec.embed(torch.from_numpy(codes.astype(np.int64))[None])[0].T


def _metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return dict(file.metadata() or {})
