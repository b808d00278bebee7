"""The Python blocks of README and guide run, page by page, one after another."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, SPEECH, make_tiny_paper, run_command
from vocable.codec.checkpoint import export_official
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


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
