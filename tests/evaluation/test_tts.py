"""The text-to-speech suite and the NAR's part in the conversion suite, from end to end with tiny random models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import SPEECH, run_command
from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.evaluation import conversion, tts
from vocable.evaluation.runner import read_summary


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


def test_the_suite(
    clips: Path, uslm_folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    models, codec = uslm_folders
    name = f"{models}@{codec}"
    call = ("eval", "tts", clips, "-o", tmp_path, "--systems", name, "--metrics", "mel", "--jobs", 1, "--listen", 1)
    assert run_command(*call) == 2  # a clip was left out
    assert "left out" in capsys.readouterr().err
    summary = read_summary(tmp_path)
    figures = summary["languages"]["en"]
    assert list(figures) == ["recording", f"{name} codec", f"{name} NAR", name]
    assert figures["recording"]["mel"]["value"] == 0.0 < figures[f"{name} codec"]["mel"]["value"]
    assert summary["clips"] + len(summary["left_out"]) == 5, "a clip without text is not spoken"
    assert (tmp_path / "index.html").read_text().count("<audio") == 5
    # Once more from what is there, and once more from nothing.
    rows = (tmp_path / "rows.jsonl").read_text()
    assert run_command(*call) == 2 and read_summary(tmp_path) == summary
    (tmp_path / "rows.jsonl").unlink()
    assert run_command(*call) == 2 and (tmp_path / "rows.jsonl").read_text() == rows
    assert run_command(*call, "--takes", 2) == 2
    assert "another takes" in capsys.readouterr().err


def test_prompts_are_the_speakers_other_clips_or_anothers(clips: Path) -> None:
    known = read_manifest(clips)
    for pair in tts.pair_up(known, None, seed=1):
        assert pair.source.speaker == pair.reference.speaker and pair.source.id != pair.reference.id
    strangers = [Utterance("x", Path("x"), 2.0, "x", None, None, "de"), Utterance("y", Path("y"), 0.5, "y")]
    assert {pair.reference.id for pair in tts.pair_up(known, strangers, seed=1)} == {"x"}
    with pytest.raises(ValueError, match="give prompts"):
        tts.pair_up(known[1:2], None, seed=1)
    with pytest.raises(ValueError, match="no clip has a text"):
        tts.pair_up(known[:1], None, seed=1)


def test_conversion_by_the_nar_stands_beside_swapped_layers(clips: Path, uslm_folders: tuple[Path, Path]) -> None:
    models, codec = uslm_folders
    tok = conversion.load_codec(str(codec))
    source, reference = (audio.read(clips.parent / f"{i}.wav")[0] for i in (1, 2))
    made = dict(conversion.convert(tok, conversion.lm.load_models(models, tok.model), source, reference))
    assert list(made) == ["source", ":1", "1:2", "1:4", "nar"]
    assert {len(waveform) for waveform in made.values()} == {len(source)}
