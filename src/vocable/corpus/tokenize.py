"""A corpus as tokens: shards whose bytes follow from the manifest and the plan alone.

    OUT/plan.json             token id, layers, format, sizes, and the clips of each shard: what decides the bytes
    OUT/shards/00000.tar ...  a token file for each clip, ID.safetensors, as `Encoded.load` reads them; or 00000.parquet
    OUT/shards/00000.json     its checksum, its clips and their places; clips that were left out, and why
    OUT/index.json            when all are there: shards, checksums, sums

A shard is the atomic unit. Its members, their order and the batches that they are encoded in follow from manifest and
plan, each batch runs on one thread, and nothing of the clock or of users is written: so an interrupted and resumed run,
one worker or many, here or on a cluster of like machines, gives the same bytes.

A corpus may grow: clips that a later manifest adds become further shards, and those that stand are not touched.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import numpy as np
import torch

from vocable import audio
from vocable.audio import AudioError, ChannelsWarning
from vocable.codec.layers import Recurrence
from vocable.codec.load import load_codec
from vocable.codec.tokens import Encoded, TokensError
from vocable.corpus.manifest import Utterance, groups_by_duration, parse_json
from vocable.extras import need
from vocable.files import atomic_path, file_digest
from vocable.lock import one_at_a_time

Format = Literal["tar", "parquet"]
Entry = dict[str, Any]  #: of the index: one shard, as JSON


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of a tokenized corpus, besides its manifest."""

    codec: str | None  #: as load_codec takes it; where it lies decides nothing
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

    Utterances that the corpus does not have yet, by their ids, become further shards. A shard with clips that were left
    out is made again: what was wrong may be mended. progress: called with the seconds of speech that are ready, at once
    with those of shards that stand. Raises ValueError if OUT was begun with another plan, if it has utterances that are
    not among these, or of another duration, or if the manifest cannot be planned from.
    """
    check_manifest(utterances)
    with one_at_a_time(out, "shards"):
        shards = _plan_shards(out, plan, utterances)
        todo = []
        for shard in shards:
            if _stands(out, plan, shard):
                progress(shard.seconds)
            else:
                todo.append(shard)
        seconds = {shard.number: shard.seconds for shard in todo}
        for number in engine(plan, out, todo):
            progress(seconds[number])
        made = plan.decides() | {"manifest": _digest([u for shard in shards for u in shard.utterances])}
        index: dict[str, Any] = {"plan": made, "clips": 0, "frames": 0, "hours": 0.0, "downmixed": 0, "left_out": {}}
        index["shards"] = []
        for shard in shards:
            entry, digest = read_entry(out, shard.name)
            index["clips"] += len(entry["clips"])
            index["frames"] += entry["frames"]
            index["hours"] += entry["seconds"] / 3600
            index["downmixed"] += entry.get("downmixed", 0)
            index["left_out"] |= entry["left_out"]
            kept = {key: entry[key] for key in ("shard", "sha256", "seconds", "frames")}
            index["shards"].append(kept | {"clips": len(entry["clips"]), "entry_sha256": digest})
        index["hours"] = round(index["hours"], 6)
        with atomic_path(out / "index.json") as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


def check_manifest(utterances: Sequence[Utterance]) -> None:
    """Raises ValueError for durations that nothing can be planned from, and for ids that no file can be named after."""
    seen = set()
    for utterance in utterances:
        if not 0 < utterance.duration < math.inf:
            raise ValueError(f"{utterance.id}: lasts {utterance.duration} s: run `vocable prepare` for a manifest")
        try:
            utterance.id.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{utterance.id!r} is not UTF-8: rename its file") from None
        if utterance.id in seen:
            raise ValueError(f"the id {utterance.id!r} occurs twice")
        seen.add(utterance.id)


def _plan_shards(out: Path, plan: Plan, utterances: Sequence[Utterance]) -> list[Shard]:
    """The corpus's shards: those that OUT/plan.json lists, then those of new utterances, which are noted there."""
    path, decides = out / "plan.json", plan.decides()
    (out / "shards").mkdir(exist_ok=True)
    if not path.exists() and any((out / "shards").iterdir()):
        raise ValueError(f"{out} holds other results; choose another folder")
    listed = _read_plan(path, decides, utterances) if path.exists() else []
    known = {u.id: u for u in utterances}
    planned = {name: duration for clips in listed for name, duration in clips}
    for fault, names in (
        ("lacks", [name for name in planned if name not in known]),
        (
            "has another length for",
            [n for n, duration in planned.items() if n in known and known[n].duration != duration],
        ),
    ):
        if names:
            few = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
            raise ValueError(
                f"{out}: this manifest {fault} {len(names)} of its clips ({few}); mend it, or choose another folder"
            )
    groups = [[known[name] for name, _ in clips] for clips in listed]
    groups += groups_by_duration([u for u in utterances if u.id not in planned], plan.shard_seconds)
    # Also where nothing is new: vocable 0.1 listed no clips.
    clips = [[[u.id, u.duration] for u in group] for group in groups]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(decides | {"shards": clips}) + "\n", encoding="utf-8")
    return [Shard(number, group) for number, group in enumerate(groups)]


