"""A corpus as tokens: shards whose bytes follow from the manifest and the plan alone.

    OUT/plan.json             token id, layers, format, sizes, the manifest's hash: what decides the bytes
    OUT/shards/00000.tar ...  a token file for each clip, ID.safetensors, as `Encoded.load` reads them; or 00000.parquet
    OUT/shards/00000.json     its checksum, its clips and their places; clips that were left out, and why
    OUT/index.json            when all are there: shards, checksums, sums

A shard is the atomic unit. Its members, their order and the batches that they are encoded in follow from manifest and
plan, each batch runs on one thread, and nothing of the clock or of users is written: so an interrupted and resumed run,
one worker or many, here or on a cluster of like machines, gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import numpy as np
import torch

from vocable import audio
from vocable.audio import AudioError
from vocable.codec.encodec import load_codec
from vocable.codec.layers import Recurrence
from vocable.codec.tokens import Encoded, TokensError
from vocable.corpus.manifest import Utterance, groups_by_duration
from vocable.extras import need
from vocable.files import atomic_path, file_digest, same_plan_or_refuse

Format = Literal["tar", "parquet"]
Entry = dict[str, Any]  #: of the index: one shard, as JSON


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of a tokenized corpus, besides its manifest."""

    codec: str  #: as load_codec takes it; where it lies decides nothing
    token_id: str  #: of the codec
    start: int  #: of the layers
    stop: int
    format: Format = "tar"
    shard_seconds: float = 1800.0  #: of speech in a shard: what a kill costs at most, for each worker
    batch_seconds: float = 60.0  #: of speech in a batch, padding included; a longer clip is encoded in chunks
    device: str = "cpu"  #: or cuda: its sums come out in another order, and near ties with them
    recurrence: Recurrence = "float32"  #: as from_pretrained has it
    compile: bool = False  #: the same

    def decides(self) -> dict[str, Any]:
        """As JSON, what two corpora must have in common to be one."""
        return {key: value for key, value in asdict(self).items() if key != "codec"}


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


#: Runs a worker over shards somewhere, and yields their numbers as they are done (`engines.py`).
Engine = Callable[[Plan, Path, Sequence[Shard]], Iterator[int]]


def tokenize(
    utterances: Sequence[Utterance],
    out: Path,
    plan: Plan,
    engine: Engine,
    progress: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Write OUT; shards that stand already are kept. Returns the index.

    A shard with clips that were left out is made again: what was wrong may be mended. progress: called with the seconds
    of speech that are ready, at once with those of shards that stand. Raises ValueError if OUT was begun with another
    plan or manifest, or the manifest cannot be planned from.
    """
    check_manifest(utterances)
    manifest = hashlib.sha256(json.dumps([[u.id, u.duration] for u in utterances]).encode()).hexdigest()
    decides = plan.decides() | {"manifest": manifest}
    (out / "shards").mkdir(parents=True, exist_ok=True)
    with one_at_a_time(out):
        same_plan_or_refuse(out, decides, "codec, manifest or setting", parts="shards/*")
        for stale in (out / "shards").glob(".*.tmp.*"):  # of workers that were killed
            stale.unlink(missing_ok=True)
        shards = [Shard(i, group) for i, group in enumerate(groups_by_duration(utterances, plan.shard_seconds))]
        todo = []
        for shard in shards:
            if _stands(out, plan, shard):
                progress(shard.seconds)
            else:
                todo.append(shard)
        seconds = {shard.number: shard.seconds for shard in todo}
        for number in engine(plan, out, todo):
            progress(seconds[number])
        index: dict[str, Any] = {"plan": decides, "clips": 0, "frames": 0, "hours": 0.0, "left_out": {}, "shards": []}
        for shard in shards:
            entry, digest = read_entry(out, shard.name)
            index["clips"] += len(entry["clips"])
            index["frames"] += entry["frames"]
            index["hours"] += entry["seconds"] / 3600
            index["left_out"] |= entry["left_out"]
            kept = {key: entry[key] for key in ("shard", "sha256", "seconds", "frames")}
            index["shards"].append(kept | {"clips": len(entry["clips"]), "entry_sha256": digest})
        index["hours"] = round(index["hours"], 6)
        with atomic_path(out / "index.json") as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


def check_manifest(utterances: Sequence[Utterance]) -> None:
    """Raises ValueError for durations that nothing can be planned from, and for ids that no file can be named after."""
    for utterance in utterances:
        if not 0 < utterance.duration < math.inf:
            raise ValueError(f"{utterance.id}: lasts {utterance.duration} s: run `vocable prepare` for a manifest")
        try:
            utterance.id.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{utterance.id!r} is not UTF-8: rename its file") from None


@contextlib.contextmanager
def one_at_a_time(out: Path) -> Iterator[None]:
    """Refuse a second run in the same folder, where the file system can tell."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out}: another run is at work here") from None
        except OSError:  # a file system without locks
            pass
        yield


