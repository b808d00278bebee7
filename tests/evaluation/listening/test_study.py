"""A test from the plan to the report: what is served, whether it is blind, and what comes back."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from starlette.testclient import TestClient

from conftest import run_command
from evaluation.listening.conftest import plan_of
from vocable.evaluation.listening import rehearsal, stimuli
from vocable.evaluation.listening.answers import read_answers
from vocable.evaluation.listening.report import report
from vocable.evaluation.listening.server import create_app
from vocable.evaluation.listening.sound import loudness
from vocable.evaluation.listening.study import make, read_key

KINDS = {
    "mushra": {"systems": ("fast@:8",), "clips": 3},
    "mos": {"systems": ("recording", "fast@:1"), "clips": 3, "versions": 2},
    "smos": {"systems": ("fast@:8", "fast@:1"), "clips": 3, "checks": 2},
    "preference": {"systems": ("recording", "fast@:1"), "clips": 3},
    "abx": {"systems": ("recording", "fast@:8"), "clips": 4},
}


def data_of(study: Path) -> dict[str, Any]:
    """Return what the page holds."""
    text = (study / "public" / "test.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def waveforms(study: Path) -> dict[str, np.ndarray]:
    return {path.stem: soundfile.read(path)[0] for path in sorted((study / "public" / "audio").iterdir())}


def test_stimuli_have_one_loudness_length_and_format(mushra: Path) -> None:
    key, _ = read_key(mushra / "key.json")
    lengths: dict[str, set[int]] = {}
    levels = []
    for token, waveform in waveforms(mushra).items():
        lengths.setdefault(key["stimuli"][token]["clip"], set()).add(len(waveform))
        levels.append(loudness(waveform))
    assert all(len(found) == 1 for found in lengths.values())
    assert np.ptp(levels) < 0.1 and abs(np.mean(levels) - key["loudness"]) < 0.1


def features(study: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return all that is known of each stimulus but its sound [N, F], its system [N], and files with their bytes."""
    key, plan = read_key(study / "key.json")
    data, audio = data_of(study), study / "public" / "audio"
    order = list(data["stimuli"])
    rows, systems, sounds = [], [], {}
    for i, path in enumerate(sorted(audio.iterdir())):
        if key["stimuli"][path.stem]["system"] not in plan.on_screen:
            continue
        content, (waveform, rate) = path.read_bytes(), soundfile.read(path)
        places = [
            (number, page, trial["stimuli"].index(path.stem))
            for number, form in enumerate(data["forms"])
            for page, trial in enumerate(form)
            if path.stem in trial["stimuli"]
        ]
        if not places:  # of the training page
            continue
        name = [int(digit, 16) for digit in path.stem]
        seen = [*np.mean(places, 0), places[0][2], places[-1][2]]
        about = [path.stat().st_mtime, path.stat().st_size, len(waveform), rate, len(data["stimuli"][path.stem])]
        rows.append([*name, *about, *content[:44], round(loudness(waveform), 1), i, order.index(path.stem), *seen])
        systems.append(key["stimuli"][path.stem]["system"])
        sounds[path.stem] = waveform
    return np.array(rows, float), np.array(systems), sounds


@pytest.mark.slow
def test_nothing_but_the_sound_tells_the_system(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="pip install 'vocable[train]'")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    rng = np.random.default_rng(0)
    monkeypatch.setattr(stimuli.secrets, "token_hex", lambda n: rng.bytes(n).hex())  # the test fails always or never
    plan = plan_of(manifest, kind="mushra", systems=("fast@:8", "fast@:1"), clips=8, listeners=5, seed=1)
    key = make(plan, tmp_path / "test")
    known, systems, sounds = features(tmp_path / "test")
    assert len(systems) == 8 * 5

    def accuracy(rows: np.ndarray) -> float:
        return float(cross_val_score(RandomForestClassifier(60, random_state=0), rows, systems, cv=4).mean())

    chance = 1 / 5
    assert accuracy(known) <= chance + 2 * np.sqrt(chance * (1 - chance) / len(systems))
    clips = np.array([key["stimuli"][token]["clip"] for token in sounds])
    sizes = np.array([_flac_bytes(sound) for sound in sounds.values()])  # compressed files would tell
    relative = sizes / [sizes[clips == clip].mean() for clip in clips]
    assert accuracy(np.hstack([known, relative[:, None]])) > chance + 0.15


def _flac_bytes(waveform: np.ndarray) -> float:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, 16000, format="FLAC")
    return float(len(buffer.getvalue()))


def test_no_served_file_names_a_system_or_a_clip(mushra: Path, mos: Path) -> None:
    for study in (mushra, mos):
        files = [path for path in (study / "public").rglob("*") if path.is_file()]
        assert len({path.stat().st_mtime for path in files}) == 1
        for path in files:
            text = path.read_bytes()[:44].decode("latin-1") if path.suffix == ".wav" else path.read_text("utf-8")
            text = re.sub(r'"stimuli": \{.*?\}', "", text).lower() + path.name  # samples in base64 spell any word
            for word in ("fast", "recording", "clip0", "hidden reference", "anchor 3", "anchor 7"):
                assert word not in text, (path, word)


