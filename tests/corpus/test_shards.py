"""Shards of many clips, and corpora that are damaged or hostile; made without a codec."""

from __future__ import annotations

import copy
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from conftest import run_command
from vocable.codec.tokens import Encoded, TokensError
from vocable.corpus.dataset import TokenDataset, TokenStream, collate
from vocable.corpus.index import read_entry, read_index
from vocable.corpus.manifest import Utterance
from vocable.corpus.plan import Plan, plan_shards
from vocable.corpus.shards import member_name, read_shard, write_shard
from vocable.corpus.verify import verify
from vocable.files import file_digest

DEEP = "[" * 100_000


def tokens_of(names: list[str]) -> dict[str, Encoded]:
    """Clips of one to nine frames whose codes are their numbers."""
    return {
        name: Encoded(
            codes=torch.full((1, 2, frames), i % 1000),
            num_frames=torch.tensor([frames]),
            num_samples=torch.tensor([320 * frames]),
            layers=slice(0, 2),
            token_id="tiny-0",
            sample_rate=16_000,
            frame_rate=50.0,
        )
        for i, name in enumerate(names)
        for frames in (1 + i % 9,)
    }


def write(out: Path, shards: list[list[str]], format: str = "tar") -> Path:
    """A corpus of these shards of clips."""
    (out / "shards").mkdir(parents=True)
    index: dict[str, Any] = {"plan": {"token_id": "tiny-0", "format": format, "manifest": "0"}, "shards": []}
    for number, names in enumerate(shards):
        tokens = tokens_of(names)
        path = out / "shards" / f"{number:05d}.{format}"
        places = write_shard(path, tokens)
        frames = sum(int(t.num_frames) for t in tokens.values())
        part = {"shard": path.name, "sha256": file_digest(path), "seconds": 1.0, "frames": frames}
        clips = {name: [*place, int(tokens[name].num_frames)] for name, place in places.items()}
        entry = path.with_suffix(".json")
        entry.write_text(json.dumps(part | {"clips": clips, "left_out": {}}))
        index["shards"].append(part | {"clips": len(clips), "entry_sha256": file_digest(entry)})
    (out / "index.json").write_text(json.dumps(index))
    return out


def update_checksums(out: Path) -> None:
    """Update the checksums of the index, as an attacker would."""
    index = json.loads((out / "index.json").read_text())
    for row in index["shards"]:
        path = out / "shards" / row["shard"]
        row |= {"sha256": file_digest(path), "entry_sha256": file_digest(path.with_suffix(".json"))}
    (out / "index.json").write_text(json.dumps(index))


def readers(out: Path) -> list[Callable[[], object]]:
    return [
        lambda: read_index(out),
        lambda: TokenDataset(out),
        lambda: list(TokenStream(out, passes=1)),
        lambda: verify(out),
    ]


