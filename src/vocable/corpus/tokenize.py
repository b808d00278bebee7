"""A corpus as tokens: shards whose bytes follow from the manifest and the plan alone.

    OUT/plan.json             codec, layers, format, sizes, the manifest's hash: what decides the bytes
    OUT/shards/00000.tar ...  a token file for each clip, ID.safetensors, as `Encoded.load` reads them; or 00000.parquet
    OUT/shards/00000.json     its checksum, its clips and their places; clips that were left out, and why
    OUT/index.json            when all are there: shards, checksums, sums

A shard is the atomic unit. Its members, their order and the batches that they are encoded in follow from manifest and
plan, each batch runs on one thread, and nothing of the clock or of users is written: so an interrupted and resumed run,
one worker or many, here or on a cluster of like machines, gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vocable import audio
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded, TokensError
from vocable.corpus.manifest import Utterance, groups_by_duration
from vocable.extras import need
from vocable.files import atomic_path, same_plan_or_refuse

Format = Literal["tar", "parquet"]
Entry = dict[str, Any]  #: of the index: one shard, as JSON


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of a tokenized corpus, besides its manifest."""

    codec: str  #: as from_pretrained takes it
    codec_id: str
    start: int  #: of the layers
    stop: int
    format: Format = "tar"
    shard_seconds: float = 1800.0  #: of speech in a shard: what a kill costs at most, for each worker
    batch_seconds: float = 60.0  #: of speech in a batch, padding included


@dataclass(frozen=True)
class Shard:
    """A part of the corpus, in the manifest's order."""

    number: int
    utterances: list[Utterance]

    @property
    def name(self) -> str:
        return f"{self.number:05d}"

    @property
    def seconds(self) -> float:
        return sum(u.duration for u in self.utterances)


#: Runs a worker over shards somewhere, and yields their entries as they are done (`engines.py`).
Engine = Callable[[Plan, Path, Sequence[Shard]], Iterator[Entry]]