def test_each_system_meets_each_clip_and_place_equally_often(mushra: Path) -> None:
    key, plan = read_key(mushra / "key.json")
    counts: dict[tuple[str, str, int], int] = {}
    for form in key["forms"]:
        for trial in form:
            for place, token in enumerate(trial["stimuli"][1:]):
                where = (trial["clip"], key["stimuli"][token]["system"], place)
                counts[where] = counts.get(where, 0) + 1
    assert set(counts.values()) == {1} and len(counts) == plan.clips * 5 * 5


@pytest.mark.parametrize("kind", list(KINDS))
def test_from_plan_to_report(kind: str, manifest: Path, tmp_path: Path) -> None:
    study = tmp_path / "test"
    key = make(plan_of(manifest, kind=kind, listeners=8, **KINDS[kind]), study)
    with pytest.raises(ValueError, match="name another folder"):
        make(plan_of(manifest, kind=kind, **KINDS[kind]), study)
    _, plan = read_key(study / "key.json")
    assert data_of(study)["study"] == key["study"]
    audible = {token for form in key["forms"] for trial in form for token in trial["stimuli"]}
    assert audible <= set(data_of(study)["stimuli"]) == set(waveforms(study))
    configs = sorted((study / "webmushra").glob("*.yaml"))
    assert len(configs) == (0 if kind in ("abx", "smos") else plan.listeners)
    for path in [*configs, study / "public" / "forms.yaml"]:
        content = yaml.safe_load(path.read_text())
        files = re.findall(r"audio/\w+\.wav", path.read_text())
        assert files and all((study / "public" / file).is_file() for file in files)
        assert content.get("pages") or content["kind"] == kind
    if kind == "mushra":  # webMUSHRA adds the hidden reference itself, and draws the order
        page = yaml.safe_load(configs[0].read_text())["pages"][1]
        assert page["randomize"]
        heard = {key["stimuli"][Path(file).stem]["system"] for file in page["stimuli"].values()}
        assert heard == {"anchor 3.5 kHz", "anchor 7 kHz", *plan.systems}
    rehearsal.write_answers(key, plan, tmp_path / "answers", careless=0.0, seed=0)
    answers = read_answers([tmp_path / "answers"], key, plan)
    assert np.isfinite(answers.scores).any((0, 2)).all()
    summary = report(answers, key, plan, tmp_path / "report")
    assert summary["simulated"] and summary["listeners_kept"] >= 6
    assert "simulated" in (tmp_path / "report" / "tables.md").read_text()
    names = plan.on_screen if kind == "mushra" else [" over ".join(names) for names in plan.judged]
    assert list(summary["scores"]) == names
    assert (tmp_path / "report" / "scores.csv").read_text().count("\n") == len(answers.rows) + 1
    if kind == "mushra":
        assert summary["scores"]["hidden reference"]["value"] > 90
    else:
        assert all(own["checks_passed"] <= own["checks"] == plan.checks for own in summary["listeners"].values())


def test_scores_go_to_the_systems_that_were_heard(mos: Path, tmp_path: Path) -> None:
    key, plan = read_key(mos / "key.json")
    wanted = {"recording": 5, "fast@:8": 4, "fast@:1": 2}
    for number, form in enumerate(key["forms"], 1):
        answers = []
        for i, trial in enumerate(form):
            value = trial.get("expected") or wanted[key["stimuli"][trial["stimuli"][0]]["system"]]
            answers.append({"trial": i, "values": [value], "plays": [1], "seconds": 4.0})
        write(tmp_path, key, number, answers)
    summary = report(read_answers([tmp_path], key, plan), key, plan, tmp_path / "report")
    assert {name: found["value"] for name, found in summary["scores"].items()} == wanted
    assert summary["left_out"] == {} and all(test["holm"] < 0.001 for test in summary["differences"])


def write(folder: Path, key: dict[str, Any], number: int, given: list[dict[str, Any]], **changes: Any) -> Path:
    content = {"format": "vocable-listening-1", "study": key["study"], "listener": number, "session": f"s{number}"}
    path = folder / f"{changes.get('session', number)}.json"
    path.write_text(json.dumps(content | {"answers": given} | changes))
    return path


