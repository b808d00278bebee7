"""Tiny corpora in the layouts of the public corpora; each manifest is read back."""

from __future__ import annotations

import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SPEECH, run_command
from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.corpus.prepare import CORPORA, recordings

SAMPLES = audio.read(SPEECH)[0]


def clip(path: Path, samples: int = 1600, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, SAMPLES[:samples], rate)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., list[Utterance]]:
    def call(corpus: str, *options: object, code: int = 0) -> list[Utterance]:
        out = tmp_path / "elsewhere" / "manifest.jsonl"
        assert run_command("prepare", corpus, tmp_path / "root", "-o", out, *options) == code
        utterances = read_manifest(out)
        for utterance in utterances:
            assert utterance.duration == pytest.approx(soundfile.info(utterance.path).duration, abs=1e-6)
            assert utterance.path.is_file() and "root" in utterance.path.parts
        return utterances

    return call


def facts(utterance: Utterance) -> tuple[object, ...]:
    return utterance.id, utterance.speaker, utterance.text, utterance.corpus, utterance.language


def test_librispeech(tmp_path: Path, prepare) -> None:
    for subset, speaker in (("train-clean-100", "103"), ("dev-clean", "84")):
        chapter = tmp_path / "root" / subset / speaker / "1240"
        clip(chapter / f"{speaker}-1240-0000.flac")
        clip(chapter / f"{speaker}-1240-0001.flac", 3200)
        write(chapter / f"{speaker}-1240.trans.txt", f"{speaker}-1240-0000 CHAPTER ONE\n")
    assert [facts(u) for u in prepare("librispeech")] == [
        ("84-1240-0000", "84", "CHAPTER ONE", "librispeech", "en"),
        ("84-1240-0001", "84", None, "librispeech", "en"),
        ("103-1240-0000", "103", "CHAPTER ONE", "librispeech", "en"),
        ("103-1240-0001", "103", None, "librispeech", "en"),
    ]
    assert {u.speaker for u in prepare("librispeech", "--subset", "train-clean-100")} == {"103"}
    assert len(prepare("librispeech", "--subset", "dev-clean", "--subset", "train-clean-100")) == 4


def test_libritts(tmp_path: Path, prepare) -> None:
    chapter = tmp_path / "root" / "dev-clean" / "84" / "121123"
    clip(chapter / "84_121123_000007_000001.wav", 2400, 24_000)
    write(chapter / "84_121123_000007_000001.normalized.txt", "Maximilian,\nhe said.\n")
    write(chapter / "84_121123_000007_000001.original.txt", "not this")
    clip(chapter / "stray.wav")
    [utterance] = prepare("libritts")
    assert facts(utterance) == ("84_121123_000007_000001", "84", "Maximilian, he said.", "libritts", "en")
    assert utterance.duration == 0.1


def test_vctk(tmp_path: Path, prepare) -> None:
    root = tmp_path / "root"
    for mic in ("mic1", "mic2"):
        clip(root / "wav48_silence_trimmed" / "p225" / f"p225_001_{mic}.flac", 4800, 48_000)
    clip(root / "wav48_silence_trimmed" / "s5" / "s5_002_mic1.flac", 4800, 48_000)
    write(root / "txt" / "p225" / "p225_001.txt", "Please call Stella.\n")
    assert [facts(u) for u in prepare("vctk")] == [
        ("p225_001_mic1", "p225", "Please call Stella.", "vctk", "en"),
        ("p225_001_mic2", "p225", "Please call Stella.", "vctk", "en"),
        ("s5_002_mic1", "s5", None, "vctk", "en"),
    ]
    assert [u.id for u in prepare("vctk", "--subset", "mic2")] == ["p225_001_mic2"]


def test_the_older_layout_of_vctk(tmp_path: Path, prepare) -> None:
    clip(tmp_path / "root" / "wav48" / "p225" / "p225_001.wav")
    write(tmp_path / "root" / "txt" / "p225" / "p225_001.txt", "Please call Stella.")
    assert [facts(u) for u in prepare("vctk")] == [("p225_001", "p225", "Please call Stella.", "vctk", "en")]


def test_ljspeech(tmp_path: Path, prepare) -> None:
    for name in ("LJ001-0001", "LJ001-0002"):
        clip(tmp_path / "root" / "wavs" / f"{name}.wav")
    rows = ['LJ001-0001|"Printing, in 1450|"Printing, in fourteen fifty', "LJ001-0002|A|", ""]
    write(tmp_path / "root" / "metadata.csv", "\n".join(rows))
    assert [facts(u) for u in prepare("ljspeech")] == [
        ("LJ001-0001", "LJ", '"Printing, in fourteen fifty', "ljspeech", "en"),
        ("LJ001-0002", "LJ", None, "ljspeech", "en"),
    ]


