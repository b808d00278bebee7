"""The text-to-speech suite and the NAR's part in the conversion suite, from end to end with tiny random models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from conftest import SPEECH, run_command
from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.evaluation import conversion, tts
from vocable.evaluation.metrics import METRICS, Metric, Pair, Score, load_metric
from vocable.evaluation.pairs import pair_with_others, pair_with_prompts
from vocable.evaluation.summary import is_complete, read_summary
from vocable.lm.uslm import USLM


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of six clips of two speakers, one without a text, one broken."""
    folder = tmp_path_factory.mktemp("clips")
    speech, rate = audio.read(SPEECH)
    lines = []
    for i in range(6):
        audio.write(folder / f"{i}.wav", speech[i * rate : i * rate + 20_000], rate)
        row = {"id": f"clip-{i}", "path": f"{i}.wav", "duration": 1.25, "speaker": f"s{i % 2}", "language": "en"}
        lines.append(json.dumps(row | ({"text": "a few words."} if i else {})))
    (folder / "5.wav").write_bytes(b"RIFF nonsense")
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder / "clips.jsonl"


class RecordingMetric(Metric):
    """A metric that records the pairs that it judges."""

    name, label, better, bounds = "recording", "seconds", "higher", (0.0, np.inf)
    asked: ClassVar[list[Pair]] = []

    def __call__(self, pair: Pair) -> Score:
        self.asked.append(pair)
        return len(pair.decoded) / 16_000, 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """Replace all metrics of the suites; return the pairs that they are given."""
    for name in ("recording", *tts.DEFAULT_METRICS):
        monkeypatch.setitem(METRICS, name, RecordingMetric)
    monkeypatch.setattr(RecordingMetric, "asked", [])
    load_metric.cache_clear()
    yield RecordingMetric.asked
    load_metric.cache_clear()


