"""Suites from end to end on a tiny codec, with what needs no extra; and what their tables are made of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import (
    alignment,
    codes,
    disentanglement,
    grouped,
    linear,
    longform,
    robustness,
    slmtokbench,
    speakers,
    windows,
)
from vocable.evaluation.metrics.words import TimedWord
from vocable.evaluation.phones import Phones
from vocable.evaluation.summary import read_summary


def write_corpus(folder: Path, clips: int, broken: set[int], seconds: float = 0.5) -> Path:
    """Clips of four speakers, some of them no audio, and a tiny codec."""
    make_tiny().save_pretrained(folder / "tiny")
    speech, rate = audio.read(SPEECH)
    size = round(seconds * rate)
    lines = []
    for i in range(clips):
        start = i * 997 % (len(speech) - size)
        audio.write(folder / f"{i}.wav", speech[start : start + size], rate)
        if i in broken:
            (folder / f"{i}.wav").write_bytes(b"RIFF nonsense")
        row = {"id": f"clip-{i}", "path": f"{i}.wav", "duration": seconds, "speaker": f"s{i % 4}", "text": f"clip {i}"}
        lines.append(json.dumps(row))
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 9, {5})


@pytest.mark.parametrize("suite", ["codes", "robustness"])
def test_a_suite(suite: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("eval", suite, corpus / "clips.jsonl", "-o", tmp_path, "--systems", f"{corpus}/tiny", "--jobs", 1)
    assert run_command(*call) == 2
    printed = capsys.readouterr()
    assert "8 clips, 1 left out" in printed.err and "Left out, 1 of 9 clips: clip-5" in printed.out
    summary = read_summary(tmp_path)
    assert run_command(*call) == 2 and read_summary(tmp_path) == summary
    page = (tmp_path / "index.html").read_text()
    assert "<table" in page and "clip-5" in page
    assert "| --- |" in (tmp_path / "tables.md").read_text()
    [found] = summary["systems"].values()
    if suite == "codes":
        assert found["nominal_bps"] == 50 * 8 * 5  # 32 entries
        assert len(found["layers"]) == 8
        total = sum(layer["coded_bps"]["value"] for layer in found["layers"].values())
        assert found["coded_bps"]["value"] == pytest.approx(total)
    else:
        assert all(0 <= f["value"] <= 100 for layers in found["changes"].values() for f in layers.values())


def test_codes_with_a_known_entropy() -> None:
    rng = np.random.default_rng(0)
    even = codes.measure_layer([rng.integers(8, size=4_000) for _ in range(4)], 16)
    assert even["used"] == 0.5
    assert even["perplexity"] == pytest.approx(8, rel=0.01)
    assert even["bits"].sum() / 16_000 == pytest.approx(3, rel=0.01)  # a coder that never saw the clip
    one = codes.measure_layer([np.zeros(100, int)] * 3, 16)
    assert one["perplexity"] == 1.0 and one["bits"].max() < 100 * 0.06
    # A clip whose code no other clip has costs more than a fixed length would.
    odd = codes.measure_layer([np.zeros(100, int), np.zeros(100, int), np.full(10, 3)], 4)
    assert odd["bits"][2] > 10 * 2


def clip(name: str, speaker: str, text: str = "one two") -> Utterance:
    return Utterance(name, Path(name), 4.0, speaker, text, None, "en")


def test_windows_are_cut_where_every_word_is_known() -> None:
    words = ["the", "cat", "hat", "on", "a", "warm", "mat", "sleeps"]
    heard = [TimedWord(word, i * 0.5, i * 0.5 + 0.4) for i, word in enumerate(words)]
    said = clip("a", "s", "the cat sat on a warm mat sleeps")
    # "sat" was misheard: only from "on" on is there a window's length of known words.
    assert windows.cut_windows(said, heard, 4.0) == [windows.Window("a", 1.5, "on a warm mat")]
    assert windows.cut_windows(said, heard, 3.0) == []
    # Whisper did not hear "sat": what it heard fits the text word by word, and yet the window holds a word more.
    missed = [w for w in heard if w.text != "hat"]
    assert windows.cut_windows(said, missed, 4.0) == [windows.Window("a", 1.5, "on a warm mat")]
    # The word that the window cuts off is another.
    cut = [*heard[:7], TimedWord("snores", 3.4, 3.9)]
    assert windows.cut_windows(said, cut, 4.0) == []


def test_no_speaker_is_on_both_sides() -> None:
    train = [clip(f"{s}{i}", s) for s in "abcd" for i in range(3)] + [clip("mute", "a", "")]
    split = alignment.ClipSplit.split(train, [clip("t", "t")], seed=0)
    held = {u.speaker for u in split.valid}
    assert len(held) == 1 and held.isdisjoint({u.speaker for u in split.train})
    assert len(split.train) + len(split.valid) == 12
    with pytest.raises(ValueError, match="are in both"):
        alignment.ClipSplit.split(train, [clip("t", "b")], seed=0)
    with pytest.raises(ValueError, match="one speaker"):
        alignment.ClipSplit.split([clip("x", "x")], [clip("t", "t")], seed=0)
    with pytest.raises(ValueError, match="'a0' is in both"):
        alignment.ClipSplit.split(train, [clip("a0", "t")], seed=0)
    with pytest.raises(ValueError, match="no letters but"):
        alignment.ClipSplit.split(train, [clip("t", "t", "это не латиница, ok")], seed=0)


def test_windows_are_of_all_speakers() -> None:
    by_clip = [[windows.Window(f"{i}", float(k), "a") for k in range(2)] for i in range(4)]
    chosen = windows.choose_windows(by_clip, count=6)
    assert [(w.clip, w.start) for w in chosen] == [*((str(i), 0.0) for i in range(4)), ("0", 1.0), ("2", 1.0)]


def test_what_tokens_tell(corpus: Path) -> None:
    """The figures of one tokenizer; labels that follow from its codes are told by them, others are not."""
    from vocable.corpus.manifest import read_manifest
    from vocable.evaluation.tokenizers import load_tokenizer

    clips = [u for u in read_manifest(corpus / "clips.jsonl") if u.id != "clip-5"]
    name = f"{corpus}/tiny@:1"
    tok = load_tokenizer(name)
    rng = np.random.default_rng(0)
    told, noise, codes = {}, {}, {}
    for u in clips:
        found = tok.encode(audio.read(u.path, 16_000)[0]).codes
        assert found is not None
        codes[u.id] = found.numpy()
        seconds = (np.arange(found.shape[1]) + 0.5) / 50
        told[u.id] = Phones(seconds, found[0].numpy() % 3)
        noise[u.id] = Phones(seconds, rng.integers(3, size=found.shape[1]))
    speech = alignment.ClipSplit(clips[:5], clips[5:6], clips[6:])
    cut = [windows.Window(u.id, 0.0, "clip") for u in speech.test]
    rows = {}
    for kind, phones in (("told", told), ("noise", noise)):
        task = alignment.MeasureAlignment(
            speech, {f"{corpus}/tiny": codes}, phones, 3, cut, alignment.Budget(0.2, 8, 1), 0
        )
        rows[kind], *of_clips = task.start()(alignment.Candidate(name, tok.made_by))
        assert [row["clip"] for row in of_clips] == [u.id for u in speech.test]
        for figure in ("info_nce", "bits"):  # the clips' own make the whole's, of the test clips at least
            assert all(len(row[figure]) == 2 and row[figure][1] > 0 for row in of_clips)
    assert rows["told"]["phone_purity"] == 1.0 and rows["told"]["pnmi"] == pytest.approx(1.0)
    assert rows["noise"]["bits"]["value"] < 0.3 < rows["told"]["bits"]["value"]
    assert rows["told"]["info_nce"]["value"] > rows["noise"]["info_nce"]["value"]
    assert rows["told"]["train_without_path"] == 0
    assert rows["told"]["vclub"]["windows_left_out"] == len(cut)  # half a second is no window


def test_drift_is_a_slope_within_recordings() -> None:
    rows = [
        {"clip": name, "start": 15.0 * i, "stoi": [level - 0.02 * i, 1]}
        for name, level in (("a", 0.9), ("b", 0.7))
        for i in range(8)
    ]
    found = longform.drift(rows, "stoi")
    assert found["slope"] == pytest.approx(-0.08) and found["error"] == pytest.approx(0.0, abs=1e-9)


# ---- make check ------------------------------------------------------------------------------------------------------


def test_thirds_and_the_worst_decile() -> None:
    thirds = speakers.thirds({str(i): float(i) for i in range(9)} | {"none": float("nan")}, unit="Hz")
    assert [thirds[str(i)] for i in (0, 4, 8)] == ["under 3 Hz", "3 to 5 Hz", "over 5 Hz"] and "none" not in thirds
    rows = [{"speaker_id": f"s{i}", "pesq": [2.0 + i / 10, 1]} for i in range(20)] + [{"speaker_id": "x", "pesq": None}]
    assert grouped.worst_decile(rows, "pesq") == [("s0", 2.0), ("s1", 2.1)]


def test_small_groups_are_put_together() -> None:
    rows = [{"clip": str(i), "speaker_id": str(i), "pesq": [1.0 * i, 1]} for i in range(8)]
    accents = {str(i): "north" if i < 4 else f"town {i}" for i in range(7)}
    found = grouped.by_group(rows, accents, ["pesq"], seed=0)
    assert {name: figures["pesq"]["value"] for name, figures in found.items()} == {"north": 1.5, "others": 5.5}


def test_the_changes_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    speech = audio.read(SPEECH, 16_000)[0]
    power = float(np.square(speech).mean())
    noisy = robustness.noise(10)(speech, rng)
    assert 10 * np.log10(power / np.square(noisy - speech).mean()) == pytest.approx(10, abs=0.2)
    clipped = robustness.clipping(0.05)(speech, rng)
    assert (np.abs(clipped) >= np.abs(clipped).max() * 0.9999).mean() == pytest.approx(0.05, abs=0.005)
    narrow = np.abs(np.fft.rfft(robustness.telephone(speech, rng)))
    wide = np.abs(np.fft.rfft(speech))
    above = np.arange(len(narrow)) > 0.55 * len(narrow)
    assert np.square(narrow[above]).sum() < 1e-3 * np.square(wide[above]).sum()
    assert robustness.gain(-20)(speech, rng) == pytest.approx(speech / 10)
    echo = robustness.reverberation(0.5)(np.eye(1, 16_000, dtype=np.float32)[0], np.random.default_rng(0))
    assert echo[0] == pytest.approx(1, abs=1e-3) and np.square(echo[1:]).sum() == pytest.approx(0.25, rel=0.05)


def told_apart(clips: int = 16) -> tuple[list[disentanglement.LabelledClip], list[torch.Tensor]]:
    """Clips of four speakers whose vectors hold speaker, phone, pitch and energy, each in numbers of its own."""
    rng = np.random.default_rng(0)
    made, vectors = [], []
    for i in range(clips):
        phones = rng.integers(3, size=40)
        pitch, energy = rng.normal(size=(2, 40))
        made.append(
            disentanglement.LabelledClip(
                str(i), f"s{i % 4}", np.arange(40), phones, pitch, energy, np.zeros(1, np.float32)
            )
        )
        vectors.append(torch.from_numpy(np.column_stack([np.eye(4)[[i % 4] * 40], np.eye(3)[phones], pitch, energy])))
    return made, vectors


def test_linear_maps_read_what_is_there_and_nothing_else() -> None:
    clips, vectors = told_apart()
    found = disentanglement.read(vectors, clips, 3)
    assert all(found[reading]["value"] > 97 for reading in disentanglement.READINGS)
    noise = [torch.randn(v.shape, generator=torch.Generator().manual_seed(i)).double() for i, v in enumerate(vectors)]
    nothing = disentanglement.read(noise, clips, 3)
    level = disentanglement.chance(clips)
    assert level["speaker"] == 25 and 33 < level["phone"] < 40
    assert abs(nothing["phone"]["value"] - level["phone"]) < 12
    assert nothing["speaker"]["value"] < 70 and nothing["pitch"]["value"] < 5 and nothing["energy"]["value"] < 5


def test_every_speaker_is_in_every_part() -> None:
    clips, _ = told_apart()
    fold = linear.fold_by_speaker([clip.speaker for clip in clips], disentanglement.FOLDS)
    for k in range(disentanglement.FOLDS):
        assert {clip.speaker for clip, part in zip(clips, fold, strict=True) if part == k} == {"s0", "s1", "s2", "s3"}


@pytest.mark.slow
def test_five_hundred_clips_with_twenty_broken(tmp_path: Path) -> None:
    """Killed in the middle and resumed, a run has the summary of one that was left alone, and names the broken ones."""
    broken = set(range(7, 500, 25))
    write_corpus(tmp_path, 500, broken)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out: str) -> subprocess.Popen[str]:
        options = ["--systems", f"{tmp_path}/tiny@:8", "--metrics", "mel,si-sdr", "--jobs", "2"]
        call = [sys.executable, "-m", "vocable", "eval", "reconstruction", f"{tmp_path}/clips.jsonl", "-o", out]
        return subprocess.Popen(call + options, stderr=subprocess.PIPE, text=True, env=environment)

    whole = start(f"{tmp_path}/whole")
    assert "480 clips, 20 left out" in whole.communicate()[1]
    assert whole.returncode == 2
    killed, rows = start(f"{tmp_path}/killed"), tmp_path / "killed" / "rows.jsonl"
    while not rows.exists() or rows.read_text().count("\n") < 100:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert start(f"{tmp_path}/killed").wait() == 2
    summaries = [read_summary(tmp_path / name) for name in ("whole", "killed")]
    assert summaries[0] == summaries[1]
    assert set(summaries[0]["left_out"]) == {f"clip-{i}" for i in broken}


@pytest.fixture
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    from shutil import which

    chromium = which("chromium") or which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield window
        window.close()


@pytest.mark.slow
def test_every_player_plays(browser: object, corpus: Path, tmp_path: Path) -> None:
    systems = f"recording,{corpus}/tiny@:8,{corpus}/tiny@:1"
    run_command(
        *("eval", "reconstruction", corpus / "clips.jsonl", "-o", tmp_path, "--systems", systems, "--metrics", "mel")
    )
    page = browser.new_page()  # type: ignore[attr-defined]
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
    page.goto(f"file://{tmp_path}/index.html")
    played = page.evaluate(
        """async () => {
            const played = [];
            for (const player of document.querySelectorAll("audio")) {
                const ended = new Promise(done => player.addEventListener("ended", done));
                await player.play();
                await ended;
                played.push([player.currentTime, player.duration]);
            }
            return played;
        }"""
    )
    assert len(played) == 3 * 6
    assert all(at == pytest.approx(0.5, abs=0.05) and at == pytest.approx(length, abs=0.05) for at, length in played)
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 300)")
    assert not complaints


def test_slmtokbench_claims_what_the_paper_claims() -> None:
    """Of RVQ-1 against the twin's, and of all layers against every other system; of Opus nothing."""
    systems = ["codec@:1", "twin@:1", "codec@:8", "opus:6"]
    told = {"codec@:1": 2.0, "twin@:1": 1.0}
    names = [f"s{i}" for i in range(8)]
    aligned = [
        {"clip": s, "speaker_id": s, "system": name}
        | {figure: [value, 1.0] for figure in slmtokbench.INFORMATION}
        | {"probe_wer": [1.0 / value, 1.0], "probe_cer": [1.0 / value, 1.0]}
        for name, value in told.items()
        for s in names
    ]
    alike = {"codec@:1": 0.8, "twin@:1": 0.9, "codec@:8": 0.95, "opus:6": 0.96}
    preserved = [
        {"clip": s, "speaker_id": s, "system": name, "speaker": [value, 1.0]}
        for name, value in alike.items()
        for s in names
    ]
    lines = slmtokbench.orders(aligned, preserved, systems, "twin", similarity="speaker", seed=0)
    assert sum("RVQ-1" in line and "holds here" in line for line in lines) == len(slmtokbench.INFORMATION) + 2
    rest = [line for line in lines if "RVQ-1" not in line]
    assert len(rest) == 2 and "codec@:8 above codec@:1's: holds here" in rest[0]
    assert "codec@:8 above opus:6's: does not hold here" in rest[1]
