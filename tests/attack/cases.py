"""Damaged files of every kind that vocable reads, and what is done with each, in a process of its own.

A case is a kind and a number. All that is random in it follows from these two, so that a case that breaks something can
be run again alone:  python tests/attack/cases.py KIND NUMBER
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import SPEECH, make_tiny, make_tiny_uslm, run_command
from vocable import SpeechTokenizer, audio
from vocable.codec.tokens import Encoded
from vocable.corpus.dataset import TokenDataset
from vocable.corpus.manifest import read_manifest
from vocable.lm.model import save_models

STARTED = 0.15  #: share of cases that start a process of their own, which takes seconds
MEMORY = 2 << 30  #: bytes that a case may take
SPOKEN = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III", "aiff": "PCM_24", "au": "FLOAT"}
TOKENS = ("safetensors", "npz", "jsonl")
NUMBERS = (-1, 0, 1, 3, 255, 65_536, 2**31 - 1, 2**40, 1e9, 1e300, -0.5, float("nan"), float("inf"))
OTHERS: tuple[Any, ...] = (None, True, "", "x" * 300, "../../up", "\x1b]0;owned\x07", [], {}, [[1]], {"a": None})


@dataclass
class House:
    """Good files of every kind, in a folder."""

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> House:
        speech = audio.read(SPEECH, 16_000)[0][:24_000]
        for suffix, subtype in SPOKEN.items():
            soundfile.write(folder / f"speech.{suffix}", speech, 16_000, subtype)
        soundfile.write(folder / "opus.ogg", speech, 16_000, "OPUS", format="OGG")
        uslm = make_tiny_uslm()
        uslm.codec.save_pretrained(folder / "codec")
        save_models(uslm.models, folder / "lm")
        encoded = uslm.codec.encode(speech)
        for suffix in TOKENS:
            encoded.save(folder / f"tokens.{suffix}")
        rows = [
            {"id": str(i), "path": "speech.wav", "duration": 1.5, "speaker": f"s{i}", "text": "ab"} for i in range(3)
        ]
        (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        done = run_command("tokenize", folder / "manifest.jsonl", "-o", folder / "corpus", "-m", folder / "codec")
        assert done == 0
        return cls(folder)


# ---- mutations -------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with one to four kinds of damage."""
    for _ in range(rng.integers(1, 5)):
        data = BYTE_DAMAGE[rng.integers(len(BYTE_DAMAGE))](data, rng)
    return data


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    values = bytearray(data)
    for place in rng.integers(0, max(1, len(data)), rng.integers(1, 20)):
        if place < len(values):
            values[place] ^= 1 << int(rng.integers(8))
    return bytes(values)