def test_the_suite(
    clips: Path,
    asked: list[Pair],
    uslm_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models, codec = uslm_folders
    name = f"{models}@{codec}"
    call = ("eval", "tts", clips, "-o", tmp_path, "--systems", name, "--metrics", "recording", "--jobs", 1)
    assert run_command(*call, "--listen", 1) == 2  # a clip was left out
    printed = capsys.readouterr()
    assert "left out" in printed.err and "1 clips are not included" in printed.out
    summary = read_summary(tmp_path)
    figures = summary["languages"]["en"]
    assert list(figures) == ["recording", f"{name} codec", f"{name} NAR", f"{name} NAR, text", name]
    assert figures["recording"]["recording"]["value"] == 1.25
    assert summary["clips"] + len(summary["left_out"]) == 5, "a clip without text is not spoken"
    assert (tmp_path / "index.html").read_text().count("<audio") == 6
    # What models say is judged by the text, and by the voice of the prompt.
    uslm = USLM.from_pretrained(models, codec=codec)
    pairs = {pair.id: pair for pair in pair_with_prompts(read_manifest(clips), read_manifest(clips), seed=0)[0]}
    pair = next(pair for name, pair in pairs.items() if name not in summary["left_out"])
    recording, prompt = (audio.read(u.path, 16_000)[0] for u in (pair.source, pair.reference))
    said = uslm.generate(pair.source.text, uslm.prepare_voice(prompt, sample_rate=16_000), seed=0).waveform.numpy()
    [judged] = [p for p in asked if np.array_equal(p.decoded, said) and np.array_equal(p.reference, recording)]
    assert (judged.text, judged.language) == ("a few words.", "en") and np.array_equal(judged.voice, prompt)
    # Once more from what is there, and once more from nothing.
    rows = (tmp_path / "rows.jsonl").read_text()
    assert run_command(*call) == 2 and read_summary(tmp_path) == summary
    (tmp_path / "rows.jsonl").unlink()
    assert run_command(*call) == 2 and (tmp_path / "rows.jsonl").read_text() == rows
    assert run_command(*call, "--takes", 2) == 2
    assert "another takes" in capsys.readouterr().err
    # The first words of a text alone; what is recorded is judged by all of it.
    call = (*call[:4], tmp_path / "words", *call[5:])
    asked.clear()
    assert run_command(*call, "--words", 2, "--listen", 1) == 2
    assert {p.text for p in asked} == {"a few", "a few words."}
    assert "first 2 words of each text" in capsys.readouterr().out
    assert run_command(*call[:-5], models, *call[-4:]) == 2
    assert "named as FOLDER@CODEC" in capsys.readouterr().err


def test_prompts_are_other_clips_of_the_speaker_or_clips_of_others(clips: Path) -> None:
    known = read_manifest(clips)
    pairs, unspoken = pair_with_prompts(known, known, seed=1)
    assert len(pairs) == 5 and unspoken == 1
    for pair in pairs:
        assert pair.source.speaker == pair.reference.speaker and pair.source.id != pair.reference.id
    elsewhere = [dataclasses.replace(u, path=u.path.parent / ".." / u.path.parent.name / u.path.name) for u in known]
    assert all(p.source.path.name != p.reference.path.name for p in pair_with_prompts(known, elsewhere, seed=1)[0])
    strangers = [Utterance("x", Path("x"), 2.0, "x", None, None, "de"), Utterance("y", Path("y"), 0.5, "y")]
    assert {pair.reference.id for pair in pair_with_prompts(known, strangers, seed=1)[0]} == {"x"}
    assert pair_with_prompts([*known, Utterance("z", Path("z"), 2.0, "z", "alone")], known, seed=1)[1] == 2
    with pytest.raises(ValueError, match="see --prompts"):
        pair_with_prompts(known[1:2], known[1:2], seed=1)


def test_conversion_by_the_nar_and_by_swapped_layers(
    clips: Path,
    asked: list[Pair],
    uslm_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(conversion, "recogniser", lambda judges: None)
    models, codec = uslm_folders
    call = ("eval", "conversion", clips, "-o", tmp_path, "--system", codec, "--models", models, "--jobs", 1)
    assert run_command(*call) == 2  # pairs with the broken clip
    summary = read_summary(tmp_path)
    assert list(summary["languages"]["en"]) == ["source", ":1", "1:2", "1:4", "nar", "nar, text"]
    for nar in ("nar", "nar, text"):
        assert any(line.startswith(f"en: WER % of 1:4 is above that of {nar}: ") for line in summary["orders"])
        assert any(f"reference of {nar} is above that of 1:2: " in line for line in summary["orders"])
    assert "NAR in the reference's voice" in (tmp_path / "tables.md").read_text()
    loaded, converter = conversion.load_converter(str(codec), str(models))
    pair = next(
        pair
        for pair in pair_with_others(read_manifest(clips)[1:], read_manifest(clips), seed=0)
        if pair.id not in summary["left_out"] and not pair.id.startswith("clip-5") and "clip-5" not in pair.id
    )
    source, reference = (audio.read(u.path, 16_000)[0] for u in (pair.source, pair.reference))
    made = dict(conversion.convert(loaded, converter, pair, source, reference))
    voice = converter.prepare_voice(reference)
    for name, text in (("nar", None), ("nar, text", pair.source.text)):
        expected = converter.convert(source, voice, text=text).waveform[0].clamp(-1, 1).numpy()
        assert np.array_equal(made[name], expected)
    (tmp_path / "ar").mkdir()
    config = json.loads((models / "config.json").read_text())
    without = {key: value for key, value in config.items() if key not in ("nar", "aligner")}
    (tmp_path / "ar" / "config.json").write_text(json.dumps(without))
    (tmp_path / "ar" / "ar.safetensors").write_bytes((models / "ar.safetensors").read_bytes())
    call = ("eval", "conversion", clips, "-o", tmp_path / "no", "--system", codec, "--models", tmp_path / "ar")
    assert run_command(*call) == 2
    assert "no NAR" in capsys.readouterr().err


def test_texts_that_the_nar_cannot_use_make_a_summary_incomplete() -> None:
    clips = {"a NAR": {"clips": 5}, "a NAR, text": {"clips": 3}, "b NAR": {"clips": 5}}
    lines = tts.notes_on_unaligned_texts({"en": clips}, ["a", "b"])
    assert lines == ["a, prompts in en: 2 texts could not be given to the NAR."]
    assert not is_complete({"untold": lines, "left_out": {}, "unjudged": {}})
    assert is_complete({"untold": [], "left_out": {}, "unjudged": {}, "not_available": {}, "unspoken": 0})
