"""Checking the recordings of a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import SPEECH, run_command
from vocable import audio
from vocable.corpus import check as checking
from vocable.corpus.check import PROBLEMS, check, clean
from vocable.corpus.manifest import Utterance, read_manifest, write_manifest

SAMPLES = audio.read(SPEECH)[0]
RATE = 16_000


@pytest.fixture
def corpus(tmp_path: Path) -> list[Utterance]:
    """Return one or more recordings with each problem; the ids name the problems."""
    noise = 0.2 * np.random.default_rng(0).normal(size=2 * RATE)
    clips = {
        "good": SAMPLES[:RATE],
        "loud": 0.9999 * SAMPLES[RATE : 3 * RATE] / np.abs(SAMPLES[RATE : 3 * RATE]).max(),
        "silent": 1e-4 * noise,
        "clipped": np.clip(9 * SAMPLES[: 2 * RATE], -1, 1),
        "short": SAMPLES[:7999],
        "nan": np.where(np.arange(RATE) == 99, np.nan, noise[:RATE]),
        "wrong_duration": SAMPLES[2 * RATE : 3 * RATE],
        "cut": SAMPLES[: 3 * RATE],
    }
    utterances = []
    for name, samples in clips.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT" if name == "nan" else "PCM_16")
        seconds = len(samples) / RATE + 0.02 * (name == "wrong_duration")
        utterances.append(Utterance(name, path, seconds))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(cut.read_bytes()[:9000])
    soundfile.write(tmp_path / "same.flac", SAMPLES[:RATE], RATE)  # the same samples in another format
    soundfile.write(tmp_path / "slower.wav", SAMPLES[:RATE], RATE // 2)  # and at another rate: not the same sound
    soundfile.write(tmp_path / "stereo.wav", np.stack([SAMPLES[5000 : 5000 + RATE]] * 2, 1), RATE)
    (tmp_path / "text.wav").write_text("hello" * 99)
    utterances += [
        Utterance("duplicate", tmp_path / "same.flac", 1.0),
        Utterance("slower", tmp_path / "slower.wav", 2.0),
        Utterance("stereo", tmp_path / "stereo.wav", 1.0),
        Utterance("text", tmp_path / "text.wav", 1.0),
        Utterance("absent", tmp_path / "absent.wav", 1.0),
    ]
    return utterances


def ids(found: dict[str, list[tuple[Utterance, str]]]) -> dict[str, set[str]]:
    return {problem: {u.id for u, _ in named} for problem, named in found.items()}


EXPECTED = {problem: {problem} for problem in PROBLEMS} | {"unreadable": {"nan", "cut", "text", "absent"}}


def test_each_problem_is_found(corpus: list[Utterance], recwarn: pytest.WarningsRecorder) -> None:
    found = check(corpus)
    assert ids(found) == EXPECTED
    assert [u.id for u in clean(corpus, found)] == ["good", "loud", "slower", "stereo"]
    details = {u.id: detail for named in found.values() for u, detail in named}
    assert details["duplicate"] == "the same audio as good"
    assert details["wrong_duration"] == "1.000 s, not 1.020 s"
    assert "cut short" in details["cut"] and "no such file" in details["absent"]
    assert not recwarn.list
    assert ids(check(corpus, min_seconds=0.4))["short"] == set()


def test_one_of_several_copies_is_kept(corpus: list[Utterance], tmp_path: Path) -> None:
    good = corpus[0]
    copies = [Utterance("misnamed", good.path, 5.0), good, Utterance("again", good.path, 1.0)]
    found = check(copies)
    assert [u.id for u in clean(copies, found)] == ["good"]
    assert ids(found)["wrong_duration"] == {"misnamed"} and ids(found)["duplicate"] == {"again"}
    both = [Utterance("both", tmp_path / "short.wav", 9.0)]
    assert {p for p, named in check(both).items() if named} == {"short", "wrong_duration"}
    assert ids(check([Utterance("good", good.path, float("nan"))]))["wrong_duration"] == {"good"}


def test_command(corpus: list[Utterance], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, report, cleaned = (tmp_path / name for name in ("m.jsonl", "out/report.json", "clean/m.jsonl"))
    write_manifest(manifest, corpus)
    assert run_command("prepare", "check", manifest, "-o", report, "--clean", cleaned) == 2
    out, err = capsys.readouterr()
    rows = {line[:14].strip(): line[14:].split(maxsplit=1) for line in out.splitlines()}
    assert rows["unreadable"] == ["4", "nan, cut, text, absent"]
    assert rows["wrong duration"] == ["1", "wrong_duration"]
    assert "13 utterances" in err and "4 are good" in err and "warning" not in err
    content = json.loads(report.read_text())
    assert content["utterances"] == 13
    assert {p: {row["id"] for row in rows} for p, rows in content["problems"].items()} == EXPECTED
    assert [p.name for p in report.parent.iterdir()] == ["report.json"]
    assert run_command("prepare", "check", cleaned) == 0
    assert [u.id for u in read_manifest(cleaned)] == ["good", "loud", "slower", "stereo"]
    capsys.readouterr()
    assert run_command("prepare", "check", manifest, "--min-seconds", "99", "--clean", tmp_path / "none.jsonl") == 2
    out, err = capsys.readouterr()
    assert "and 4 more" in out and "there are no utterances" in err


def test_an_interrupted_check_is_resumed(
    corpus: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, done = tmp_path / "out" / "journal", []

    def stop() -> None:
        done.append(None)
        if len(done) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(corpus, journal=journal, progress=stop)
    assert len(journal.read_text().split()) > 6
    with open(journal, "a") as file:
        file.write('\n{"path": "torn')
    soundfile.write(tmp_path / "silent.wav", SAMPLES[-RATE:], RATE)  # mended in the meantime
    corpus[2] = Utterance("silent", tmp_path / "silent.wav", 1.0)
    decoded = []
    read = audio.read
    monkeypatch.setattr(checking.audio, "read", lambda path: decoded.append(path.stem) or read(path))
    assert ids(check(corpus, journal=journal)) == EXPECTED | {"silent": set()}
    assert "silent" in decoded and not {"good", "loud", "clipped", "short", "nan"} & set(decoded)
    assert journal.exists(), "until the report is written"


def test_real_recordings_are_good(shared: Path) -> None:
    utterances = read_manifest(shared / "data" / "eval.jsonl")[::8]
    assert {u.language for u in utterances} == {"en"}
    assert clean(utterances, check(utterances)) == utterances
