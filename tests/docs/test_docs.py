"""The blocks of the pages run, page by page, in order; links have targets; the site builds."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, SPEECH, make_tiny_paper, run_command
from vocable import SpeechTokenizer, audio
from vocable.codec.tokens import Encoded
from vocable.corpus.manifest import read_manifest


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of the blocks of a page that have a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_python(page: str, text: str, names: dict[str, object]) -> None:
    """Run a Python block; its variables are kept in `names`."""
    exec(compile(text, page, "exec"), names)


def run_commands(text: str) -> None:
    """Run each line of a block of `vocable` commands."""
    for line in text.splitlines():
        if command := shlex.split(line, comments=True):
            assert command[0] == "vocable", line
            assert run_command(*command[1:]) == 0, line


def run_page(page: str) -> dict[str, object]:
    """Run the blocks `sh` and `python` of a page, in order; return the variables of the Python blocks."""
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            run_python(page, text, names)
        elif language == "sh":
            run_commands(text)
    return names


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each page in an empty folder that holds speech.flac."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SPEECH, "speech.flac")
    return tmp_path


def record(*names: str) -> None:
    """Write recordings of two seconds each."""
    speech, rate = audio.read(SPEECH)
    for i, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(name, speech[2 * i * rate : 2 * (i + 1) * rate], rate)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/how-to/python.md"])
def test_python_blocks(page: str) -> None:
    names: dict[str, object] = {}
    texts = [text for language, text in blocks(page) if language == "python"]
    assert texts
    for text in texts:
        run_python(page, text, names)


def test_command_line() -> None:
    record("recordings/a/1.wav", "recordings/b/2.wav")
    run_page("docs/how-to/command-line.md")
    assert Path("decoded/a/1.wav").is_file()


def test_transformers() -> None:
    pytest.importorskip("vocable.hf")
    names = run_page("docs/how-to/transformers.md")
    codes = SpeechTokenizer.from_pretrained().encode(names["waveform"]).codes
    assert names["encoded"].audio_codes[:1].eq(codes).all()


def test_official_package() -> None:
    make_tiny_paper().save_pretrained("ours")
    assert run_command("export-official", "ours", "-o", "speechtokenizer_hubert_avg") == 0
    run_page("docs/how-to/official.md")


def test_your_own_recordings() -> None:
    record("recordings/anna/1.wav")
    page = (ROOT / "docs/how-to/data.md").read_text(encoding="utf-8")
    section = page.split("## Your own recordings\n")[1].split("\n## ")[0]
    [commands] = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    run_commands(commands)
    assert [u.speaker for u in read_manifest("train.jsonl")] == ["anna"]


def test_tokenize_a_corpus() -> None:
    pytest.importorskip("transformers")
    record(*(f"recordings/{i}.wav" for i in range(4)))
    names: dict[str, object] = {}
    for language, text in blocks("docs/tutorials/tokenize.md"):
        if language == "python":
            run_python("docs/tutorials/tokenize.md", text.replace("range(200)", "range(12)"), names)
        elif language == "sh":
            run_commands(text)
    assert names["speech"].shape == (1, 100 * 320)  # type: ignore[attr-defined]


def test_listening_tests() -> None:
    pytest.importorskip("pyloudnorm")
    record(*(f"recordings/{i}.wav" for i in range(4)))
    prepare = "vocable prepare folder recordings -o clips.jsonl --language en --speakers-from none"
    run_commands(prepare)
    for language, text in blocks("docs/how-to/listen.md"):
        if language == "yaml":
            Path("plan.yaml").write_text(text)
        elif language == "sh":
            run_commands(text.replace("simulate", "simulate --studies 5"))
    assert "simulated listeners" in Path("rehearsed/tables.md").read_text()


def test_large_corpora() -> None:
    pytest.importorskip("tokenizers")
    record(*(f"recordings/{i}.wav" for i in range(4)))
    run_page("docs/how-to/corpus.md")


@pytest.mark.parametrize("page", ["docs/tutorials/speak.md", "docs/tutorials/convert.md", "docs/how-to/speak.md"])
def test_speech(page: str) -> None:
    pytest.importorskip("phonemizer")
    record("voice.wav", "source.wav")
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            run_python(page, re.sub(r"takes=\d+|seed=0", "takes=1", text), names)
        elif language == "sh":
            fast = re.sub(r" --takes \d+", "", text).replace("vocable tts", "vocable tts --takes 1")
            run_commands(fast)


def test_train_your_own_codec() -> None:
    pytest.importorskip("yaml")
    pytest.importorskip("matplotlib")
    from semantic.test_teacher import save_teacher

    save_teacher("whisper", Path("openai/whisper-base"), d_model=512, encoder_layers=6)  # a folder of the hub id's name
    record(*(f"recordings/{name}.wav" for name in ("train/anna/1", "train/anna/2", "train/ben/1", "dev/carl/1")))
    few = " --set max_steps=1 --set data.batch_size=1 --set dev_clips=1"
    for language, text in blocks("docs/tutorials/train.md"):
        if language == "yaml":
            Path("mine.yaml").write_text(text)
        elif language == "sh":
            run_commands(re.sub(r"^vocable train codec [^#\n]*", lambda line: line[0] + few, text, flags=re.MULTILINE))
    assert {u.speaker for u in read_manifest("train.jsonl")} == {"anna", "ben"}
    tuned = SpeechTokenizer.from_pretrained("runs/mine/model")
    token_id = Encoded.load("tokens/anna/1.safetensors").token_id
    assert token_id == tuned.token_id != SpeechTokenizer.from_pretrained("fast").token_id
    assert Path("runs/mine/report.html").is_file() and Path("after/carl/1.wav").is_file()
    assert Path("runs/clearer/model/discriminators.safetensors").is_file()


def test_links_have_targets() -> None:
    pages = [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "models").glob("*.md"),
    ]
    for page in pages:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            if not link.endswith("reference/command-line.md"):  # the site's build makes it
                assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python", "griffe_sphinx"):
        pytest.importorskip(package, reason="the site needs the extra docs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(site)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert not loaded, f"{page.name} loads {loaded}"