def _head(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number in the header."""
    place = int(rng.integers(0, 64))
    number = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\x7f"][rng.integers(5)]
    return data[:place] + number + data[place + 4 :]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data) + 1))]


def _splice(data: bytes, rng: np.random.Generator) -> bytes:
    first, second = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:first] + data[second:]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    first, second = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:second] + data[first:]


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    place, size = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 200))
    return data[:place] + bytes(size) + data[place + size :]


BYTE_DAMAGE = (_flip, _head, _cut, _splice, _repeat, _zeros)


def damaged_json(text: str, rng: np.random.Generator) -> str:
    """JSON with another value, key or depth in some place; one in eight is damaged as bytes instead."""
    if rng.random() < 0.125:
        return damaged(text.encode(), rng).decode("utf-8", "replace")
    value = json.loads(text)
    for _ in range(rng.integers(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        choice = rng.integers(5)
        if choice < 2:
            holder[key] = NUMBERS[rng.integers(len(NUMBERS))]
        elif choice == 2:
            holder[key] = OTHERS[rng.integers(len(OTHERS))]
        elif choice == 3 and isinstance(holder, dict):
            del holder[key]
        else:
            other_holder, other = places[rng.integers(len(places))]
            holder[key] = json.loads(json.dumps(other_holder[other]))
    written = json.dumps(value)
    return "[" * 100_000 + written if rng.random() < 0.03 else written


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        found += _places(inner)
    return found


# ---- what is done with a damaged file --------------------------------------------------------------------------------


def command(*arguments: object) -> str:
    """What is wrong with how a command went, or nothing."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = run_command(*arguments)
    if code not in (0, 2):
        return f"exit code {code}"
    if code and not errors.getvalue().strip():
        return "nothing is said"
    return "a control character reaches the terminal" if "\x1b" in errors.getvalue() else ""


def call(work: Callable[[], Any]) -> str:
    """ValueError and OSError are how the API refuses."""
    with contextlib.suppress(ValueError, OSError):
        work()
    return ""


def on_audio(house: House, rng: np.random.Generator, out: Path) -> list[Callable[[], str]]:
    names = [f"speech.{suffix}" for suffix in SPOKEN] + ["opus.ogg"]
    name = names[rng.integers(len(names))]
    folder = out / "in"
    folder.mkdir()
    path = folder / name
    path.write_bytes(damaged((house.folder / name).read_bytes(), rng))
    codec = house.folder / "codec"
    shutil.copy(house.folder / "speech.wav", folder / "good.wav")
    choice = [
        lambda: command("encode", path, "-o", out / "o.safetensors", "-m", codec),
        lambda: command("reconstruct", path, "-o", out / "o.wav", "-m", codec),
        lambda: command("encode", folder, "-o", out / "o", "-m", codec),
    ]
    tokenize = lambda: command("tokenize", folder, "-o", out / "o", "-m", codec)  # noqa: E731
    done = tokenize if rng.random() < STARTED else choice[rng.integers(len(choice))]
    return [lambda: call(lambda: audio.read(path)), done]


def on_tokens(house: House, rng: np.random.Generator, out: Path) -> list[Callable[[], str]]:
    path = out / f"tokens.{TOKENS[rng.integers(len(TOKENS))]}"
    data = (house.folder / path.name).read_bytes()
    if path.suffix == ".jsonl" and rng.random() < 0.8:
        lines = data.decode().splitlines()
        which = int(rng.integers(len(lines)))
        lines[which] = damaged_json(lines[which], rng)
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".safetensors" and rng.random() < 0.6:
        size = int.from_bytes(data[:8], "little")
        head = damaged_json(data[8 : 8 + size].decode(), rng).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
    else:
        path.write_bytes(damaged(data, rng))
    codec = house.folder / "codec"
    return [
        lambda: call(lambda: Encoded.load(path)),
        lambda: command("decode", path, "-o", out / "o.wav", "-m", codec),
    ]


def on_voice(house: House, rng: np.random.Generator, out: Path) -> list[Callable[[], str]]:
    name = f"voice.{TOKENS[rng.integers(2)]}"
    path, suffix = out / name, Path(name).suffix
    codec, models = house.folder / "codec", house.folder / "lm"
    if rng.random() < 0.5:  # a whole file whose codes are not what they should be
        encoded = Encoded.load(house.folder / f"tokens{suffix}")
        encoded.codes[...] = int(NUMBERS[rng.integers(5)])
        with contextlib.suppress(ValueError, OSError):
            encoded.save(path)
    else:
        path.write_bytes(damaged((house.folder / f"tokens{suffix}").read_bytes(), rng))
    how = ("--models", models, "-m", codec, "--takes", 1)
    return [lambda: command("tts", "ab.", "-o", out / "o.wav", "--voice", path, *how)]


def on_config(house: House, rng: np.random.Generator, out: Path) -> list[Callable[[], str]]:
    kind = ("codec", "lm")[rng.integers(2)]
    folder = out / kind
    shutil.copytree(house.folder / kind, folder)
    config = folder / "config.json"
    if rng.random() < 0.8:
        config.write_text(damaged_json(config.read_text(), rng))
    else:
        weights = sorted(folder.glob("*.safetensors"))
        chosen = weights[rng.integers(len(weights))]
        chosen.write_bytes(damaged(chosen.read_bytes(), rng))
    if kind == "codec":
        wave = house.folder / "speech.wav"
        return [
            lambda: call(lambda: SpeechTokenizer.from_pretrained(folder)),
            lambda: command("info", folder),
            lambda: command("encode", wave, "-o", out / "o.safetensors", "-m", folder),
        ]
    how = ("--models", folder, "-m", house.folder / "codec", "--takes", 1)
    return [lambda: command("tts", "ab.", "-o", out / "o.wav", *how)]


def on_shards(house: House, rng: np.random.Generator, out: Path) -> list[Callable[[], str]]:
    corpus = out / "corpus"
    shutil.copytree(house.folder / "corpus", corpus)
    files = sorted(path for path in corpus.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_text(damaged_json(path.read_text(), rng))
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    codec, manifest = house.folder / "codec", house.folder / "manifest.jsonl"
    resume = [lambda: command("tokenize", manifest, "-o", corpus, "-m", codec)] if rng.random() < STARTED else []
    return [lambda: call(lambda: list(TokenDataset(corpus))), lambda: command("tokenize", "verify", corpus), *resume]


def on_manifest(house: House, rng: np.random.Generator, out: Path) -> list[Callable[[], str]]:
    lines = (house.folder / "manifest.jsonl").read_text().splitlines()
    which = int(rng.integers(len(lines)))
    lines[which] = damaged_json(lines[which], rng)
    path = out / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")
    codec, root = house.folder / "codec", ("--root", house.folder)
    tokenize = (
        [lambda: command("tokenize", path, "-o", out / "o", *root, "-m", codec)] if rng.random() < STARTED else []
    )
    return [lambda: call(lambda: read_manifest(path)), *tokenize]


KINDS: dict[str, Callable[[House, np.random.Generator, Path], list[Callable[[], str]]]] = {
    "audio": on_audio,
    "tokens": on_tokens,
    "voice": on_voice,
    "config": on_config,
    "shards": on_shards,
    "manifest": on_manifest,
}


def run_case(house: House, kind: str, number: int) -> str:
    """What a case broke, or nothing."""
    rng = np.random.default_rng([number, list(KINDS).index(kind)])
    with tempfile.TemporaryDirectory(dir=house.folder.parent) as scratch:
        out = Path(scratch)
        try:
            for action in KINDS[kind](house, rng, out):
                if broken := action():
                    return broken
        except BaseException:
            return traceback.format_exc(limit=-3)
        left = [path.name for path in out.rglob("*") if ".tmp" in path.name]
        return f"left behind: {', '.join(left)}" if left else ""


def work(connection: Any, folder: str) -> None:
    """Run the cases that come, in a process that may not take more memory than it should."""
    os.setsid()  # so that it can be ended with the processes that it starts
    with open("/dev/null", "w") as nowhere, contextlib.redirect_stderr(nowhere):
        house = House(Path(folder))
        make_tiny()  # what a first use of torch costs is no case's
        resource.setrlimit(resource.RLIMIT_DATA, (2 * MEMORY, 2 * MEMORY))
        while case := connection.recv():
            broken = run_case(house, *case)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            connection.send(broken or (f"took {peak >> 20} MiB" if peak > MEMORY else ""))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        print(run_case(House.build(good), sys.argv[1], int(sys.argv[2])) or "nothing broke")
