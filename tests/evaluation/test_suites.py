"""Suites from end to end on a tiny codec, without extras; and the functions behind their tables."""

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

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.evaluation import codes, grouped, longform, robustness, speakers
from vocable.evaluation.summary import read_summary


def write_corpus(folder: Path, clips: int, broken: set[int], seconds: float = 0.5) -> Path:
    """Write clips of four speakers, the `broken` ones without audio, and a tiny codec."""
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


def test_small_groups_are_merged() -> None:
    rows = [{"clip": str(i), "speaker_id": str(i), "pesq": [1.0 * i, 1]} for i in range(8)]
    accents = {str(i): "north" if i < 4 else f"town {i}" for i in range(7)}
    found = grouped.by_group(rows, accents, ["pesq"], seed=0)
    assert {name: figures["pesq"]["value"] for name, figures in found.items()} == {"north": 1.5, "others": 5.5}


def test_changes_have_their_nominal_strength() -> None:
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


@pytest.mark.slow
def test_five_hundred_clips_with_twenty_broken(tmp_path: Path) -> None:
    """A run that was killed and resumed has the same summary as one that was not; it names the broken clips."""
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
