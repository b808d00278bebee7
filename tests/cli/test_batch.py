"""Folders, pipes, and what does not go well, through the front door."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from conftest import SPEECH, run_command
from vocable import audio
from vocable.cli import batch
from vocable.codec.tokens import Encoded
from vocable.corpus.manifest import read_manifest
from vocable.corpus.prepare import measured, recordings

SAMPLES, RATE = audio.read(SPEECH)
links = pytest.mark.skipif(sys.platform == "win32", reason="links and named pipes need POSIX")


def clip(path: Path, samples: np.ndarray = SAMPLES[:3200]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, format="OGG" if path.suffix == ".oga" else None)
    return path


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tiny_folder: Path):
    """A command with the tiny codec: its exit code and what it says."""

    def call(command: str, *arguments: object, model: bool = True) -> tuple[int, str]:
        code = run_command(command, *arguments, *(("-m", tiny_folder) if model else ()))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.err

    return call


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_files_that_differ_in_their_suffix_alone(run, tmp_path: Path) -> None:
    for name in ("a/take 0.wav", "a/take 0.flac", "a/take 1.wav", "b/Take 0.wav", "b/take 0.ogg"):
        clip(tmp_path / "in" / name)
    code, err = run("encode", tmp_path / "in", "-o", tmp_path / "out", "--format", "npz")
    assert code == 0 and "encoded 5 of 5" in err
    expected = ["a/take 0.flac.npz", "a/take 0.wav.npz", "a/take 1.npz", "b/Take 0.wav.npz", "b/take 0.ogg.npz"]
    assert below(tmp_path / "out") == expected


def test_names_differ_where_upper_and_lower_case_are_one() -> None:
    names = batch._names({Path(n): Path(n) for n in ("A.wav", "a.wav", "b.wav", "b.flac", "b.wav.ogg")}, ".npz")
    assert len({str(name).casefold() for name in names.values()}) == 5
    with pytest.raises(ValueError, match="would both become"):
        batch._names({Path("anna/x.wav"): Path("x.wav"), Path("bo/x.wav"): Path("x.wav")}, ".npz")


@links
def test_links_hidden_files_and_other_files(run, tmp_path: Path) -> None:
    root = tmp_path / "in"
    clip(root / "a.wav")
    clip(tmp_path / "elsewhere" / "carl" / "b.w64")
    (root / "carl").symlink_to(tmp_path / "elsewhere" / "carl")
    (root / "carl" / "up").symlink_to(root)
    for name in ("._a.wav", ".b.0123.tmp.wav"):
        (root / name).write_bytes(b"no audio")
    (root / "notes.txt").write_text("of the recordings")
    (root / "LICENSE").touch()
    code, err = run("encode", root, "-o", tmp_path / "out", "--format", "npz")
    assert code == 0 and "encoded 2 of 2 files" in err and "ignored: 1 without suffix, 1 .txt" in err
    assert below(tmp_path / "out") == ["a.npz", "carl/b.npz"]
    (root / "gone.wav").symlink_to("nowhere.wav")
    (root / "talk.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    for command in ("encode", "reconstruct"):
        code, err = run(command, root, "-o", tmp_path / command)
        assert code == 2 and "d 2 of 4 files" in err, "what is lost is named, and in the exit code"
        assert "gone.wav: no such file" in err and "ffmpeg -i talk.m4a talk.flac" in err


def test_globs_of_folders(run, tmp_path: Path) -> None:
    clip(tmp_path / "in" / "anna" / "x.wav")
    clip(tmp_path / "in" / "bo" / "deep" / "y.wav")
    for pattern in ("in/*", "in/**/*"):
        code, err = run("encode", tmp_path / pattern, "-o", tmp_path / "out", "--format", "npz")
        assert code == 0 and "2 of 2" in err


@links
def test_prepare_counts_what_it_leaves_out(run, tmp_path: Path) -> None:
    root = tmp_path / "in"
    clip(root / "anna" / "x.wav", SAMPLES)
    clip(tmp_path / "elsewhere" / "y.oga", SAMPLES)
    (root / "bo").symlink_to(tmp_path / "elsewhere")
    (root / "bo" / "y.txt").write_text("a text, not ignored")
    (root / "anna" / "x.TextGrid").touch()
    manifest = tmp_path / "m.jsonl"
    code, err = run("prepare", "folder", root, "-o", manifest, model=False)
    assert code == 0 and "2 utterances" in err and "ignored: 1 .textgrid" in err
    assert {u.speaker: u.text for u in read_manifest(manifest)} == {"anna": None, "bo": "a text, not ignored"}
    (root / "anna" / "talk.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    code, err = run("prepare", "folder", root, "-o", manifest, model=False)
    assert code == 2 and "talk.m4a: not readable as audio" in err and "2 utterances" in err
    assert len(measured(recordings("folder", root))[1]) == 1, "which is what tokenize goes by"


def test_warnings_are_counted(run, tmp_path: Path) -> None:
    for i in range(5):
        clip(tmp_path / "in" / f"{i}.wav", np.stack([SAMPLES[:3200]] * 2, 1))
    code, err = run("encode", tmp_path / "in", "-o", tmp_path / "out")
    lines = [line for line in err.splitlines() if "averaged" in line]
    first = tmp_path / "in" / "0.wav"
    assert code == 0 and lines == [f"vocable: warning: 5 files, the first {first}: 2 channels averaged to mono"]


# ---- what does not go well -------------------------------------------------------------------------------------------


def test_recordings_that_do_not_fit_are_left_out(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "in" / "a.wav", SAMPLES[:1600])
    clip(tmp_path / "in" / "b.wav", SAMPLES[:3200])
    reads = soundfile.SoundFile.read

    def read(file: soundfile.SoundFile, *arguments: object, **options: object) -> np.ndarray:
        if file.frames == 1600:
            raise MemoryError
        return reads(file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    for command in ("encode", "reconstruct"):
        code, err = run(command, tmp_path / "in", "-o", tmp_path / command)
        assert code == 2 and "a.wav: " in err and "memory" in err and "d 1 of 2 files" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_output_that_cannot_be_written_to_ends_the_run(number: int, tmp_path: Path, capsys) -> None:
    tried = []

    def work(source: Path, target: Path) -> float:
        tried.append(source)
        raise OSError(number, os.strerror(number), str(target))

    pairs = {tmp_path / f"{i}.wav": tmp_path / "out" / f"{i}.npz" for i in range(99)}
    with pytest.raises(batch.typer.Exit):
        batch.run(batch.FilePairs(pairs, ".npz"), work, "encoded")
    err = capsys.readouterr().err
    assert len(tried) == 1 and "98 more files were not tried" in err and "encoded 0 of 99 files" in err


def test_a_source_that_may_not_be_read_does_not_end_the_run(tmp_path: Path, capsys) -> None:
    def work(source: Path, target: Path) -> float:
        raise PermissionError(errno.EACCES, "Permission denied", str(source))

    pairs = {tmp_path / f"{i}.wav": tmp_path / "out" / f"{i}.npz" for i in range(3)}
    with pytest.raises(batch.typer.Exit):
        batch.run(batch.FilePairs(pairs, ".npz"), work, "encoded")
    assert capsys.readouterr().err.count("Permission denied") == 3


@links
def test_names_do_not_command_the_terminal(run, tmp_path: Path) -> None:
    for name in ("x\x1b]0;owned\x07.wav", "x\x9b2J.wav", os.fsdecode(b"x\xe9.wav")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"no audio")
    code, err = run("encode", tmp_path / "in", "-o", tmp_path / "out")
    assert code == 2 and "encoded 0 of 3" in err
    assert r"\x1b]0;owned\x07.wav" in err and r"\x9b2J" in err and r"\udce9" in err
    code, err = run("prepare", "folder", tmp_path / "in", "-o", tmp_path / "m.jsonl", model=False)
    assert code == 2 and all(line.isprintable() for line in err.splitlines())


@links
def test_names_that_are_not_unicode(run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (clip(tmp_path / "x.wav")).rename(tmp_path / "in" / os.fsdecode(b"caf\xe9.wav"))
    assert run("encode", tmp_path / "in", "-o", tmp_path / "tokens", "--format", "npz")[0] == 0
    assert run("decode", tmp_path / "tokens", "-o", tmp_path / "wavs")[0] == 0
    assert [os.fsencode(path.name) for path in (tmp_path / "wavs").iterdir()] == [b"caf\xe9.wav"]


def test_a_traceback_for_who_asks(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "x.wav").write_bytes(b"no audio")
    calls = ("encode", tmp_path / "x.wav", "-o", tmp_path / "out"), ("decode", "absent.npz", "-o", "out.txt")
    for call in calls:
        assert run(*call)[0] == 2
    monkeypatch.setenv("VOCABLE_TRACEBACK", "1")
    for call in calls:
        assert run_command(*call) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err and "vocable: " in err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you ...")])
def test_no_memory_is_one_line(run, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("vocable.codec.model.SpeechTokenizer.from_pretrained", fill)
    code, err = run("encode", SPEECH, "-o", "tokens.npz")
    assert code == 2 and "out of memory" in err and len(err.splitlines()) == 1


STOPPED = """
import contextlib, os, signal, sys, time
from vocable.cli import main
@main.app.command()
def wait():
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        print("cleaned", flush=True)
        if sys.argv[-1] == "hang":
            main._Stop._PATIENCE = 0
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
main.main(["wait"])
"""


@links
@pytest.mark.parametrize("how", ["clean", "hang"])
def test_impatient_interrupts(how: str) -> None:
    command = [sys.executable, "-c", STOPPED, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "cleaned\n" and err == "vocable: interrupted\n"
    assert time.monotonic() - begun < 10


# ---- pipes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def piped(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary):
    """A command with `data` on standard input: its exit code, standard output and error."""

    def call(data: bytes, *arguments: object, model: bool = True) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        code = run_command(*arguments, *(("-m", tiny_folder) if model else ()))
        captured = capsysbinary.readouterr()
        return code, captured.out, captured.err.decode()

    return call


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "jsonl"])
def test_speech_and_tokens_through_pipes(suffix: str, piped, tmp_path: Path) -> None:
    speech = SPEECH.read_bytes()
    code, tokens, err = piped(speech, "encode", "-", "-o", "-", "--format", suffix)
    assert code == 0 and "encoded 1 of 1" in err
    assert piped(b"", "encode", SPEECH, "-o", tmp_path / f"tokens.{suffix}")[0] == 0
    (tmp_path / f"piped.{suffix}").write_bytes(tokens)
    expected, made = (Encoded.load(tmp_path / f"{name}.{suffix}") for name in ("tokens", "piped"))
    assert made.codes.equal(expected.codes)
    code, wav, _ = piped(tokens, "decode", "/dev/stdin", "-o", "/dev/stdout")
    assert code == 0 and wav[:4] == b"RIFF"
    assert piped(speech, "reconstruct", "-", "-o", "-")[1] == wav
    assert piped(speech, "encode", "-", "-o", tmp_path / "folder")[0] == 0
    assert below(tmp_path / "folder") == ["stdin.safetensors"]
    assert not Path("-").exists()


@links
def test_named_pipes(piped, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    os.mkfifo(tmp_path / "out")
    with ThreadPoolExecutor() as pool:
        pool.submit((tmp_path / "in").write_bytes, SPEECH.read_bytes())
        made = pool.submit((tmp_path / "out").read_bytes)
        code, _, err = piped(b"", "encode", tmp_path / "in", "-o", tmp_path / "out")
        assert code == 0, err
        assert b'"vocable"' in made.result()
    assert piped(b"", "encode", SPEECH, "-o", os.devnull)[0] == 0


def test_pipes_that_do_not_go(piped, tmp_path: Path) -> None:
    code, out, err = piped(b"no audio", "encode", "-", "-o", "-")
    assert code == 2 and out == b"" and "vocable: -: not readable as audio" in err
    code, _, err = piped(b"", "encode", SPEECH, clip(tmp_path / "x.wav"), "-o", "-")
    assert code == 2 and "for more it is a folder" in err


def test_tts_and_convert_through_pipes(piped, uslm_folders: tuple[Path, Path], tmp_path: Path) -> None:
    lm, codec = uslm_folders
    models = ("--models", lm, "-m", codec)
    speak = ("tts", "--takes", "1", *models)
    voice, text = tmp_path / "voice.npz", "\ufeffhe said.".encode()
    prompt = ("--prompt", SPEECH, "--save-voice", voice)
    code, wav, err = piped(text, *speak, "--file", "-", *prompt, "-o", "-", model=False)
    assert code == 0 and wav[:4] == b"RIFF", err
    code, again, _ = piped(SPEECH.read_bytes(), *speak, "he said.", "--prompt", "-", "-o", "-", model=False)
    assert code == 0 and again == wav
    code, _, _ = piped(voice.read_bytes(), *speak, "he said.", "--voice", "-", "-o", tmp_path / "x.mp3", model=False)
    assert code == 0 and soundfile.info(tmp_path / "x.mp3").format == "MP3"
    code, wav, err = piped(SPEECH.read_bytes(), "convert", "-", SPEECH, *models, "-o", "-", model=False)
    assert code == 0 and wav[:4] == b"RIFF", err
    assert piped(SPEECH.read_bytes(), "convert", SPEECH, "-", *models, "-o", "-", model=False)[1] == wav
    (tmp_path / "text.txt").write_text("he said", encoding="utf-16")
    out = tmp_path / "x.wav"
    code, _, err = piped(b"", *speak, "--file", tmp_path / "text.txt", "-o", out, model=False)
    assert code == 2 and "text.txt: not UTF-8" in err
    for seed in (-1, 2**64):
        code, _, err = piped(b"", *speak, "he said.", "--seed", seed, "-o", out, model=False)
        assert code == 2 and "seed" in err and not out.exists()