def tokenize(
    utterances: Sequence[Utterance],
    out: Path,
    plan: Plan,
    engine: Engine,
    progress: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Write OUT; shards that stand already are kept. Returns the index.

    progress: called with the seconds of speech that are ready, at once with those of shards that stand. Raises
    ValueError if OUT was begun with another plan or manifest.
    """
    manifest = hashlib.sha256(json.dumps([[u.id, u.duration] for u in utterances]).encode()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    what = "codec, manifest or setting"
    same_plan_or_refuse(out, asdict(plan) | {"manifest": manifest}, what, parts="shards/*")
    shards = [Shard(i, group) for i, group in enumerate(groups_by_duration(utterances, plan.shard_seconds))]
    for stale in (out / "shards").glob(".*.tmp.*"):  # of workers that were killed
        stale.unlink()
    entries: dict[str, Entry] = {}
    for shard in shards:
        path = out / "shards" / f"{shard.name}.json"
        if path.is_file() and (path.with_suffix(f".{plan.format}")).is_file():
            entries[shard.name] = json.loads(path.read_text(encoding="utf-8"))
            progress(shard.seconds)
    seconds = {shard.name: shard.seconds for shard in shards}
    for entry in engine(plan, out, [shard for shard in shards if shard.name not in entries]):
        name = Path(entry["shard"]).stem
        entries[name] = entry
        progress(seconds[name])
    ordered = [entries[shard.name] for shard in shards]
    index = {
        "plan": asdict(plan) | {"manifest": manifest},
        "clips": sum(len(entry["clips"]) for entry in ordered),
        "frames": sum(entry["frames"] for entry in ordered),
        "hours": round(sum(entry["seconds"] for entry in ordered) / 3600, 6),
        "left_out": {clip: why for entry in ordered for clip, why in entry["left_out"].items()},
        "shards": [{key: entry[key] for key in ("shard", "sha256", "seconds", "frames")} for entry in ordered],
    }
    with atomic_path(out / "index.json") as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


class Worker:
    """A codec, and what it makes of shards. One a process: on a CPU it takes one thread."""

    def __init__(self, plan: Plan, out: Path, device: str = "cpu") -> None:
        torch.set_num_threads(1)
        self.plan, self.out = plan, out
        self.codec = SpeechTokenizer.from_pretrained(plan.codec, device=device, parts="encoder")
        if self.codec.id != plan.codec_id:
            raise ValueError(f"{plan.codec} is {self.codec.id} here, and was {plan.codec_id} when this was planned")

    def __call__(self, shard: Shard) -> Entry:
        """Write a shard; returns its entry of the index."""
        tokens: dict[str, Encoded] = {}
        left_out: dict[str, str] = {}
        batches = batches_of(shard.utterances, self.plan.batch_seconds)
        # The next batch is read while this one is encoded: decoders and resamplers let go of Python's lock.
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, batches[0])
            for i in range(len(batches)):
                waveforms, unreadable = coming.result()
                coming = reader.submit(self._read, batches[i + 1] if i + 1 < len(batches) else [])
                left_out |= unreadable
                if waveforms:
                    layers = slice(self.plan.start, self.plan.stop)
                    encoded = self.codec.encode(list(waveforms.values()), layers=layers)
                    tokens |= zip(waveforms, encoded.clips(), strict=True)
        tokens = {u.id: tokens[u.id] for u in shard.utterances if u.id in tokens}
        path = self.out / "shards" / f"{shard.name}.{self.plan.format}"
        with atomic_path(path) as temporary:
            places = (_write_tar if self.plan.format == "tar" else _write_parquet)(temporary, tokens)
            digest = file_digest(temporary)
        entry = {
            "shard": path.name,
            "sha256": digest,
            "seconds": round(sum(int(t.num_samples) for t in tokens.values()) / self.codec.sample_rate, 6),
            "frames": sum(int(t.num_frames) for t in tokens.values()),
            "clips": {name: [*place, int(tokens[name].num_frames)] for name, place in places.items()},
            "left_out": {u.id: left_out[u.id] for u in shard.utterances if u.id in left_out},
        }
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
        return entry

    def _read(self, batch: Sequence[Utterance]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        waveforms, unreadable = {}, {}
        for utterance in batch:
            try:
                waveforms[utterance.id] = audio.read(utterance.path, self.codec.sample_rate)[0]
            except (ValueError, OSError) as error:
                unreadable[utterance.id] = " ".join(str(error).split())
        return waveforms, unreadable


def batches_of(utterances: Sequence[Utterance], seconds: float) -> list[list[Utterance]]:
    """Clips of like lengths together, longest first, at most so many seconds with padding; a longer clip alone."""
    batches: list[list[Utterance]] = []
    for utterance in sorted(utterances, key=lambda u: (-u.duration, u.id)):
        if not batches or (len(batches[-1]) + 1) * batches[-1][0].duration > seconds:
            batches.append([])
        batches[-1].append(utterance)
    return batches


# ---- shards ----------------------------------------------------------------------------------------------------------


def _write_tar(path: Path, tokens: dict[str, Encoded]) -> dict[str, tuple[int, int]]:
    """Returns for each clip where its file begins in the tar, and its size."""
    places = {}
    with tarfile.open(path, "w") as tar:
        for name, clip in tokens.items():
            data = clip.to_bytes()
            member = tarfile.TarInfo(f"{name}.safetensors")  # no time, no owner, mode 0644
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            places[name] = (tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data))
    return places


def _write_parquet(path: Path, tokens: dict[str, Encoded]) -> dict[str, tuple[int, int]]:
    """A row a clip: its id and its token file. Returns for each clip its row and the size of that file."""
    pyarrow, parquet = need("pyarrow", "parquet"), need("pyarrow.parquet", "parquet")
    data = [clip.to_bytes() for clip in tokens.values()]
    table = pyarrow.table({"id": list(tokens), "tokens": pyarrow.array(data, pyarrow.binary())})
    parquet.write_table(table, path, compression="zstd")
    return {name: (row, len(data[row])) for row, name in enumerate(tokens)}


def read_shard(path: Path) -> Iterator[tuple[str, Encoded]]:
    """The clips of a shard, in its order. Raises TokensError naming what cannot be read."""
    try:
        if path.suffix == ".parquet":
            for row in need("pyarrow.parquet", "parquet").read_table(path).to_pylist():
                yield row["id"], Encoded.from_bytes(row["tokens"], f"{path}, {row['id']}")
        else:
            with tarfile.open(path) as tar:
                for member in tar:
                    name, file = member.name.removesuffix(".safetensors"), tar.extractfile(member)
                    yield name, Encoded.from_bytes(file.read() if file else b"", f"{path}, {name}")
    except (tarfile.TarError, OSError) as error:
        raise TokensError(f"{path}: not a whole shard ({error})") from error


def file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_index(out: Path) -> dict[str, Any]:
    """The index of a corpus that `tokenize` finished."""
    path = out / "index.json"
    if not path.is_file():
        unfinished = (out / "plan.json").is_file()
        raise ValueError(
            f"{out}: {'not finished: run the same command again' if unfinished else 'no tokenized corpus'}"
        )
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


def verify(out: Path, progress: Callable[[], None] = lambda: None) -> list[str]:
    """What is wrong with a tokenized corpus: lines on shards that are not what the index says; none if all is well.

    progress: called after each shard.
    """
    index = read_index(out)
    wrong = []
    for entry in index["shards"]:
        path = out / "shards" / entry["shard"]
        try:
            if file_digest(path) != entry["sha256"]:
                wrong.append(f"{path}: its checksum is another: delete it and run `vocable tokenize` again")
            else:
                frames = 0
                for name, clip in read_shard(path):
                    frames += int(clip.num_frames)
                    if clip.codec_id != index["plan"]["codec_id"]:
                        wrong.append(f"{path}: {name} is of {clip.codec_id}")
                if frames != entry["frames"]:
                    wrong.append(f"{path}: {frames} frames, not the {entry['frames']} of the index")
        except (ValueError, OSError) as error:
            wrong.append(f"{path}: {error}")
        progress()
    return wrong