def _read_plan(path: Path, decides: dict[str, Any], utterances: Sequence[Utterance]) -> list[list[tuple[str, float]]]:
    """Ids and durations of the clips of each shard that was planned. Raises ValueError if another plan decided them."""
    before = _read_object(path, f"choose another folder than {path.parent}")
    if other := [f"{key} {before.get(key)}, not {value}" for key, value in decides.items() if before.get(key) != value]:
        raise ValueError(f"{path.parent} was begun with {'; '.join(other)}: choose another folder")
    if "shards" not in before:  # of vocable 0.1: it has its manifest's hash
        if before.get("manifest") != _digest(utterances):
            raise ValueError(
                f"{path.parent} was begun by vocable 0.1 with another manifest: run the command once with that one, "
                "then the corpus can grow; or choose another folder"
            )
        return [
            [(u.id, u.duration) for u in group] for group in groups_by_duration(utterances, decides["shard_seconds"])
        ]
    try:
        return [[(str(name), float(duration)) for name, duration in clips] for clips in before["shards"]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged: choose another folder") from error


def _digest(utterances: Sequence[Utterance]) -> str:
    """SHA-256 of ids and durations."""
    return hashlib.sha256(json.dumps([[u.id, u.duration] for u in utterances]).encode()).hexdigest()


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
    again = "delete it and run `vocable tokenize` again"
    entry = _read_object(path, again)
    try:
        whole = (
            _is_part(entry)
            and all(len(place) == 3 and all(map(_is_count, place)) for place in entry["clips"].values())
            and all(isinstance(why, str) for why in entry["left_out"].values())
            and _is_count(entry.get("downmixed", 0))
        )
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path}: damaged: {again}")
    return entry, file_digest(path)


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    """Raises ValueError, with `advice`, for a file that holds no JSON object."""
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}): {advice}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged: {advice}")
    return content


def _is_part(entry: dict[str, Any]) -> bool:
    """Whether the fields that a shard's .json and its row of the index share are as `Worker` writes them.

    The shard's name is a plain one: no index leads out of the folder.
    """
    return (
        re.fullmatch(r"\d{5,}\.(tar|parquet)", entry["shard"]) is not None
        and isinstance(entry["sha256"], str)
        and isinstance(entry["seconds"], (int, float))
        and _is_count(entry["frames"])
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


class Worker:
    """A codec, and what it makes of shards, on one thread of torch's: with more, sums come out in another order."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        self.codec = load_codec(
            plan.codec, device=plan.device, parts="encoder", recurrence=plan.recurrence, compile=plan.compile
        )
        if self.codec.token_id != plan.token_id:
            raise ValueError(
                f"{plan.codec or 'the embedded codec'} makes {self.codec.token_id} here, "
                f"and made {plan.token_id} when this was planned"
            )

    def __call__(self, shard: Shard) -> int:
        """Write a shard; returns its number."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ChannelsWarning)
                tokens, left_out = self._tokenize(shard.utterances)
        finally:
            torch.set_num_threads(threads)
        downmixed = [warning.category is ChannelsWarning for warning in caught]
        for warning, counted in zip(caught, downmixed, strict=True):
            if not counted:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
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
            "downmixed": sum(downmixed),
            "left_out": {u.id: left_out[u.id] for u in shard.utterances if u.id in left_out},
        }
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
        return shard.number

    def _tokenize(self, utterances: Sequence[Utterance]) -> tuple[dict[str, Encoded], dict[str, str]]:
        """Tokens of the clips, and why others are left out."""
        tokens: dict[str, Encoded] = {}
        left_out: dict[str, str] = {}
        batches = batches_of(utterances, self.plan.batch_seconds)
        # The next batch is read while this one is encoded: decoders and resamplers let go of Python's lock.
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, batches[0])
            for i in range(len(batches)):
                waveforms, unreadable = coming.result()
                coming = reader.submit(self._read, batches[i + 1] if i + 1 < len(batches) else [])
                left_out |= unreadable
                tokens |= self._encode(waveforms, left_out)
        return tokens, left_out

    def _encode(self, waveforms: Mapping[str, np.ndarray], left_out: dict[str, str]) -> dict[str, Encoded]:
        """Tokens of each clip; what the codec refuses, or memory does not hold, goes to `left_out`."""
        layers = slice(self.plan.start, self.plan.stop)
        most = self.plan.batch_seconds * self.codec.sample_rate
        padded = len(waveforms) * max(map(len, waveforms.values()), default=0)
        if len(waveforms) > 1 and padded <= 2 * most:  # longer than the manifest says, they would not fit in memory
            try:
                encoded = self.codec.encode(list(waveforms.values()), layers=layers)
                return dict(zip(waveforms, encoded.clips(), strict=True))
            except (AudioError, MemoryError, RuntimeError) as error:
                if not _is_of_clips(error):
                    raise
                # One of them is bad: which?
        tokens = {}
        for name, waveform in waveforms.items():
            try:
                tokens[name] = self.codec.encode_long(waveform, layers=layers)
            except (AudioError, MemoryError, RuntimeError) as error:
                if not _is_of_clips(error):
                    raise
                left_out[name] = _reason(error)
        return tokens

    def _read(self, batch: Sequence[Utterance]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        waveforms, unreadable = {}, {}
        for utterance in batch:
            try:
                waveforms[utterance.id] = audio.read(utterance.path, self.codec.sample_rate)[0]
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                # Without the path: the same corpus elsewhere has the same index.
                unreadable[utterance.id] = _reason(error).replace(f"{utterance.path}: ", "")
        return waveforms, unreadable


def _is_of_clips(error: Exception) -> bool:
    """Whether an error of encoding lies in the clips, or in their length."""
    return isinstance(error, AudioError) or _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    # numpy and soxr raise MemoryError, torch RuntimeError("... can't allocate memory ...", "... out of memory ...").
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))