@pytest.mark.parametrize("format", ["tar", "parquet"])
def test_a_shard_of_many_clips_with_any_names(tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    names = [f"folder {i % 7}/{i}.é%" + "x" * (i % 150) for i in range(1200)]
    out = write(tmp_path / "out", [names, names[:0], ["last"]], format)
    assert verify(out) == []
    assert [name for name, _ in read_shard(out / "shards" / f"00000.{format}")] == names
    stream = TokenStream(out, passes=1, buffer=10)
    seen = {example["id"]: example for example in stream}
    assert sorted(seen) == sorted([*names, "last"]) and stream.state_dict()["pass"] == 1
    assert int(seen[names[1199]]["codes"][0, 0]) == 199
    if format == "tar":
        data = TokenDataset(out)
        assert data.ids == [*names, "last"] and data.num_frames[:1200] == [1 + i % 9 for i in range(1200)]
        assert all(int(data[i]["codes"][0, 0]) == i % 1000 for i in (0, 1, 1000, 1199))
        batch = next(iter(DataLoader(data, batch_size=64, collate_fn=collate)))
        assert batch["codes"].shape == (64, 2, 9)


def test_a_damaged_index_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write(tmp_path / "out", [["a", "b"], ["c"]])
    good = json.loads((out / "index.json").read_text())
    broken: list[Any] = [{}, [], None, 5, "x", good | {"shards": None}, good | {"shards": {}}, good | {"plan": []}]
    for key in ("token_id", "format", "manifest"):
        broken.append(good | {"plan": {k: v for k, v in good["plan"].items() if k != key}})
    outside = ("../../etc/passwd", "/etc/passwd", "00000.tar/../../x.tar", "00000.zip", 5, None, ["00000.tar"])
    wrong = [(key, value) for key in good["shards"][0] for value in ([], None, -1, "3")]
    for key, value in [*wrong, *(("shard", name) for name in outside)]:
        if (key, value) not in (("seconds", -1), ("sha256", "3"), ("entry_sha256", "3")):
            changed = copy.deepcopy(good)
            changed["shards"][1][key] = value
            broken.append(changed)
        changed = copy.deepcopy(good)
        del changed["shards"][1][key]
        broken.append(changed)
    for text in [*map(json.dumps, broken), "", "{", DEEP, '{"unread": ' + DEEP]:
        (out / "index.json").write_text(text)
        for read in readers(out):
            with pytest.raises(ValueError, match=r"index\.json: damaged.*: run `vocable tokenize` again"):
                read()
    capsys.readouterr()
    assert run_command("verify", out) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [["a", "b"], ["c"]])
    path = out / "shards" / "00000.json"
    good = json.loads(path.read_text())
    broken: list[Any] = [{}, [], good | {"clips": []}, good | {"clips": {"a": [0, 5]}}, good | {"left_out": []}]
    broken += [good | {"clips": {"a": place}} for place in ([-1, 5, 1], [0, 2**70, 1], ["0", 5, 1], 3, None)]
    broken += [good | {"left_out": {"a": 5}}, good | {"downmixed": "2"}]
    for text in [*map(json.dumps, broken), "{", DEEP]:
        path.write_text(text)
        with pytest.raises(ValueError, match=r"00000\.json: damaged"):
            read_entry(out, "00000")
        with pytest.raises(ValueError, match=r"00000\.json: damaged"):
            TokenDataset(out)
        [line] = verify(out)
        assert "00000.json: damaged" in line


def test_a_place_behind_the_end_of_a_shard(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [["a", "b"]])
    path = out / "shards" / "00000.json"
    entry = json.loads(path.read_text())
    entry["clips"]["b"][1] = 2**40
    path.write_text(json.dumps(entry))
    data = TokenDataset(out)
    assert data[0]["id"] == "a"
    with pytest.raises(TokensError, match="its place is behind the shard's end"):
        data[1]


