"""The suite from end to end, with metrics that need no extra."""

from __future__ import annotations

import base64
import io
import json
import ntpath
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import compare
from vocable.evaluation.diagnose import diagnose
from vocable.evaluation.metrics import METRICS, NoAnswer, load_metric, words
from vocable.evaluation.scoring import languages_without_text, transcript


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of four speakers, two of them broken, and a tiny codec."""
    folder = tmp_path_factory.mktemp("corpus")
    make_tiny().save_pretrained(folder / "tiny")
    speech, rate = audio.read(SPEECH)
    lines = []
    for i in range(12):
        audio.write(folder / f"{i}.wav", speech[i * 3_000 : i * 3_000 + 9_000], rate)
        row = {"id": f"clip-{i}", "path": f"{i}.wav", "duration": 9_000 / rate, "speaker": f"s{i % 6}", "text": "yes"}
        lines.append(json.dumps(row | {"accent": "north" if i % 4 < 2 else "south"}))
    (folder / "5.wav").write_bytes(b"RIFF nonsense")
    (folder / "7.wav").unlink()
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder


def evaluate(corpus: Path, out: Path, *options: object) -> int:
    systems = f"recording,{corpus}/tiny@:8,{corpus}/tiny@:1,{corpus}/none"
    return run_command(
        *("eval", "reconstruction", corpus / "clips.jsonl", "-o", out, "--systems", systems),
        *("--metrics", "mel,si-sdr", "--jobs", 1, *options),
    )


def test_the_suite(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(corpus, tmp_path / "out") == 2  # two clips were left out
    printed = capsys.readouterr()
    assert "10 clips, 2 left out" in printed.err
    assert "weights not available" in printed.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["left_out"]) == {"clip-5", "clip-7"}
    assert (summary["clips"], summary["speakers"]) == (10, 6)
    found = summary["systems"]
    assert found["recording"]["mel"]["value"] == 0.0
    assert found[f"{corpus}/tiny@:8"]["mel"]["value"] > 0.0
    assert found[f"{corpus}/tiny@:1"]["nominal_bps"] * 8 == found[f"{corpus}/tiny@:8"]["nominal_bps"]
    for system in found.values():
        assert system["mel"]["low"] <= system["mel"]["value"] <= system["mel"]["high"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<audio") == 3 * 6  # six clips to hear
    assert "http" not in re.sub(r"data:[^\"]*", "", page)  # nothing is fetched

    # Killed in the middle and resumed: the same summary.
    rows = tmp_path / "out" / "rows.jsonl"
    lines = rows.read_text().split("\n")
    rows.write_text("\n".join(lines[:6]) + "\n" + lines[6][:20])
    assert evaluate(corpus, tmp_path / "out") == 2
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace Whisper: the transcript is always "50 turns", and English and Swedish are known."""

    class Heard(words.Recogniser):
        folder = Path("whisper-none")

        def __init__(self) -> None:
            self._model = SimpleNamespace(supported_languages=["en", "sv"])

        def __call__(self, waveform: np.ndarray, language: str | None) -> str:
            assert self.code_of(language) == language, "the model's own code"
            return "50 turns"

    monkeypatch.setattr(words, "recogniser", lambda judges: Heard())
    monkeypatch.setattr(words.WER, "made_with", lambda self: {})
    load_metric.cache_clear()
    yield
    load_metric.cache_clear()


def test_regions_of_languages_and_figures_that_clips_lack(
    whisper: None, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [("en-US", "fifty turns"), ("en", "fifty turns"), ("sv-SE", "50 turns"), ("sv", None), ("ga-IE", "céad")]
    rows = [
        {"id": f"{i}", "path": f"{corpus}/{i}.wav", "duration": 1.0, "language": language, "text": text}
        for i, (language, text) in enumerate(clips)
    ]

    def judge(count: int) -> tuple[int, dict[str, Any]]:
        (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows[:count])))
        out = tmp_path / f"{count}"
        call = ("eval", "reconstruction", tmp_path / "clips.jsonl", "-o", out, "--systems", "recording")
        code = run_command(*call, "--metrics", "wer,mel", "--jobs", 1, "--listen", 0)
        return code, json.loads((out / "summary.json").read_text())

    code, summary = judge(3)
    assert code == 0 and summary["unjudged"] == {}
    assert (
        summary["systems"]["recording"]["wer"]["value"] == 0.0 and summary["systems"]["recording"]["wer"]["clips"] == 3
    )
    assert summary["clip_languages"] == {"en": 2, "sv": 1}
    assert "sv (1 clips): Whisper has no normalizer" in capsys.readouterr().out
    code, summary = judge(5)
    unknown = "whisper-none does not know the language 'ga'"
    assert code == 2 and summary["unjudged"] == {"recording": {"wer": {"no text": 1, unknown: 1}}}
    assert summary["systems"]["recording"]["mel"]["clips"] == 5
    printed = capsys.readouterr()
    assert "5 clips, 0 left out, 2 figures missing" in printed.err
    assert f"recording: no WER % in 1 cases: {unknown}." in printed.out


