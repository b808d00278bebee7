"""Tokenizing a corpus: equal bytes, resuming, growth, bad clips; and reading the corpus."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded
from vocable.corpus import engines, worker
from vocable.corpus.dataset import TokenDataset, TokenStream, collate
from vocable.corpus.engines import Local
from vocable.corpus.index import read_index
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.corpus.plan import Plan, Shard
from vocable.corpus.shards import Place, read_shard
from vocable.corpus.tokenize import Progress, tokenize
from vocable.corpus.verify import verify
from vocable.corpus.worker import Worker


def write_corpus(folder: Path, clips: int, bad: Sequence[int] = ()) -> Path:
    """Clips of half a second to one, some of them no audio, and a tiny codec."""
    make_tiny().save_pretrained(folder / "codec")
    speech, rate = audio.read(SPEECH, 16_000)
    rng = np.random.default_rng(0)
    lines = []
    for i in range(clips):
        size = int(rng.integers(8_000, 16_000))
        start = int(rng.integers(len(speech) - size))
        audio.write(folder / f"{i}.wav", speech[start : start + size], rate)
        if i in bad:
            (folder / f"{i}.wav").write_bytes(b"RIFF nonsense")
        lines.append(json.dumps({"id": f"clip-{i}", "path": f"{i}.wav", "duration": size / rate}))
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 24, bad=[7])


@dataclass
class InThisProcess:
    """An engine without other processes; interrupted after `stop_after` shards."""

    stop_after: int | None = None
    written: list[int] = field(default_factory=list)

    def run(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
        worker = Worker(plan, out) if shards else None
        for shard in shards[: self.stop_after]:
            assert worker is not None
            self.written.append(worker.write(shard))
            yield shard.number
        if self.stop_after is not None:
            raise KeyboardInterrupt


def planned(corpus: Path, **changes: object) -> tuple[list[Utterance], Plan]:
    codec = SpeechTokenizer.from_pretrained(corpus / "codec")
    settings = {"start": 0, "stop": 4, "shard_seconds": 4.0, "batch_seconds": 3.0, **changes}
    plan = Plan(codec=str(corpus / "codec"), token_id=codec.token_id, **settings)
    return read_manifest(corpus / "clips.jsonl"), plan


def digests(out: Path) -> dict[str, str]:
    files = [*(out / "shards").iterdir(), out / "index.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def tokens(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens")
    utterances, plan = planned(corpus)
    shown: list[Progress] = []
    index = tokenize(utterances, out=out, plan=plan, engine=InThisProcess(), progress=shown.append)
    assert shown[0].seconds == 0 and shown[-1].seconds == pytest.approx(sum(u.duration for u in utterances))
    assert len(shown) == 1 + len(index["shards"]) and shown[-1].speed > 0
    assert index == read_index(out)
    return out


def test_every_clip_has_the_codes_that_it_has_alone(corpus: Path, tokens: Path) -> None:
    index = read_index(tokens)
    assert len(index["shards"]) > 3 and index["clips"] == 23
    [(bad, why)] = index["left_out"].items()
    assert bad == "clip-7" and why.startswith("not readable as audio")
    codec = SpeechTokenizer.from_pretrained(corpus / "codec")
    utterances = {u.id: u for u in read_manifest(corpus / "clips.jsonl")}
    seen = []
    for entry in index["shards"]:
        for name, clip in read_shard(tokens / "shards" / entry["shard"]):
            alone = codec.encode(audio.read(utterances[name].path, 16_000)[0], layers=slice(0, 4))
            assert clip.codes.shape == alone.codes.shape and clip.layers == slice(0, 4)
            assert (clip.codes == alone.codes).double().mean() > 0.999  # near ties
            assert torch.equal(clip.num_samples, alone.num_samples)
            seen.append(name)
    assert seen == [name for name in utterances if name != "clip-7"]
    assert verify(tokens) == []


def test_interrupted_or_in_several_processes_the_bytes_are_the_same(corpus: Path, tokens: Path, tmp_path: Path) -> None:
    utterances, plan = planned(corpus)

    with pytest.raises(KeyboardInterrupt):
        tokenize(utterances, out=tmp_path, plan=plan, engine=InThisProcess(stop_after=2))
    (tmp_path / "shards" / ".0123456789ab.tmp.tar").write_bytes(b"of a worker that was killed")
    with pytest.raises(ValueError, match="not finished"):
        read_index(tmp_path)
    shown: list[Progress] = []
    tokenize(utterances, out=tmp_path, plan=plan, engine=Local(2), progress=shown.append)
    assert digests(tmp_path) == digests(tokens)
    assert shown[0].seconds > 0 and shown[-1].seconds == pytest.approx(shown[-1].total)
    moved = replace(plan, codec=f"{corpus}/../{corpus.name}/codec")  # the folder of a codec is not in the bytes
    engine = InThisProcess()
    tokenize(utterances, out=tmp_path, plan=moved, engine=engine)
    assert len(engine.written) == 1, "a shard with a clip that was left out is written again"
    assert digests(tmp_path) == digests(tokens)


def test_a_full_disk_costs_one_shard(
    corpus: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utterances, plan = planned(corpus)
    write, written = worker.write_shard, []

    def full(path: Path, clips: Mapping[str, Encoded]) -> dict[str, Place]:
        written.append(path)
        places = write(path, clips)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return places

    monkeypatch.setattr(worker, "write_shard", full)
    with pytest.raises(OSError, match="No space left"):
        tokenize(utterances, out=tmp_path, plan=plan, engine=InThisProcess())
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [
        f"0000{i}.{suffix}" for i in range(2) for suffix in ("json", "tar")
    ]
    tokenize(utterances, out=tmp_path, plan=plan, engine=InThisProcess())  # now the disk has space
    assert digests(tmp_path) == digests(tokens)


def test_another_plan_is_refused(corpus: Path, tokens: Path) -> None:
    utterances, plan = planned(corpus, shard_seconds=5.0)
    with pytest.raises(ValueError, match=r"was begun with shard_seconds 4\.0, not 5\.0: choose another folder"):
        tokenize(utterances, out=tokens, plan=plan, engine=InThisProcess())
    utterances, plan = planned(corpus)
    with pytest.raises(ValueError, match=r"manifest lacks 1 of its clips \(clip-0\)"):
        tokenize(utterances[1:], out=tokens, plan=plan, engine=InThisProcess())
    longer = [replace(u, duration=u.duration + 1) for u in utterances[:5]]
    with pytest.raises(ValueError, match=r"another length for 5 of its clips \(clip-0, clip-1, clip-2, \.\.\.\)"):
        tokenize([*longer, *utterances[5:]], out=tokens, plan=plan, engine=InThisProcess())


# ---- growth ----------------------------------------------------------------------------------------------------------


def test_a_corpus_grows(corpus: Path, tmp_path: Path) -> None:
    """New clips become further shards, wherever the manifest lists them; existing shards do not change."""
    utterances, plan = planned(corpus)
    first = [u for i, u in enumerate(utterances) if i % 3 and u.id != "clip-7"]
    before = tokenize(first, out=tmp_path, plan=plan, engine=InThisProcess())
    digests_before = digests(tmp_path)
    assert before == tokenize(first, out=tmp_path, plan=plan, engine=InThisProcess())
    engine = InThisProcess()
    index = tokenize(utterances, out=tmp_path, plan=plan, engine=engine)
    shards = len(before["shards"])
    assert engine.written == list(range(shards, len(index["shards"]))) and index["shards"][:shards] == before["shards"]
    assert {name: digest for name, digest in digests(tmp_path).items() if name in digests_before} | {
        "index.json": digests_before["index.json"]
    } == digests_before
    assert index["clips"] == 23 and list(index["left_out"]) == ["clip-7"] and verify(tmp_path) == []
    assert index["plan"]["manifest"] != before["plan"]["manifest"], (
        "positions in a stream of the smaller corpus are not valid"
    )
    assert sorted(TokenDataset(tmp_path).ids) == sorted(e["id"] for e in TokenStream(tmp_path, passes=1))
    assert len(set(TokenDataset(tmp_path).ids)) == 23
    with pytest.raises(ValueError, match="was begun with stop 4, not 1"):
        tokenize(utterances, out=tmp_path, plan=replace(plan, stop=1), engine=InThisProcess())


def test_an_interrupted_growth_is_resumed_and_can_grow(corpus: Path, tmp_path: Path) -> None:
    utterances, plan = planned(corpus)
    utterances = [u for u in utterances if u.id != "clip-7"]

    stages = utterances[:8], utterances[:15], utterances
    for undisturbed in stages:
        tokenize(undisturbed, out=tmp_path / "whole", plan=plan, engine=InThisProcess())
    for stage in stages:
        with pytest.raises(KeyboardInterrupt):
            tokenize(stage, out=tmp_path / "stopped", plan=plan, engine=InThisProcess(stop_after=1))
    assert not (tmp_path / "stopped" / "index.json").exists()
    tokenize(utterances, out=tmp_path / "stopped", plan=plan, engine=InThisProcess())
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):  # a finished corpus can be read while it grows
        tokenize(
            [*utterances, replace(utterances[0], id="more")],
            out=tmp_path / "whole",
            plan=plan,
            engine=InThisProcess(stop_after=1),
        )
    assert len(TokenDataset(tmp_path / "whole")) == 23 and verify(tmp_path / "whole") == []


def test_a_corpus_begun_by_vocable_0_1(corpus: Path, tokens: Path, tmp_path: Path) -> None:
    """Its plan.json has a digest of the manifest, and no list of clips."""
    utterances, plan = planned(corpus)
    shutil.copytree(tokens, tmp_path / "old")
    index = read_index(tokens)
    (tmp_path / "old" / "plan.json").write_text(json.dumps(index["plan"]))
    more = [*utterances, replace(utterances[0], id="more")]
    with pytest.raises(ValueError, match="run the command once with that one"):
        tokenize(more, out=tmp_path / "old", plan=plan, engine=InThisProcess())
    assert tokenize(utterances, out=tmp_path / "old", plan=plan, engine=InThisProcess()) == index
    assert tokenize(more, out=tmp_path / "old", plan=plan, engine=InThisProcess())["clips"] == 24


def test_a_folder_with_new_files(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "make_engine", lambda name, **options: InThisProcess())
    recordings, out = tmp_path / "recordings", tmp_path / "out"
    (recordings / "anna").mkdir(parents=True)
    speech, rate = audio.read(SPEECH, 16_000)
    call = ("tokenize", recordings, "-o", out, "--model", corpus / "codec")
    for number in (5, 2):
        soundfile.write(recordings / "anna" / f"{number}.wav", np.stack([speech[: 1600 * number]] * 2, 1), rate)
        capsys.readouterr()
        assert run_command(*call) == 0
    stereo, summary = capsys.readouterr().err.splitlines()
    assert stereo == "vocable: 2 clips of several channels, which were averaged to mono" and "2 clips" in summary
    assert TokenDataset(out).ids == ["anna/5", "anna/2"]
    (recordings / "anna" / "5.wav").unlink()
    assert run_command(*call) == 2
    assert "this manifest lacks 1 of its clips (anna/5)" in capsys.readouterr().err


def test_wrong_utterances_are_refused_before_anything_is_written(corpus: Path, tmp_path: Path) -> None:
    utterances, plan = planned(corpus)
    for bad, said in (
        ({"duration": 0.0}, "lasts 0.0 s"),
        ({"duration": float("nan")}, "lasts nan"),
        ({"id": "caf\udce9"}, "not UTF-8"),
        ({"id": "clip-3"}, "occurs twice"),
    ):
        with pytest.raises(ValueError, match=said):
            bad_first = [replace(utterances[0], **bad), *utterances[1:]]
            tokenize(bad_first, out=tmp_path / "out", plan=plan, engine=InThisProcess())
        assert not (tmp_path / "out").exists()


def test_loud_long_and_oddly_named_clips(corpus: Path, tmp_path: Path) -> None:
    speech, rate = audio.read(SPEECH, 16_000)
    soundfile.write(tmp_path / "loud.wav", 32_768 * speech[:8_000], rate, subtype="FLOAT")
    audio.write(tmp_path / "long.wav", np.tile(speech, 3)[: 20 * rate], rate)
    audio.write(tmp_path / "ok.wav", speech[:8_000], rate)
    names = {"loud": 0.5, "long": 1.0, "ok": 0.5}  # the second is far longer than it says
    utterances = [Utterance(f"../a b/{n}.\u00fc%2E", tmp_path / f"{n}.wav", d) for n, d in names.items()]
    _, plan = planned(corpus)
    index = tokenize(utterances, out=tmp_path / "out", plan=plan, engine=InThisProcess())
    [(bad, why)] = index["left_out"].items()
    assert "loud" in bad and "peaks" in why and index["clips"] == 2
    clips = dict(read_shard(tmp_path / "out" / "shards" / "00000.tar"))
    assert list(clips) == [u.id for u in utterances[1:]]
    assert int(clips[utterances[1].id].num_samples) == 20 * rate
    with tarfile.open(tmp_path / "out" / "shards" / "00000.tar") as tar:
        assert all("/" not in name and name.count(".") == 1 for name in tar.getnames())
    assert verify(tmp_path / "out") == []


def test_clips_too_large_for_memory(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a clip does not stop the others, whether memory is full while it is read, or encoded in a batch or alone."""
    utterances, plan = planned(corpus)
    read, encode, encode_long = audio.read, SpeechTokenizer.encode, SpeechTokenizer.encode_long

    def reads(path: Path, rate: int) -> tuple[np.ndarray, int]:
        if path.stem == "3":
            raise MemoryError
        return read(path, rate)

    def encodes(self: SpeechTokenizer, waveforms: object, **options: object) -> Encoded:
        if isinstance(waveforms, list):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return encode(self, waveforms, **options)

    def encodes_long(self: SpeechTokenizer, waveform: np.ndarray, **options: object) -> Encoded:
        if len(waveform) == round(utterances[5].duration * 16_000):
            raise MemoryError
        return encode_long(self, waveform, **options)

    monkeypatch.setattr(audio, "read", reads)
    monkeypatch.setattr(SpeechTokenizer, "encode", encodes)
    monkeypatch.setattr(SpeechTokenizer, "encode_long", encodes_long)
    index = tokenize(utterances, out=tmp_path / "a", plan=plan, engine=InThisProcess())
    assert sorted(index["left_out"]) == ["clip-3", "clip-5", "clip-7"] and index["clips"] == 21
    assert (
        index["left_out"]["clip-3"]
        == index["left_out"]["clip-5"]
        == ("not enough memory for it: cut it into shorter recordings")
    )

    def is_a_bug(self: SpeechTokenizer, waveforms: object, **options: object) -> Encoded:
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(SpeechTokenizer, "encode", is_a_bug)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        tokenize(utterances, out=tmp_path / "b", plan=plan, engine=InThisProcess())