def member(name: str, data: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def sparse(size: int) -> bytes:
    """Return a sparse member in the old format of GNU: it claims `size` bytes and holds none."""
    header = bytearray(tarfile.TarInfo("a.safetensors").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = header[398:410] = b"%011o\0" % 0
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def hostile(kind: str, whole: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        if kind in ("symbolic link", "hard link", "link to itself", "folder", "fifo"):
            types = {"hard link": tarfile.LNKTYPE, "folder": tarfile.DIRTYPE, "fifo": tarfile.FIFOTYPE}
            target = "a.safetensors" if kind == "link to itself" else "elsewhere"
            tar.addfile(*member("a.safetensors", type=types.get(kind, tarfile.SYMTYPE), linkname=target)[:1])
        elif kind == "larger than the file":
            info, _ = member("a.safetensors")
            info.size = 2**41
            buffer.write(info.tobuf(tarfile.GNU_FORMAT))
        elif kind == "a name of terabytes":
            info, _ = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)
            info.size = 2**42
            buffer.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return {
        "compressed": gzip.compress(whole + bytes(2**20)),
        "sparse": sparse(2**42),
        "cut in a clip": whole[:700],
        "nothing": b"",
        "no tar": b"no tar at all" * 100,
    }.get(kind, buffer.getvalue())


@pytest.mark.parametrize(
    "kind",
    [
        *("symbolic link", "hard link", "link to itself", "folder", "fifo", "sparse", "compressed", "nothing"),
        *("larger than the file", "a name of terabytes", "cut in a clip", "no tar"),
    ],
)
def test_hostile_and_damaged_tars(kind: str, tmp_path: Path) -> None:
    out = write(tmp_path / "out", [["a"]])
    path = out / "shards" / "00000.tar"
    path.write_bytes(hostile(kind, path.read_bytes()))
    update_checksums(out)
    with pytest.raises(TokensError, match=r"00000\.tar"):
        list(read_shard(path))
    with pytest.raises(TokensError, match=r"00000\.tar"):
        list(TokenStream(out, passes=1))
    [line] = verify(out)
    assert "00000.tar" in line


def test_a_shard_cut_between_clips(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [["a", "b", "c"]])
    path = out / "shards" / "00000.tar"
    place = json.loads(path.with_suffix(".json").read_text())["clips"]["b"]
    path.write_bytes(path.read_bytes()[: place[0] - tarfile.BLOCKSIZE])
    update_checksums(out)
    assert [name for name, _ in read_shard(path)] == ["a"]
    with pytest.raises(TokensError, match="holds 1 clips, not the 3 of the index"):
        list(TokenStream(out, passes=1))
    assert "holds other clips" in verify(out)[0]


def test_an_index_with_a_wrong_number_of_clips(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [["a", "b"]])
    index = json.loads((out / "index.json").read_text())
    index["shards"][0]["clips"] = 3
    (out / "index.json").write_text(json.dumps(index))
    assert "holds 2 clips, not the index's 3" in verify(out)[0]


def test_damaged_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    out = write(tmp_path / "out", [["a"]], "parquet")
    path = out / "shards" / "00000.parquet"
    whole = path.read_bytes()
    other = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": [1], "tokens": ["x"]}), other)
    without = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": ["a"]}), without)
    for content in (whole[:-50], b"", other.getvalue(), without.getvalue(), whole[:8] + bytes(8) + whole[16:]):
        path.write_bytes(content)
        update_checksums(out)
        with pytest.raises(TokensError, match=r"00000\.parquet"):
            list(read_shard(path))
        assert len(verify(out)) == 1


def test_a_damaged_plan(tmp_path: Path) -> None:
    plan = Plan(codec=None, token_id="tiny-0", start=0, stop=2)
    utterances = [Utterance("a", Path("a"), 1.0)]
    plan_shards(tmp_path, plan, utterances)
    path = tmp_path / "plan.json"
    good = json.loads(path.read_text())
    for content in ("{", "[]", DEEP, *(json.dumps(good | {"shards": s}) for s in (None, 5, [["a"]], [[["a", "b"]]]))):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"plan\.json: damaged"):
            plan_shards(tmp_path, plan, utterances)
    path.unlink()
    (tmp_path / "shards" / "x").touch()
    with pytest.raises(ValueError, match="holds other results"):
        plan_shards(tmp_path, plan, utterances)


# ---- positions -------------------------------------------------------------------------------------------------------


def test_a_position_is_valid_for_one_number_of_readers(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [[f"{shard}-{i}" for i in range(20)] for shard in range(4)])
    stream = TokenStream(out, passes=1)
    reader = iter(stream)
    head = [next(reader)["id"] for _ in range(30)]
    state = json.loads(json.dumps(stream.state_dict()))
    again = TokenStream(out, passes=1)
    again.load_state_dict(state)
    with pytest.raises(ValueError, match="one of 1 readers, and there are 2 now"):
        list(DataLoader(again, batch_size=None, num_workers=2))
    again.load_state_dict(state)
    rest = [example["id"] for example in DataLoader(again, batch_size=None)]
    assert len(set(head + rest)) == len(head + rest) == 80
    between = again.state_dict()  # passes: any number of readers may begin one
    again.load_state_dict(between)
    assert len(list(DataLoader(again, batch_size=None, num_workers=2))) == 80
    old = {key: value for key, value in state.items() if key not in ("rank", "readers")}  # of vocable 0.1
    again.load_state_dict(old)
    assert [example["id"] for example in again] == rest
    ranks = [TokenStream(out, rank=rank, world_size=2) for rank in range(2)]
    with pytest.raises(ValueError, match="another rank"):
        ranks[1].load_state_dict(ranks[0].state_dict())


def test_no_position_while_workers_read(tmp_path: Path) -> None:
    out = write(tmp_path / "out", [[f"{shard}-{i}" for i in range(20)] for shard in range(4)])
    stream = TokenStream(out, passes=1)
    assert len(list(DataLoader(stream, batch_size=None, num_workers=2))) == 80
    with pytest.raises(ValueError, match="StatefulDataLoader"):
        stream.state_dict()
    next(iter(stream))
    assert stream.state_dict()["done"] == 1


def test_the_error_for_too_few_shards_names_the_option(tmp_path: Path) -> None:
    stream = TokenStream(write(tmp_path / "out", [["a"]]))
    with pytest.raises(ValueError, match=r"1 shards cannot be divided among 2 readers: .*--shard-minutes"):
        list(DataLoader(stream, batch_size=None, num_workers=2))


def test_names_in_a_shard_are_safe_to_unpack() -> None:
    assert member_name("../a b/c.d") == "%2E%2E%2Fa b%2Fc%2Ed.safetensors"