def test_a_metric_that_is_broken_ends_the_run_with_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: object, pair: object) -> None:
        raise AttributeError("module 'numpy' has no attribute 'float'")

    monkeypatch.setattr(METRICS["mel"], "__call__", broken)
    assert evaluate(corpus, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "stopped at clip-0 through recording" in err and "'float'" in err and err.count("\n") == 1
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_missing_system_gives_exit_code_2(corpus: Path, tmp_path: Path) -> None:
    call = ("eval", "reconstruction", corpus / "clips.jsonl", "--limit", 1, "--metrics", "mel", "--listen", 0)
    assert run_command(*call, "-o", tmp_path / "one", "--systems", "recording") == 0
    assert run_command(*call, "-o", tmp_path / "two", "--systems", f"recording,{corpus}/none") == 2


def test_folders_on_windows_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    from vocable.cli.evaluate import _folder_and_system

    assert _folder_and_system("out/a:encodec:x@:8") == (Path("out/a"), "encodec:x@:8")
    assert _folder_and_system("r:/models/tiny@:8") == (Path("r"), "/models/tiny@:8")
    monkeypatch.setattr("os.path.splitdrive", ntpath.splitdrive)
    assert _folder_and_system(r"C:\results:fast@:1") == (Path(r"C:\results"), "fast@:1")
    assert _folder_and_system(r"results:fast") == (Path("results"), "fast")


def test_several_processes_give_the_same(corpus: Path, tmp_path: Path) -> None:
    evaluate(corpus, tmp_path / "one", "--listen", 1, "--limit", 4)
    evaluate(corpus, tmp_path / "two", "--listen", 1, "--limit", 4, "--jobs", 2)
    assert (tmp_path / "one" / "summary.json").read_text() == (tmp_path / "two" / "summary.json").read_text()


def test_a_system_is_added_to_finished_results(corpus: Path, tmp_path: Path) -> None:
    """Existing rows are kept; a clip that fails in one system is left out of all."""
    call = ("eval", "reconstruction", corpus / "clips.jsonl", "-o", tmp_path, "--metrics", "mel", "--jobs", 1)
    options = ("--listen", 0, "--systems")
    assert run_command(*call, *options, f"{corpus}/tiny@:8") == 2
    before = (tmp_path / "rows.jsonl").read_text().split("\n")
    assert run_command(*call, *options, f"{corpus}/tiny@:8,recording") == 2
    after = (tmp_path / "rows.jsonl").read_text().split("\n")
    assert after[: len(before)] == before
    added = [json.loads(line) for line in after[len(before) :]]
    assert sum("rows" in result for result in added) == 10  # the recording's; broken clips are tried again
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["systems"]) == {f"{corpus}/tiny@:8", "recording"} and set(summary["left_out"]) == {
        "clip-5",
        "clip-7",
    }


def test_texts_and_transcripts_are_not_mixed() -> None:
    clips = [
        Utterance("a", Path("a"), 1.0, language="de", text="ja"),
        Utterance("b", Path("b"), 1.0, language="de"),
        Utterance("c", Path("c"), 1.0, language="es"),
        Utterance("d", Path("d"), 1.0),
    ]
    assert languages_without_text(clips) == {"es", "en"}
    assert languages_without_text([Utterance("e", Path("e"), 1.0, language="es-MX", text="sí"), *clips]) == {"en"}


