"""Write the phone of each frame, as the aligner of language models finds it: labels for a codec's content losses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vocable.lm.corpus import Corpus
from vocable.lm.model import LanguageModels, digest
from vocable.lm.timing import PAUSE
from vocable.semantic.frame_folder import write_index, write_shard


def write_phone_labels(corpus: Corpus, models: LanguageModels, out: str | os.PathLike[str]) -> int:
    """Write the phone of each frame of a timed corpus, in the format of `UnitCache`.

    The label of a symbol is its id in the models' table; the label of a pause is the size of the table. Returns the
    number of labelled clips.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pause = len(models.table)
    rows: list[np.ndarray] = []
    places: dict[str, tuple[int, int, int]] = {}  # shard, first frame and number of frames of each clip
    start = 0
    for clip in corpus.clips:
        assert clip.timing is not None
        symbols = np.array(clip.timing.by_frame(), np.int16)
        rows.append(np.where(symbols == PAUSE, pause, symbols).astype(np.int16))
        places[clip.id] = 0, start, len(symbols)
        start += len(symbols)
    write_shard(out, 0, np.concatenate(rows))
    write_index(out, places, teacher=f"aligner of {digest(models)}", layer=0, num_units=pause + 1)
    return len(places)