def _reason(error: Exception) -> str:
    if _is_out_of_memory(error):
        return "not enough memory for it: cut it into shorter recordings"
    return " ".join(str(error).split())


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
        for name, data in (_read_parquet if path.suffix == ".parquet" else _read_tar)(path):
            yield name, Encoded.from_bytes(data, f"{path}, {name}")
    except (tarfile.TarError, OSError, MemoryError, OverflowError) as error:
        raise TokensError(f"{path}: not a whole shard ({error or type(error).__name__})") from error


def _read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:  # not compressed: what is read is no larger than the file
        for member in tar:
            file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if file is None or member.offset_data + member.size > size:
                raise TokensError(f"{path}: {member.name!r} is not a plain file of this shard")
            yield unquote(member.name.removesuffix(".safetensors")), file.read()


def _read_parquet(path: Path) -> Iterator[tuple[str, bytes]]:
    pyarrow, parquet = need("pyarrow", "parquet"), need("pyarrow.parquet", "parquet")
    try:
        for row in parquet.read_table(path, columns=["id", "tokens"]).to_pylist():
            if not (isinstance(row.get("id"), str) and isinstance(row.get("tokens"), bytes)):
                raise TokensError(f"{path}: a row without an id and tokens")
            yield row["id"], row["tokens"]
    except pyarrow.ArrowException as error:
        raise TokensError(f"{path}: not a whole shard ({error})") from error


def read_index(out: Path) -> dict[str, Any]:
    """The index of a corpus that `tokenize` finished. Raises ValueError where there is none, or a damaged one.

    Vocable 0.1 wrote the codec's id, "codec_id", into the plan; it is given as the "token_id", as in `Encoded`.
    """
    path = out / "index.json"
    if not path.is_file():
        unfinished = (out / "plan.json").is_file()
        raise ValueError(
            f"{out}: {'not finished: run the same command again' if unfinished else 'no tokenized corpus'}"
        )
    again = "run `vocable tokenize` again"
    index = _read_object(path, again)
    try:
        if "codec_id" in index["plan"]:
            index["plan"]["token_id"] = index["plan"].pop("codec_id")
        texts = [index["plan"][key] for key in ("token_id", "format", "manifest")]
        whole = all(isinstance(text, str) for text in texts) and isinstance(index["shards"], list)
        for row in index["shards"]:
            whole = whole and _is_part(row) and _is_count(row["clips"]) and isinstance(row["entry_sha256"], str)
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path}: damaged: {again}")
    return index


def verify(out: Path, progress: Callable[[], None] = lambda: None) -> list[str]:
    """What is wrong with a tokenized corpus: lines on shards that are not what the index says; none if all is well.

    progress: called after each shard. Raises ValueError for an index that cannot be read.
    """
    index = read_index(out)
    wrong = []
    for row in index["shards"]:
        path = out / "shards" / row["shard"]
        try:
            again = "delete it and run `vocable tokenize` again"
            listed, digest = read_entry(out, path.stem)
            if file_digest(path) != row["sha256"]:
                wrong.append(f"{path}: its checksum is another: {again}")
            elif digest != row["entry_sha256"]:
                wrong.append(f"{path.with_suffix('.json')}: its checksum is another: {again}")
            elif len(listed["clips"]) != row["clips"]:
                wrong.append(f"{path}: holds {len(listed['clips'])} clips, not the index's {row['clips']}: {again}")
            else:
                frames = {name: int(clip.num_frames) for name, clip in read_shard(path)}
                if frames != {name: place[2] for name, place in listed["clips"].items()}:
                    wrong.append(f"{path}: holds other clips than {path.stem}.json says: {again}")
        except (ValueError, OSError) as error:
            wrong.append(f"{path}: {error}")
        progress()
    return wrong
