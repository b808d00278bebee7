"""Tokenize a corpus: write its plan, let an engine write the shards that are missing, then write the index.

    OUT/plan.json             settings, and the clips of each shard (`plan.py`)
    OUT/shards/00000.tar ...  the tokens of clips (`shards.py`); or 00000.parquet
    OUT/shards/00000.json     checksum, clips, and the clips left out (`index.py`)
    OUT/index.json            written when all shards are complete: settings, checksums, totals (`index.py`)

The shard is the atomic unit. Its bytes follow from the manifest and the plan alone, so a run that was interrupted and
resumed, one worker or many, here or on a cluster of machines of the same kind, all write the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocable.corpus.engines import Engine
from vocable.corpus.index import Index, entry_path, read_entry, write_index
from vocable.corpus.manifest import Utterance
from vocable.corpus.plan import Plan, Shard, check_utterances, manifest_digest, plan_shards
from vocable.lock import one_at_a_time


@dataclass(frozen=True)
class Progress:
    """How much of a corpus is tokenized."""

    seconds: float  #: seconds of speech in complete shards
    total: float  #: seconds of speech in all shards
    speed: float  #: seconds of speech that this run has tokenized per second of wall-clock time


def tokenize(
    utterances: Sequence[Utterance],
    *,
    out: Path,
    plan: Plan,
    engine: Engine,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Index:
    """Tokenize utterances to the folder `out`, and return the index.

    Complete shards in `out` are kept. Utterances whose ids are new to the corpus become further shards. A shard with
    clips that were left out is written again, because the recordings may have been repaired. progress: called at the
    start and after each shard. Raises ValueError for wrong utterances (`check_utterances`), and if `out` was begun with
    another plan or other utterances (`plan_shards`).
    """
    check_utterances(utterances)
    with one_at_a_time(out, "shards"):
        shards = plan_shards(out, plan, utterances)
        missing = [shard for shard in shards if not _is_complete(out, plan, shard)]
        seconds = {shard.number: shard.seconds for shard in missing}
        total = sum(shard.seconds for shard in shards)
        before = total - sum(seconds.values())
        began, written = time.monotonic(), 0.0
        progress(Progress(before, total, 0.0))
        for number in engine.run(plan, out, missing):
            written += seconds[number]
            progress(Progress(before + written, total, written / max(time.monotonic() - began, 1e-9)))
        digest = manifest_digest(u for shard in shards for u in shard.utterances)
        return write_index(out, plan.settings() | {"manifest": digest}, [shard.name for shard in shards])


def _is_complete(out: Path, plan: Plan, shard: Shard) -> bool:
    """Return whether a shard and its entry are written, and no clip was left out."""
    path = entry_path(out, shard.name)
    return (
        path.is_file() and path.with_suffix(f".{plan.format}").is_file() and not read_entry(out, shard.name)["left_out"]
    )