def test_recordings_of_several_channels_are_counted(
    corpus: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    speech, rate = audio.read(SPEECH, 16_000)
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", np.stack([speech[:8000]] * (1 + i % 2), 1), rate)
    utterances = [Utterance(str(i), tmp_path / f"{i}.wav", 0.5) for i in (0, 1, 1, 2)]
    utterances[2] = replace(utterances[2], id="1 again")
    _, plan = planned(corpus)
    assert tokenize(utterances, out=tmp_path / "out", plan=plan, engine=InThisProcess())["downmixed"] == 2
    assert not recwarn.list


def test_a_worker_restores_the_number_of_torch_threads(corpus: Path, tmp_path: Path) -> None:
    utterances, plan = planned(corpus)
    torch.set_num_threads(2)
    tokenize(utterances[:2], out=tmp_path, plan=plan, engine=InThisProcess())
    assert torch.get_num_threads() == 2


def test_the_default_codec_is_the_embedded_one(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --model, workers load the embedded codec, even if a folder has the name of its preset."""
    monkeypatch.setattr(engines, "make_engine", lambda name, **options: InThisProcess())
    (tmp_path / "fast").mkdir()
    audio.write(tmp_path / "in" / "a.wav", audio.read(SPEECH, 16_000)[0][:8000], 16_000)
    monkeypatch.chdir(tmp_path)
    assert run_command("tokenize", "in", "-o", "out", "--layers", ":1") == 0


def test_one_run_at_a_time(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    utterances, plan = planned(corpus)

    class BeginsAnother(InThisProcess):
        def run(self, plan: Plan, out: Path, shards: Sequence[Shard]) -> Iterator[int]:
            with pytest.raises(ValueError, match="another run"):
                tokenize(utterances, out=tmp_path, plan=plan, engine=InThisProcess())
            return super().run(plan, out, shards)

    tokenize(utterances, out=tmp_path, plan=plan, engine=BeginsAnother())


def test_parquet(corpus: Path, tokens: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    utterances, plan = planned(corpus, format="parquet")
    index = tokenize(utterances, out=tmp_path, plan=plan, engine=InThisProcess())
    assert verify(tmp_path) == []
    pairs = zip(read_index(tokens)["shards"], index["shards"], strict=True)
    for one, other in pairs:
        first, second = (
            {name: clip.codes.tolist() for name, clip in read_shard(folder / "shards" / entry["shard"])}
            for folder, entry in ((tokens, one), (tmp_path, other))
        )
        assert first == second
    assert len(list(TokenStream(tmp_path, passes=1))) == 23
    with pytest.raises(ValueError, match="TokenStream"):
        TokenDataset(tmp_path)


def test_verify_finds_faults(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    utterances, plan = planned(corpus)
    tokenize(utterances, out=tmp_path, plan=plan, engine=InThisProcess())
    assert run_command("verify", tmp_path) == 0
    shard = tmp_path / "shards" / "00001.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (tmp_path / "shards" / "00002.tar").unlink()
    assert run_command("verify", tmp_path) == 2
    said = capsys.readouterr().err
    assert "00001.tar: its checksum" in said and "00002.tar" in said and "2 faulty" in said
    entry = tmp_path / "shards" / "00000.json"
    entry.write_text(entry.read_text() + "\n")
    assert any("00000.json: its checksum" in line for line in verify(tmp_path))


def test_the_command(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, options = corpus / "clips.jsonl", ("--layers", ":1", "--model", corpus / "codec")
    assert run_command("tokenize", manifest, "-o", tmp_path / "a", *options) == 2  # one clip is bad
    said = capsys.readouterr().err
    assert "vocable: clip-7: " in said and "23 clips" in said and "1 left out" in said
    assert TokenDataset(tmp_path / "a")[0]["codes"].shape[0] == 1
    (tmp_path / "elsewhere.jsonl").write_text(manifest.read_text())
    assert run_command("tokenize", tmp_path / "elsewhere.jsonl", "--root", corpus, "-o", tmp_path / "b", *options) == 2
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    for call, message in (
        (("tokenize", manifest, "-o", tmp_path / "a", "--engine", "slurm"), "--engine is local or ray"),
        (("tokenize", manifest, "-o", tmp_path / "a", "--format", "zip", *options), "--format is tar or parquet"),
        (("verify", tmp_path / "none"), "not a tokenized corpus"),
    ):
        capsys.readouterr()
        assert run_command(*call) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert run_command("tokenize", manifest) == 2  # without --out


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_clips_by_index(tokens: Path) -> None:
    data = TokenDataset(tokens)
    assert len(data) == 23 and data.ids[0] == "clip-0"
    from_stream = {example["id"]: example for example in TokenStream(tokens, passes=1)}
    for i in (0, 22, 5):
        assert torch.equal(data[i]["codes"], from_stream[data[i]["id"]]["codes"])
        assert data[i]["codes"].shape == (4, data.num_frames[i])
    batch = next(iter(DataLoader(data, batch_size=5, collate_fn=collate, num_workers=0)))
    assert batch["codes"].shape == (5, 4, int(batch["num_frames"].max()))
    assert torch.equal(batch["codes"][2, :, : batch["num_frames"][2]], data[2]["codes"])


def test_ranks_divide_a_pass_and_passes_differ(tokens: Path) -> None:
    passes = [[e["id"] for e in TokenStream(tokens, rank=r, world_size=3, passes=1, seed=1)] for r in range(3)]
    assert sorted(itertools.chain(*passes)) == sorted(TokenDataset(tokens).ids)
    twice = [e["id"] for e in TokenStream(tokens, passes=2, seed=1)]
    assert sorted(twice[:23]) == sorted(twice[23:]) and twice[:23] != twice[23:]
    assert twice == [e["id"] for e in TokenStream(tokens, passes=2, seed=1)]
    loader = DataLoader(TokenStream(tokens, passes=1), batch_size=None, num_workers=2)
    assert sorted(e["id"] for e in loader) == sorted(TokenDataset(tokens).ids)
    with pytest.raises(ValueError, match="cannot be divided"):
        next(iter(TokenStream(tokens, world_size=100)))


@pytest.mark.parametrize("stop", [0, 5, 23, 30])
def test_a_stream_resumes_at_its_position(tokens: Path, stop: int) -> None:
    whole = [e["id"] for e in TokenStream(tokens, passes=3, buffer=6)]
    stream = TokenStream(tokens, passes=3, buffer=6)
    reader = iter(stream)
    head = [next(reader)["id"] for _ in range(stop)]
    again = TokenStream(tokens, passes=3, buffer=6)
    again.load_state_dict(stream.state_dict())
    assert head + [e["id"] for e in again] == whole
    for other in ({"seed": 9}, {"buffer": 7}, {"world_size": 2}):
        with pytest.raises(ValueError, match=next(iter(other))):
            TokenStream(tokens, **{"buffer": 6, **other}).load_state_dict(stream.state_dict())


def test_every_iteration_is_another_pass(tokens: Path) -> None:
    stream = TokenStream(tokens, passes=1)
    first, second = ([e["id"] for e in stream] for _ in range(2))
    assert first != second and sorted(first) == sorted(second)


def test_a_corpus_of_version_0_1_names_the_codec(corpus: Path, tokens: Path, tmp_path: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(corpus / "codec")
    shutil.copytree(tokens, tmp_path / "old")
    index = read_index(tokens)
    assert index["plan"].pop("token_id") == codec.token_id == TokenDataset(tokens).token_id
    index["plan"]["codec_id"] = codec.id
    (tmp_path / "old" / "index.json").write_text(json.dumps(index))
    for old in (TokenDataset(tmp_path / "old"), TokenStream(tmp_path / "old")):
        assert old.token_id == codec.id
        codec.check_token_id(old.token_id, "codes")
    assert verify(tmp_path / "old") == []


def test_clips_have_gains_if_the_codec_has_a_level(corpus: Path, tmp_path: Path) -> None:
    make_tiny(level=-26.0, high_pass=40.0).save_pretrained(tmp_path / "codec")
    codec = SpeechTokenizer.from_pretrained(tmp_path / "codec")
    utterances, plan = planned(corpus)
    plan = replace(plan, codec=str(tmp_path / "codec"), token_id=codec.token_id)
    tokenize(utterances[:4], out=tmp_path / "tokens", plan=plan, engine=InThisProcess())
    data = TokenDataset(tmp_path / "tokens")
    for utterance, example in zip(utterances[:4], data, strict=False):
        assert example["gain"] == pytest.approx(float(codec.encode(audio.read(utterance.path, 16_000)[0]).gain))
    batch = collate([data[0], data[1]])
    assert batch["gain"].dtype == torch.float32 and batch["gain"].tolist() == [data[0]["gain"], data[1]["gain"]]
    assert all("gain" in example for example in TokenStream(tmp_path / "tokens", passes=1))


# ---- make check ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ray_gives_the_same_bytes(corpus: Path, tokens: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'vocable[ray]'")
    from vocable.corpus.engines import Ray

    utterances, plan = planned(corpus)
    tokenize(utterances, out=tmp_path, plan=plan, engine=Ray(2))
    assert digests(tmp_path) == digests(tokens)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    write_corpus(tmp_path, 400, bad=[7, 300])
    call = [sys.executable, "-m", "vocable", "tokenize", f"{tmp_path}/clips.jsonl", "--model", f"{tmp_path}/codec"]
    call += ["--shard-minutes", "0.1", "--workers", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.run([*call, "-o", f"{tmp_path}/whole"], env=environment, capture_output=True, text=True)
    assert whole.returncode == 2 and "398 clips" in whole.stderr
    rng = np.random.default_rng(0)
    for _ in range(20):
        process = subprocess.Popen(
            [*call, "-o", f"{tmp_path}/killed"], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(float(rng.uniform(2.5, 5.0)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = subprocess.run([*call, "-o", f"{tmp_path}/killed"], env=environment, capture_output=True, text=True)
    assert last.returncode == 2
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
