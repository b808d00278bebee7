"""The cache folder of a training corpus: results that take minutes to compute, and are the same in every run.

FOLDER/symbols-FRONT_END.json   the symbols of each text
FOLDER/aligner.safetensors      the aligner that was trained on the corpus
FOLDER/timings.json             the timing of each clip
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from vocable.codec.base import Codec
from vocable.corpus.manifest import Utterance
from vocable.files import atomic_path
from vocable.lm.aligner import Aligner, AlignerConfig, embed_codes, train_aligner
from vocable.lm.front_ends import read_text
from vocable.lm.recipe import AlignerRecipe
from vocable.lm.symbols import SymbolTable
from vocable.lm.timing import Timing

REPORT_EVERY = 100  #: clips between two calls of `progress`


class CorpusCache:
    """Computes symbols, aligner and timings of a corpus, or reads them from `folder`, which is made if it is missing.

    progress: called with the name of a stage and the fraction of it that is done. Clips that cannot be used are
    returned with the reason: a mapping of ids to messages.
    """

    def __init__(self, folder: Path, progress: Callable[[str, float], None]) -> None:
        self.folder, self.progress = folder, progress
        folder.mkdir(parents=True, exist_ok=True)

    def symbols(
        self, utterances: Sequence[Utterance], language: str, front_end: str
    ) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Return the symbols of each clip's text, and the texts that cannot be read.

        language: of utterances whose manifest names none.
        """
        path = self.folder / f"symbols-{front_end}.json"
        known: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found: dict[str, list[str]] = {}
        failed: dict[str, str] = {}
        changed = False
        for i, utterance in enumerate(utterances):
            assert utterance.text
            text_language = utterance.language or language
            key = f"{text_language}: {utterance.text}"
            if key not in known:
                try:
                    known[key] = read_text(utterance.text, text_language, front_end)
                except ValueError as error:
                    failed[utterance.id] = str(error)
                    continue
                changed = True
            found[utterance.id] = known[key]
            if i % REPORT_EVERY == 0:
                self.progress("reading texts", i / len(utterances))
        if changed:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
        return found, failed

    def aligner(
        self,
        symbols: Mapping[str, list[int]],
        codes: Mapping[str, np.ndarray],
        table: SymbolTable,
        codec: Codec,
        recipe: AlignerRecipe,
    ) -> Aligner:
        """Return an aligner for a corpus; train it unless the cached one was trained on the same data and recipe.

        symbols and codes: as in `train_aligner`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Aligner(AlignerConfig(codec.dimension, len(table)))
        texts = hashlib.sha256(json.dumps(symbols, sort_keys=True).encode()).hexdigest()
        trained_on = {
            "codec": codec.token_id,
            "symbols": " ".join(table.symbols),
            "texts": texts,
            "recipe": str(recipe),
        }
        path = self.folder / "aligner.safetensors"
        if path.is_file() and _metadata(path) == trained_on:
            model.load_state_dict(safetensors.torch.load_file(path))
        else:
            train_aligner(model, symbols, codes, codec, recipe, self.progress)
            with atomic_path(path) as temporary:
                safetensors.torch.save_file(model.state_dict(), temporary, trained_on)
        return model.eval()

    def timings(
        self, aligner: Aligner, symbols: Mapping[str, list[int]], codes: Mapping[str, np.ndarray], codec: Codec
    ) -> tuple[dict[str, Timing], dict[str, str]]:
        """Return the timing of each clip, and the clips that are too short for their texts.

        symbols and codes: as in `train_aligner`.
        """
        digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in aligner.state_dict().values())).hexdigest()
        path = self.folder / "timings.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if known.get("aligner") != digest:
            known = {"aligner": digest, "clips": {}}
        found: dict[str, Timing] = {}
        failed: dict[str, str] = {}
        changed = False
        for i, (name, text) in enumerate(symbols.items()):
            timing = Timing(*known["clips"].get(name, [[], []]))
            # Without a cached timing this one is empty; a cached one may be of another text or recording.
            if timing.spoken_symbols() != text or sum(timing.frames) != codes[name].shape[1]:
                try:
                    timing = aligner.align(embed_codes(codec, codes[name]), text, codec.frame_rate)
                except ValueError as error:
                    failed[name] = str(error)
                    continue
                known["clips"][name], changed = [timing.symbols, timing.frames], True
            found[name] = timing
            if i % REPORT_EVERY == 0:
                self.progress("timing symbols", i / len(symbols))
        if changed:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(known))
        return found, failed


def _metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return dict(file.metadata() or {})
