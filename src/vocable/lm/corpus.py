"""Load a tokenized corpus with texts to train language models on: symbols, codes, timings and speakers of its clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocable.codec.base import Codec
from vocable.corpus.dataset import TokenDataset
from vocable.corpus.manifest import Utterance
from vocable.lm.aligner import Aligner
from vocable.lm.corpus_cache import CorpusCache
from vocable.lm.recipe import AlignerRecipe, LMData
from vocable.lm.symbols import SymbolTable
from vocable.lm.timing import Timing


@dataclass(frozen=True)
class Clip:
    """One clip of a corpus."""

    id: str  #: of the utterance in the manifest
    speaker: str  #: name of the speaker; the id of the clip where the manifest names none
    symbols: list[int]  #: ids of the text's symbols
    codes: np.ndarray  #: int16 [K, T]
    timing: Timing | None  #: None in a corpus that was loaded without an aligner


@dataclass(frozen=True)
class Corpus:
    """A corpus to train on."""

    language: str  #: the language of most clips
    table: SymbolTable  #: the table of the clips' symbols
    clips: list[Clip]  #: the usable clips, in the order of the manifest
    left_out: dict[str, str]  #: the other clips: the reason, by id
    aligner: Aligner | None = None  #: the aligner that found the timings


def load_corpus(
    tokens: str,
    utterances: Sequence[Utterance],
    data: LMData,
    codec: Codec,
    aligner: AlignerRecipe | Aligner | None,
    table: SymbolTable | None = None,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Corpus:
    """Load the clips that have tokens and a text.

    tokens: the folder of their tokens. aligner: one that finds the timings, or the recipe to train one; None: no
    timings. table: the table of symbols to use; None: a new one of all symbols of the texts. progress: called with the
    name of a stage and the fraction of it that is done. Symbols, aligner and timings are kept in `data.cache`.

    Raises ValueError for tokens of another codec or without all layers, and if no clip is left.
    """
    dataset = TokenDataset(tokens)
    codec.check_token_id(dataset.token_id, f"{tokens}: tokens")
    rows = {name: i for i, name in enumerate(dataset.ids)}
    kept, left_out = _with_tokens_and_text(utterances, rows, data.longest)
    cache = CorpusCache(Path(data.cache), progress)
    written, unread = cache.symbols(kept, data.language, data.front_end)
    left_out |= unread
    kept = [u for u in kept if u.id in written]
    table = table or SymbolTable.of(written.values())
    symbols: dict[str, list[int]] = {}
    codes: dict[str, np.ndarray] = {}
    for u in kept:
        if unknown := table.unknown(written[u.id]):
            left_out[u.id] = f"the models know no symbol similar to {', '.join(map(repr, unknown))}"
            continue
        symbols[u.id] = table.encode(written[u.id])
        codes[u.id] = dataset[rows[u.id]]["codes"].numpy().astype(np.int16)
        if len(codes[u.id]) != codec.num_quantizers:
            raise ValueError(f"{tokens} holds {len(codes[u.id])} layers: tokenize without --layers")
    _check_not_empty(symbols, tokens, left_out)
    timings: dict[str, Timing] = {}
    if isinstance(aligner, AlignerRecipe):
        aligner = cache.aligner(symbols, codes, table, codec, aligner)
    if aligner is not None:
        timings, too_short = cache.timings(aligner, symbols, codes, codec)
        left_out |= too_short
    clips = [
        Clip(u.id, u.speaker_key, symbols[u.id], codes[u.id], timings.get(u.id))
        for u in kept
        if u.id in symbols and (u.id in timings or aligner is None)
    ]
    _check_not_empty(clips, tokens, left_out)
    language = Counter(u.language or data.language for u in kept).most_common(1)[0][0]
    return Corpus(language, table, clips, left_out, aligner)


def _with_tokens_and_text(
    utterances: Sequence[Utterance], names: Collection[str], longest: float
) -> tuple[list[Utterance], dict[str, str]]:
    """Return the utterances that have tokens and a text and last at most `longest` seconds; and why others do not
    count, by id."""
    kept: list[Utterance] = []
    left_out: dict[str, str] = {}
    for utterance in utterances:
        if utterance.id not in names:
            left_out[utterance.id] = "no tokens"
        elif not utterance.text:
            left_out[utterance.id] = "no text"
        elif utterance.duration > longest:
            left_out[utterance.id] = f"longer than {longest:g} s"
        else:
            kept.append(utterance)
    return kept, left_out


def _check_not_empty(clips: Collection[object], tokens: str, left_out: dict[str, str]) -> None:
    if not clips:
        reason = next(iter(left_out.values()), "the manifest is empty")
        raise ValueError(f"{tokens}: no clip has tokens and a text to learn from ({reason})")
