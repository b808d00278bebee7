"""The phone of each frame, as the aligner of the language models times it: labels for the content losses of a codec."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from vocable.files import atomic_path
from vocable.lm.aligner import PAUSE
from vocable.lm.corpus import Corpus
from vocable.lm.model import Models, digest


def write_phones(corpus: Corpus, models: Models, out: str | os.PathLike[str]) -> int:
    """Write the phones of a corpus with timings in the form of `UnitCache`; returns the number of labelled clips.

    A symbol's number is its place in the models' table; pauses have the number behind the last.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pause = len(models.table)
    rows: list[np.ndarray] = []
    places: dict[str, tuple[int, int, int]] = {}
    start = 0
    for clip in corpus.clips:
        assert clip.timing is not None
        symbols = np.array(clip.timing.by_frame(), np.int16)
        rows.append(np.where(symbols == PAUSE, pause, symbols).astype(np.int16))
        places[clip.id] = 0, start, len(symbols)
        start += len(symbols)
    with atomic_path(out / "00000.npy") as temporary:
        np.save(temporary, np.concatenate(rows), allow_pickle=False)
    index = {"teacher": f"aligner of {digest(models)}", "layer": 0, "num_units": pause + 1, "utterances": places}
    with atomic_path(out / "index.json") as temporary:
        temporary.write_text(json.dumps(index))
    return len(places)