def test_commonvoice(tmp_path: Path, prepare) -> None:
    root = tmp_path / "root"
    header = "client_id\tpath\tsentence\tup_votes\tlocale\n"
    rows = [f'c{i}\tcommon_voice_de_{i}.mp3\tSie sagte: "{i}.\t2\tde\n' for i in range(4)]
    for i in range(3):
        clip(root / "clips" / f"common_voice_de_{i}.mp3", 16_000)
    write(root / "train.tsv", header + rows[0])
    write(root / "validated.tsv", header + rows[0] + rows[1])
    write(root / "other.tsv", header + rows[2] + rows[3])
    assert [facts(u) for u in prepare("commonvoice")] == [
        ("common_voice_de_0", "c0", 'Sie sagte: "0.', "commonvoice", "de"),
        ("common_voice_de_1", "c1", 'Sie sagte: "1.', "commonvoice", "de"),
    ]
    assert [u.id for u in prepare("commonvoice", "--subset", "train")] == ["common_voice_de_0"]
    # A clip that is listed but not there is named and left out.
    assert [u.language for u in prepare("commonvoice", "--subset", "other", "--language", "gsw", code=2)] == ["gsw"]
    write(root / "train.tsv", "client_id\tpath\tsentence\nc0\tcommon_voice_de_0.mp3\n")  # older, and a row cut short
    assert [facts(u)[2:] for u in prepare("commonvoice", "--subset", "train")] == [(None, "commonvoice", "root")]


def test_folder(tmp_path: Path, prepare, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    clip(root / "anna" / "001.wav")
    clip(root / "bo" / "001.FLAC", 3200)
    clip(root / "bo" / "001.wav", 3200)
    clip(root / "alone.ogg", 16_000)
    clip(root / ".hidden" / "x.wav")
    write(root / "bo" / "001.txt", "\ufeffhello\nthere\n")
    (root / "bo" / "._001.wav").write_bytes(b"a resource fork")
    (root / "bo" / "bad.wav").write_bytes(b"no audio")
    found = prepare("folder", "--language", "sv", code=2)
    assert "bad.wav: not readable as audio" in capsys.readouterr().err
    assert [facts(u) for u in found] == [
        ("alone", "root", None, "root", "sv"),
        ("anna/001", "anna", None, "root", "sv"),
        ("bo/001.FLAC", "bo", "hello there", "root", "sv"),
        ("bo/001.wav", "bo", "hello there", "root", "sv"),  # with suffixes, because these differ in nothing else
    ]
    (root / "bo" / "001.FLAC").unlink()
    found = prepare("folder", "--speakers-from", "none", code=2)
    assert [(u.id, u.speaker) for u in found] == [("alone", None), ("anna/001", None), ("bo/001", None)]


def test_paths_through_links(tmp_path: Path, prepare) -> None:
    clip(tmp_path / "disk" / "deep" / "root" / "a.wav")
    (tmp_path / "disk" / "out" / "of" / "sight").mkdir(parents=True)
    (tmp_path / "root").symlink_to(tmp_path / "disk" / "deep" / "root")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "disk" / "out" / "of" / "sight")
    assert len(prepare("folder")) == 1


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    (root / "dev-clean").mkdir(parents=True)
    for corpus in CORPORA:
        with pytest.raises(ValueError, match="no recordings found"):
            recordings(corpus, root)
        with pytest.raises(ValueError, match="no such folder"):
            recordings(corpus, tmp_path / "absent")
    write(root / "train.tsv", "a\tb\n")
    calls = {
        ("librispeech", "--subset", "train-clean-100"): "no subset 'train-clean-100' here; there are dev-clean",
        ("vctk", "--subset", "mic3"): "mic1 and mic2",
        ("commonvoice", "--subset", "test"): "no test.tsv",
        ("commonvoice",): "lists no clips",
        ("folder", "--speakers-from", "grandparent"): "parent or none",
    }
    for (corpus, *options), message in calls.items():
        assert run_command("prepare", corpus, root, "-o", tmp_path / "m.jsonl", *options) == 2
        assert message in capsys.readouterr().err
    (root / "x.wav").write_bytes(b"no audio")
    assert run_command("prepare", "folder", root, "-o", tmp_path / "m.jsonl") == 2
    assert "none of 1 files is readable" in capsys.readouterr().err
    (root / "x.txt").write_bytes(b"\xff\xfe\xff")
    assert run_command("prepare", "folder", root, "-o", tmp_path / "m.jsonl") == 2
    assert "x.txt: not UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "m.jsonl").exists()
    with pytest.raises(ValueError, match="there are librispeech, "):
        recordings("timit", root)


NAMES = st.text(string.ascii_letters + ". é语", min_size=1, max_size=6).filter(lambda n: n.strip(". ") == n)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.tuples(NAMES, NAMES, st.sampled_from([".wav", ".flac"])), min_size=1, max_size=6))
def test_any_tree_reads_back_with_unique_ids(files: set[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "root")
        for folder, name, suffix in files:
            (root / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(root / folder / f"{name}{suffix}", np.zeros(160), 16_000)
        assert run_command("prepare", "folder", root, "-o", Path(temporary, "m.jsonl")) == 0
        utterances = read_manifest(Path(temporary, "m.jsonl"))
        expected = {os.path.realpath(root / folder / f"{name}{suffix}") for folder, name, suffix in files}
        assert {os.path.realpath(u.path) for u in utterances} == expected
        assert len({u.id for u in utterances}) == len(expected) == len(utterances)
        assert all(u.duration == 0.01 and u.speaker in {f[0] for f in files} for u in utterances)


def test_real_recordings(shared: Path) -> None:
    for corpus, root in (("librispeech", "eval/librispeech-test-clean"), ("folder", "eval/vctk")):
        found = recordings(corpus, shared / "data" / root)
        assert len(found) > 50 and len({u.id for u in found}) == len(found)
