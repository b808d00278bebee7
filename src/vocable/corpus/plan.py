"""The plan of a tokenized corpus: its settings, and which clips go into which shard.

    OUT/plan.json   the settings, and for each shard the ids and durations of its clips; written before the work begins

A corpus can grow: clips that a later manifest adds become further shards; shards that are planned do not change.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from vocable.codec.clips import layer_range
from vocable.codec.layers import Recurrence
from vocable.codec.load import load_codec
from vocable.corpus.manifest import Utterance, groups_by_duration, index_of_repeated_id, read_json_object
from vocable.corpus.shards import Format
from vocable.files import atomic_path


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a tokenized corpus: with the manifest they determine its bytes."""

    codec: str | None  #: name, as `load_codec` takes it; not part of `settings`, because folders can be moved
    token_id: str  #: token id of the codec
    start: int  #: first layer
    stop: int  #: layer after the last
    format: Format = "tar"  #: format of the shards
    shard_seconds: float = 1800.0  #: seconds of speech in a shard: each worker that is killed loses at most this much
    batch_seconds: float = 60.0  #: seconds of speech in a batch, with padding; longer clips are encoded in chunks
    device: str = "cpu"  #: cpu or cuda; a GPU adds in another order, so a few codes differ
    recurrence: Recurrence = "float32"  #: as in `SpeechTokenizer.from_pretrained`
    compile: bool = False  #: as in `SpeechTokenizer.from_pretrained`

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the output bytes, as JSON."""
        return {key: value for key, value in asdict(self).items() if key != "codec"}


@dataclass(frozen=True)
class Shard:
    """The clips of one shard, in the manifest's order."""

    number: int
    utterances: list[Utterance]

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.number:05d}"

    @property
    def seconds(self) -> float:
        """Seconds of speech, by the manifest."""
        return sum(u.duration for u in self.utterances)


def make_plan(
    codec: str | None,
    *,
    layers: slice | None = None,
    format: str = "tar",
    shard_seconds: float = 1800.0,
    device: str = "cpu",
    recurrence: str = "float32",
    compile: bool = False,
    device_is_here: bool = True,
) -> Plan:
    """Load a codec in order to check the settings, and return the plan.

    codec: a name, as `load_codec` takes it. layers: None for all. device_is_here: False if only the machines of a
    cluster have the device; the codec is then loaded on the CPU. Raises ValueError for settings that are not possible.
    """
    if format not in get_args(Format):
        raise ValueError(f"--format is tar or parquet, not {format!r}")
    loaded = load_codec(
        codec,
        device=device if device_is_here else "cpu",
        parts="encoder",
        recurrence=recurrence,
        compile=compile,
    )
    start, stop = layer_range(layers, loaded.num_quantizers)
    return Plan(
        codec=codec,
        token_id=loaded.token_id,
        start=start,
        stop=stop,
        format=format,  # type: ignore[arg-type]
        shard_seconds=shard_seconds,
        device=device,
        recurrence=loaded.recurrence,
        compile=compile,
    )


def check_utterances(utterances: Sequence[Utterance]) -> None:
    """Raise ValueError for durations that are not possible, and for ids that occur twice or cannot name a file."""
    for utterance in utterances:
        if not 0 < utterance.duration < math.inf:
            raise ValueError(f"{utterance.id}: lasts {utterance.duration} s: run `vocable prepare` for a manifest")
        try:
            utterance.id.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{utterance.id!r} is not UTF-8: rename its file") from None
    if (repeated := index_of_repeated_id(utterances)) is not None:
        raise ValueError(f"the id {utterances[repeated].id!r} occurs twice")


def plan_shards(out: Path, plan: Plan, utterances: Sequence[Utterance]) -> list[Shard]:
    """Return all shards of the corpus, and write them to OUT/plan.json: those planned before, then those of new clips.

    Raises ValueError if OUT has another plan, clips that are not among the utterances, or clips of another duration.
    """
    path = out / "plan.json"
    (out / "shards").mkdir(exist_ok=True)
    if not path.exists() and any((out / "shards").iterdir()):
        raise ValueError(f"{out} holds other results; choose another folder")
    planned = _read_plan(path, plan, utterances) if path.exists() else []
    utterance_of = {u.id: u for u in utterances}
    durations = {clip: duration for clips in planned for clip, duration in clips}
    missing = [clip for clip in durations if clip not in utterance_of]
    changed = [u.id for u in utterances if durations.get(u.id, u.duration) != u.duration]
    for fault, clips in (("lacks", missing), ("has another length for", changed)):
        if clips:
            few = ", ".join(clips[:3]) + ", ..." * (len(clips) > 3)
            raise ValueError(
                f"{out}: this manifest {fault} {len(clips)} of its clips ({few}); mend it, or choose another folder"
            )
    groups = [[utterance_of[clip] for clip, _ in clips] for clips in planned]
    groups += groups_by_duration([u for u in utterances if u.id not in durations], plan.shard_seconds)
    # Written even if nothing is new, because vocable 0.1 listed no clips.
    shards = [[[u.id, u.duration] for u in group] for group in groups]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plan.settings() | {"shards": shards}) + "\n", encoding="utf-8")
    return [Shard(number, group) for number, group in enumerate(groups)]


def manifest_digest(utterances: Iterable[Utterance]) -> str:
    """Return the SHA-256 of the ids and durations of utterances."""
    return hashlib.sha256(json.dumps([[u.id, u.duration] for u in utterances]).encode()).hexdigest()


def _read_plan(path: Path, plan: Plan, utterances: Sequence[Utterance]) -> list[list[tuple[str, float]]]:
    """Return the ids and durations of the clips of each planned shard. Raises ValueError for another plan."""
    other_folder = f"choose another folder than {path.parent}"
    before = read_json_object(path, advice=other_folder)
    settings = plan.settings()
    if other := [f"{key} {before.get(key)}, not {new}" for key, new in settings.items() if before.get(key) != new]:
        raise ValueError(f"{path.parent} was begun with {'; '.join(other)}: choose another folder")
    if "shards" not in before:  # vocable 0.1 wrote the digest of the manifest instead
        if before.get("manifest") != manifest_digest(utterances):
            raise ValueError(
                f"{path.parent} was begun by vocable 0.1 with another manifest: run the command once with that one, "
                "then the corpus can grow; or choose another folder"
            )
        groups = groups_by_duration(utterances, plan.shard_seconds)
        return [[(u.id, u.duration) for u in group] for group in groups]
    try:
        return [[(str(clip), float(duration)) for clip, duration in clips] for clips in before["shards"]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged: {other_folder}") from error