def test_answers_that_do_not_fit_are_refused(mos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, plan = read_key(mos / "key.json")
    good = [{"trial": 0, "values": [3], "plays": [1], "seconds": 2.0}]
    for changes, message in [
        ({"study": "other"}, "name its key"),
        ({"listener": 99}, "there are 1 to 9"),
        ({"format": "x"}, "not answers"),
        ({"answers": [{"trial": 0, "values": [6], "seconds": 1}]}, "damaged at page 1"),
        ({"answers": [{"trial": 1, "values": [3], "seconds": 1}]}, "damaged at page 1"),
        ({"answers": [{"trial": 0, "values": [True], "seconds": 1}]}, "damaged at page 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_answers([write(tmp_path, key, 1, good, **changes)], key, plan)
    files = [write(tmp_path, key, 1, good), write(tmp_path, key, 1, good, session="again")]
    with pytest.raises(ValueError, match="two sessions of listener 1"):
        read_answers(files, key, plan)
    assert read_answers(files[:1], key, plan).left_out == {1: "did not finish"}
    assert run_command("listen", "report", files[0], "--key", mos / "public" / "forms.yaml", "-o", tmp_path / "r") == 2
    assert "name key.json" in capsys.readouterr().err


def test_a_report_without_answers_says_so(mos: Path, tmp_path: Path) -> None:
    assert run_command("listen", "report", "--key", mos / "key.json", "-o", tmp_path / "report") == 0
    assert "Nobody has listened yet" in (tmp_path / "report" / "index.html").read_text()


def test_predictors_beside_listeners(manifest: Path, tmp_path: Path) -> None:
    plan = plan_of(
        manifest, kind="mos", systems=("recording", "fast@:8", "fast@:1"), clips=4, listeners=6, predictors=("stoi",)
    )
    key = make(plan, tmp_path / "test")
    predicted = {key["stimuli"][token]["system"]: found["stoi"] for token, found in key["predictions"].items()}
    assert predicted["recording"] > predicted["fast@:8"] > predicted["fast@:1"]
    _, plan = read_key(tmp_path / "test" / "key.json")
    rehearsal.write_answers(key, plan, tmp_path / "answers", careless=0.0, seed=0)
    summary = report(read_answers([tmp_path / "answers"], key, plan), key, plan, tmp_path / "report")
    found = summary["predictors"]["stoi"]
    assert found["systems"]["recording"] == pytest.approx(1.0, abs=0.01)
    assert found["stimuli"]["count"] == 12 and found["means"]["pearson"] > 0.5


def test_conversion_and_speech_from_text(manifest: Path, uslm_folders: tuple[Path, Path], tmp_path: Path) -> None:
    lm, codec = uslm_folders
    common = {"kind": "smos", "clips": 2, "listeners": 2, "checks": 1}
    converted = plan_of(manifest, speech="conversion", codec=str(codec), systems=("source", "1:4"), **common)
    key = make(converted, tmp_path / "conversion")
    systems = {found["system"] for found in key["stimuli"].values()}
    assert systems == {"source", "1:4", "prompt", "beeps"}
    name = f"{lm}@{codec}"
    spoken = plan_of(manifest, speech="tts", models=name, systems=("recording", f"{name} codec", name), **common)
    make(spoken, tmp_path / "tts")
    lengths = {}
    key, _ = read_key(tmp_path / "tts" / "key.json")
    for token, waveform in waveforms(tmp_path / "tts").items():
        if key["stimuli"][token]["system"] != "prompt":
            lengths.setdefault(key["stimuli"][token]["clip"], set()).add(len(waveform))
    assert all(len(found) == 1 for clip, found in lengths.items())
    with pytest.raises(ValueError, match="no 'other'"):
        make(
            plan_of(manifest, speech="conversion", codec=str(codec), systems=("source", "other"), **common),
            tmp_path / "x",
        )


def test_the_service_gives_numbers_and_stores_answers(mos: Path) -> None:
    key, plan = read_key(mos / "key.json")
    with TestClient(create_app(mos)) as client:
        assert client.get("/").url.params["listener"] == "1"
        response = client.get("/")
        assert response.url.params["listener"] == "2" and "data-store" in response.text[:200]
        answers = [{"trial": 0, "values": [3], "plays": [1], "seconds": 2.0}]
        content = {"format": "vocable-listening-1", "study": key["study"], "listener": 2, "session": "abc"}
        assert client.post("/answers", json=content | {"answers": answers}).json() == {"stored": 1}
        for bad in ({"session": "../../x", "answers": answers}, {"answers": 3}, {"listener": 0, "answers": []}):
            assert client.post("/answers", json=content | bad).status_code == 422
        assert client.post("/answers", content=b"[" * 100_000).status_code == 422
        assert client.post("/answers", content=b" " * (2**20 + 1)).status_code == 413
        assert client.get("/key.json").status_code == 404
    assert [path.name for path in (mos / "answers").iterdir()] == ["listener-2-abc.json"]
    with TestClient(create_app(mos)) as client:  # numbers of stored answers stay taken
        assert [client.get("/").url.params["listener"] for _ in range(2)] == ["1", "3"]
    assert read_answers([mos / "answers"], key, plan).listeners == [2]