def _stands(out: Path, plan: Plan, shard: Shard) -> bool:
    path = out / "shards" / f"{shard.name}.json"
    return (
        path.is_file()
        and path.with_suffix(f".{plan.format}").is_file()
        and not read_entry(out, shard.name)[0]["left_out"]
    )


def read_entry(out: Path, name: str) -> tuple[Entry, str]:
    """A shard's .json, and its SHA-256. Raises ValueError for one that is damaged."""
    path = out / "shards" / f"{name}.json"
    data = path.read_bytes()
    try:
        entry: Entry = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path}: damaged: delete it and run `vocable tokenize` again") from error
    return entry, hashlib.sha256(data).hexdigest()


class Worker:
    """A codec, and what it makes of shards. One a process: on a CPU it takes one thread."""

    def __init__(self, plan: Plan, out: Path) -> None:
        torch.set_num_threads(1)
        self.plan, self.out = plan, out
        self.codec = load_codec(
            plan.codec, device=plan.device, parts="encoder", recurrence=plan.recurrence, compile=plan.compile
        )
        if self.codec.token_id != plan.token_id:
            raise ValueError(
                f"{plan.codec} makes {self.codec.token_id} here, and made {plan.token_id} when this was planned"
            )

    def __call__(self, shard: Shard) -> int:
        """Write a shard; returns its number."""
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
                tokens |= self._encode(waveforms, left_out)
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
        return shard.number

    def _encode(self, waveforms: Mapping[str, np.ndarray], left_out: dict[str, str]) -> dict[str, Encoded]:
        """Tokens of each clip; what the codec refuses goes to `left_out`."""
        layers = slice(self.plan.start, self.plan.stop)
        most = self.plan.batch_seconds * self.codec.sample_rate
        padded = len(waveforms) * max(map(len, waveforms.values()), default=0)
        if len(waveforms) > 1 and padded <= 2 * most:  # longer than the manifest says, they would not fit in memory
            try:
                encoded = self.codec.encode(list(waveforms.values()), layers=layers)
                return dict(zip(waveforms, encoded.clips(), strict=True))
            except AudioError:  # one of them is bad: which?
                pass
        tokens = {}
        for name, waveform in waveforms.items():
            try:
                tokens[name] = self.codec.encode_long(waveform, layers=layers)
            except AudioError as error:
                left_out[name] = " ".join(str(error).split())
        return tokens

    def _read(self, batch: Sequence[Utterance]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        waveforms, unreadable = {}, {}
        for utterance in batch:
            try:
                waveforms[utterance.id] = audio.read(utterance.path, self.codec.sample_rate)[0]
            except (ValueError, OSError, RuntimeError) as error:
                # Without the path: the same corpus elsewhere has the same index.
                unreadable[utterance.id] = " ".join(str(error).replace(f"{utterance.path}: ", "").split())
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
            member = tarfile.TarInfo(f"{_escaped(name)}.safetensors")  # no time, no owner, mode 0644
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            places[name] = (tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data))
    return places


def _escaped(name: str) -> str:
    """An id as a file name that is safe to unpack, and without a dot, at which WebDataset ends a sample's name."""
    return quote(name, safe=" +,@=()[]").replace(".", "%2E")


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
                    name, file = unquote(member.name.removesuffix(".safetensors")), tar.extractfile(member)
                    yield name, Encoded.from_bytes(file.read() if file else b"", f"{path}, {name}")
    except (tarfile.TarError, OSError) as error:
        raise TokensError(f"{path}: not a whole shard ({error})") from error


def read_index(out: Path) -> dict[str, Any]:
    """The index of a corpus that `tokenize` finished.

    Vocable 0.1 wrote the codec's id, "codec_id", into the plan; it is given as the "token_id", as in `Encoded`.
    """
    path = out / "index.json"
    if not path.is_file():
        unfinished = (out / "plan.json").is_file()
        raise ValueError(
            f"{out}: {'not finished: run the same command again' if unfinished else 'no tokenized corpus'}"
        )
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "codec_id" in index["plan"]:
        index["plan"]["token_id"] = index["plan"].pop("codec_id")
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
            again = "delete it and run `vocable tokenize` again"
            listed, digest = read_entry(out, path.stem)
            if file_digest(path) != entry["sha256"]:
                wrong.append(f"{path}: its checksum is another: {again}")
            elif digest != entry["entry_sha256"]:
                wrong.append(f"{path.with_suffix('.json')}: its checksum is another: {again}")
            else:
                frames = {name: int(clip.num_frames) for name, clip in read_shard(path)}
                if frames != {name: place[2] for name, place in listed["clips"].items()}:
                    wrong.append(f"{path}: holds other clips than {path.stem}.json says: {again}")
        except (ValueError, OSError) as error:
            wrong.append(f"{path}: {error}")
        progress()
    return wrong