def test_a_language_that_the_recogniser_does_not_know_has_no_text() -> None:
    def hear(waveform: np.ndarray, language: str) -> str:
        if language == "ga":
            raise NoAnswer("not known")
        return "ja"

    assert [transcript(hear, np.zeros(1), language) for language in ("de", "ga")] == ["ja", None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics", "beauty"], "no metric beauty"),
        (["--corpus", "none"], "no clip of the corpus"),
        (["--systems", "fast@1"], "layers are a slice"),
    ],
)
def test_bad_options(
    corpus: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(corpus, tmp_path / "out", *options) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_compare_and_speakers(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(corpus, tmp_path / "out", "--listen", 1)
    capsys.readouterr()
    tiny = f"{tmp_path}/out:{corpus}/tiny"
    assert run_command("eval", "compare", f"{tiny}@:8", f"{tiny}@:1") == 0
    assert "mel distance" in capsys.readouterr().out
    # Several systems count as one.
    eight, one = (f"{corpus}/tiny@:{layers}" for layers in (8, 1))
    out = tmp_path / "out"
    apart = compare.compare((out, eight), (out, one))["mel"]
    together = compare.compare((out, f"{eight}+{one}"), (out, one))["mel"]
    assert together["a"] == pytest.approx((apart["a"] + apart["b"]) / 2) and together["b"] == apart["b"]
    assert run_command("eval", "compare", f"{tiny}@:8+{corpus}/tiny@:3", f"{tiny}@:8") == 2
    assert "no rows of" in capsys.readouterr().err
    rows = (tmp_path / "out" / "rows.jsonl").read_text()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "rows.jsonl").write_text(rows.replace('"made_with": {}', '"made_with": {"pesq": "0.0.1"}', 1))
    (tmp_path / "out" / "rows.jsonl").write_text(rows.replace('"made_with": {}', '"made_with": {"pesq": "0.0.4"}', 1))
    assert run_command("eval", "compare", f"{tiny}@:8", f"{tmp_path}/old:{corpus}/tiny@:8") == 2
    assert "different pesq" in capsys.readouterr().err


BAD = {"wer": {"value": 90.0}, "speaker": {"value": 0.3}}


def summary_of(**systems: tuple[float, float]) -> dict[str, dict[str, object]]:
    rows = {name.replace("_", "@:"): {"wer": {"value": w}, "speaker": {"value": s}} for name, (w, s) in systems.items()}
    return {"systems": rows}


def test_diagnoses() -> None:
    [good] = diagnose(summary_of(recording=(5, 1), a_1=(12, 0.7), a_8=(6, 0.95)))
    assert "no failure" in good
    [alone] = diagnose(summary_of(recording=(5, 1), a_1=(20, 0.7)))
    assert "no failure" in alone  # nothing is said of layers that were not measured
    both = diagnose(summary_of(recording=(5, 1), a=(80, 0.4)))
    assert "measure RVQ-1 alone" in both[0] and "residual layers" in both[1]
    with pytest.raises(ValueError, match="no codec"):
        diagnose(summary_of(recording=(5, 1)))
    content = diagnose(summary_of(recording=(5, 1), a_1=(60, 0.7), a_8=(12, 0.95)))
    assert "content is poor" in content[0] and "look at RVQ-1 first" in content[1]
    [voice] = diagnose(summary_of(recording=(5, 1), a_1=(12, 0.7), a_8=(6, 0.7)))
    assert "residual layers" in voice
    [kept] = diagnose(summary_of(recording=(5, 1), a_1=(12, 0.9), a_8=(6, 0.95)))
    assert "keeps the voice" in kept
    [some] = diagnose(summary_of(recording=(5, 1), a_1=(12, 0.7), a_4=(6, 0.7)))
    assert "with 4 layers" in some
    peers = {"systems": summary_of(recording=(5, 1), a_8=(6, 0.95))["systems"] | {"opus:6": BAD, "encodec:x@:8": BAD}}
    assert "no failure" in diagnose(peers)[0]  # they have no layers that one could blame
    for other in (summary_of(a_8=(6, 0.95)), {"suite": "conversion", "languages": {}}):
        with pytest.raises(ValueError, match="no recording"):
            diagnose(other)


def test_kept_clips_are_as_long_as_the_recording(corpus: Path, tmp_path: Path) -> None:
    evaluate(corpus, tmp_path / "out", "--listen", 2)
    page = (tmp_path / "out" / "index.html").read_text()
    kept = [soundfile.read(io.BytesIO(base64.b64decode(data)))[0] for data in re.findall('flac;base64,([^"]*)', page)]
    assert len(kept) == 6
    assert {len(waveform) for waveform in kept} == {9_000}
    assert not np.array_equal(kept[0], kept[1])
