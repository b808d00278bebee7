"""The suite from end to end, with metrics that need no extra."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import SPEECH, make_tiny, run_command
from vocable import audio
from vocable.corpus.manifest import Utterance
from vocable.evaluation import compare
from vocable.evaluation.diagnose import diagnose
from vocable.evaluation.reconstruction import unwritten


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
    pytest.importorskip("matplotlib")
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


def test_several_processes_give_the_same(corpus: Path, tmp_path: Path) -> None:
    evaluate(corpus, tmp_path / "one", "--listen", 1, "--limit", 4)
    evaluate(corpus, tmp_path / "two", "--listen", 1, "--limit", 4, "--jobs", 2)
    assert (tmp_path / "one" / "summary.json").read_text() == (tmp_path / "two" / "summary.json").read_text()


def test_a_table_is_given_another_system(corpus: Path, tmp_path: Path) -> None:
    """What is measured stays; a clip that one system cannot do is left out of all."""
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


def test_true_texts_and_heard_ones_are_kept_apart() -> None:
    clips = [
        Utterance("a", Path("a"), 1.0, language="de", text="ja"),
        Utterance("b", Path("b"), 1.0, language="de"),
        Utterance("c", Path("c"), 1.0, language="es"),
        Utterance("d", Path("d"), 1.0),
    ]
    assert unwritten(clips) == {"es", "en"}


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
    pytest.importorskip("matplotlib")
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
    with pytest.raises(ValueError, match="no recording"):
        diagnose(summary_of(a_8=(6, 0.95)))


def test_kept_clips_are_as_long_as_the_recording(corpus: Path, tmp_path: Path) -> None:
    evaluate(corpus, tmp_path / "out", "--listen", 2)
    page = (tmp_path / "out" / "index.html").read_text()
    kept = [soundfile.read(io.BytesIO(base64.b64decode(data)))[0] for data in re.findall('flac;base64,([^"]*)', page)]
    assert len(kept) == 6
    assert {len(waveform) for waveform in kept} == {9_000}
    assert not np.array_equal(kept[0], kept[1])
