"""Short clips of real speech, and small tests made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import SPEECH
from vocable import audio
from vocable.corpus.manifest import Utterance, write_manifest
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.listening.study import make

CLIPS, SECONDS = 9, 2.0


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of clips that overlap."""
    folder = tmp_path_factory.mktemp("clips")
    speech, rate = audio.read(SPEECH, 16000)
    clips = []
    for i in range(CLIPS):
        start = round(i * 0.8 * rate)
        name = folder / f"clip{i}.wav"
        audio.write(name, speech[start : start + round(SECONDS * rate)], rate)
        clips.append(Utterance(f"clip{i}", name, SECONDS, speaker=f"s{i % 3}", text="Some words.", language="en"))
    write_manifest(folder / "clips.jsonl", clips)
    return folder / "clips.jsonl"


@pytest.fixture(scope="session")
def mushra(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mushra") / "test"
    make(plan_of(manifest, kind="mushra", systems=("fast@:8", "fast@:1"), clips=8, listeners=5, seed=1), folder)
    return folder


@pytest.fixture(scope="session")
def mos(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mos") / "test"
    systems = ("recording", "fast@:8", "fast@:1")
    make(plan_of(manifest, kind="mos", systems=systems, clips=6, listeners=9, checks=2), folder)
    return folder


def plan_of(manifest: Path, **fields: Any) -> Plan:
    return Plan(**{"manifest": str(manifest), "shortest": 1.0} | fields)
