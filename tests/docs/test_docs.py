"""The Python blocks of the pages run, page by page, one after another, and the commands of some."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, SPEECH, make_tiny_paper, run_command
from vocable import SpeechTokenizer, audio
from vocable.codec.exchange import export_official
from vocable.codec.tokens import Encoded
from vocable.corpus.manifest import read_manifest


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/official.md"])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SPEECH, "speech.flac")
    if page == "docs/official.md":  # a small checkpoint under the released one's name
        make_tiny_paper().save_pretrained("ours")
        export_official("ours", "speechtokenizer_hubert_avg")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    if page == "docs/official.md":  # and its commands
        [commands] = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        for line in commands.splitlines():
            assert run_command(*shlex.split(line, comments=True)[1:]) == 0, line
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_commands_for_your_own_recordings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings" / "anna").mkdir(parents=True)
    shutil.copy(SPEECH, "recordings/anna")
    section = (ROOT / "docs" / "training.md").read_text().split("## Your own recordings\n")[1].split("\n## ")[0]
    [commands] = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for line in commands.splitlines():
        assert run_command(*shlex.split(line, comments=True)[1:]) == 0, line
    assert [u.speaker for u in read_manifest("train.jsonl")] == ["anna"]


def test_commands_of_fine_tuning_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yaml")
    pytest.importorskip("matplotlib")
    from semantic.test_teacher import save_teacher

    monkeypatch.chdir(tmp_path)
    save_teacher("whisper", Path("openai/whisper-base"), d_model=512, encoder_layers=6)  # a folder of the hub id's name
    speech, rate = audio.read(SPEECH)
    for i, name in enumerate(["train/anna/1", "train/anna/2", "train/ben/1", "dev/carl/1"]):
        path = Path("recordings", name).with_suffix(".wav")
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, speech[2 * i * rate : 2 * (i + 1) * rate], rate)
    page = (ROOT / "docs" / "finetune.md").read_text()
    [recipe] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    Path("mine.yaml").write_text(recipe)
    few = ["--set", "max_steps=1", "--set", "data.batch_size=1", "--set", "dev_clips=1"]
    for line in "".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).splitlines():
        command = shlex.split(line, comments=True)[1:]
        assert run_command(*command, *(few if command[:2] == ["train", "codec"] else [])) == 0, line
    assert {u.speaker for u in read_manifest("train.jsonl")} == {"anna", "ben"}
    tuned = SpeechTokenizer.from_pretrained("runs/mine/model")
    assert (
        Encoded.load("tokens/anna/1.safetensors").token_id
        == tuned.token_id
        != SpeechTokenizer.from_pretrained("fast").token_id
    )
    assert Path("runs/mine/report.html").is_file() and Path("after/carl/1.wav").is_file()
    assert Path("runs/clearer/model/discriminators.safetensors").is_file()


def test_the_page_on_corpora_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    speech, rate = audio.read(SPEECH)
    for i in range(4):
        path = Path("recordings", f"{i}.wav")
        path.parent.mkdir(exist_ok=True)
        audio.write(path, speech[2 * i * rate : 2 * (i + 1) * rate], rate)
    page = (ROOT / "docs" / "corpus.md").read_text()
    for line in "".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).splitlines():
        assert run_command(*shlex.split(line, comments=True)[1:]) == 0, line
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block.replace("range(200)", "range(12)"), "corpus.md", "exec"), names)
    assert names["speech"].shape == (1, 100 * 320)  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
