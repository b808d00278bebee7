"""Suite slmtokbench: windows, splits, information, claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.test_suites import write_corpus
from vocable import audio
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.evaluation import alignment, slmtokbench, windows
from vocable.evaluation.metrics.words import TimedWord
from vocable.evaluation.phones import Phones
from vocable.evaluation.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 9, {5})


def clip(name: str, speaker: str, text: str = "one two") -> Utterance:
    return Utterance(name, Path(name), 4.0, speaker, text, None, "en")


def test_windows_contain_only_recognised_words_of_the_text() -> None:
    words = ["the", "cat", "hat", "on", "a", "warm", "mat", "sleeps"]
    heard = [TimedWord(word, i * 0.5, i * 0.5 + 0.4) for i, word in enumerate(words)]
    said = clip("a", "s", "the cat sat on a warm mat sleeps")
    # "sat" was misheard: only from "on" on is there a window's length of known words.
    assert windows.cut_windows(said, heard, 4.0) == [windows.Window("a", 1.5, "on a warm mat")]
    assert windows.cut_windows(said, heard, 3.0) == []
    # Whisper did not hear "sat": what it heard fits the text word by word, and yet the window holds a word more.
    missed = [w for w in heard if w.text != "hat"]
    assert windows.cut_windows(said, missed, 4.0) == [windows.Window("a", 1.5, "on a warm mat")]
    # The word that the window cuts off is another.
    cut = [*heard[:7], TimedWord("snores", 3.4, 3.9)]
    assert windows.cut_windows(said, cut, 4.0) == []


def test_splits_have_no_common_speaker() -> None:
    train = [clip(f"{s}{i}", s) for s in "abcd" for i in range(3)] + [clip("mute", "a", "")]
    split = alignment.ClipSplit.split(train, [clip("t", "t")], seed=0)
    held = {u.speaker for u in split.valid}
    assert len(held) == 1 and held.isdisjoint({u.speaker for u in split.train})
    assert len(split.train) + len(split.valid) == 12
    with pytest.raises(ValueError, match="are in both"):
        alignment.ClipSplit.split(train, [clip("t", "b")], seed=0)
    with pytest.raises(ValueError, match="one speaker"):
        alignment.ClipSplit.split([clip("x", "x")], [clip("t", "t")], seed=0)
    with pytest.raises(ValueError, match="'a0' is in both"):
        alignment.ClipSplit.split(train, [clip("a0", "t")], seed=0)
    with pytest.raises(ValueError, match="no letters but"):
        alignment.ClipSplit.split(train, [clip("t", "t", "это не латиница, ok")], seed=0)


def test_windows_are_of_all_speakers() -> None:
    by_clip = [[windows.Window(f"{i}", float(k), "a") for k in range(2)] for i in range(4)]
    chosen = windows.choose_windows(by_clip, count=6)
    assert [(w.clip, w.start) for w in chosen] == [*((str(i), 0.0) for i in range(4)), ("0", 1.0), ("2", 1.0)]


def test_information_of_labels_that_follow_from_codes_and_of_random_ones(corpus: Path) -> None:
    """Measure one tokenizer with labels that are a function of its codes, and with random labels."""
    clips = [u for u in read_manifest(corpus / "clips.jsonl") if u.id != "clip-5"]
    name = f"{corpus}/tiny@:1"
    tok = load_tokenizer(name)
    rng = np.random.default_rng(0)
    told, noise, codes = {}, {}, {}
    for u in clips:
        found = tok.encode(audio.read(u.path, 16_000)[0]).codes
        assert found is not None
        codes[u.id] = found.numpy()
        seconds = (np.arange(found.shape[1]) + 0.5) / 50
        told[u.id] = Phones(seconds, found[0].numpy() % 3)
        noise[u.id] = Phones(seconds, rng.integers(3, size=found.shape[1]))
    speech = alignment.ClipSplit(clips[:5], clips[5:6], clips[6:])
    cut = [windows.Window(u.id, 0.0, "clip") for u in speech.test]
    rows = {}
    for kind, phones in (("told", told), ("noise", noise)):
        task = alignment.MeasureAlignment(
            speech, {f"{corpus}/tiny": codes}, phones, 3, cut, alignment.Budget(0.2, 8, 1), 0
        )
        rows[kind], *of_clips = task.start()(alignment.Candidate(name, tok.made_by))
        assert [row["clip"] for row in of_clips] == [u.id for u in speech.test]
        for figure in ("info_nce", "bits"):  # the clips' own make the whole's, of the test clips at least
            assert all(len(row[figure]) == 2 and row[figure][1] > 0 for row in of_clips)
    assert rows["told"]["phone_purity"] == 1.0 and rows["told"]["pnmi"] == pytest.approx(1.0)
    assert rows["noise"]["bits"]["value"] < 0.3 < rows["told"]["bits"]["value"]
    assert rows["told"]["info_nce"]["value"] > rows["noise"]["info_nce"]["value"]
    assert rows["told"]["train_without_path"] == 0
    assert rows["told"]["vclub"]["windows_left_out"] == len(cut)  # half a second is no window


def test_the_claims_of_slmtokbench() -> None:
    """Claims compare RVQ-1 with the twin's, and all layers with every other system."""
    systems = ["codec@:1", "twin@:1", "codec@:8", "opus:6"]
    told = {"codec@:1": 2.0, "twin@:1": 1.0}
    names = [f"s{i}" for i in range(8)]
    aligned = [
        {"clip": s, "speaker_id": s, "system": name}
        | {figure: [value, 1.0] for figure in slmtokbench.INFORMATION}
        | {"probe_wer": [1.0 / value, 1.0], "probe_cer": [1.0 / value, 1.0]}
        for name, value in told.items()
        for s in names
    ]
    alike = {"codec@:1": 0.8, "twin@:1": 0.9, "codec@:8": 0.95, "opus:6": 0.96}
    preserved = [
        {"clip": s, "speaker_id": s, "system": name, "speaker": [value, 1.0]}
        for name, value in alike.items()
        for s in names
    ]
    lines = slmtokbench.orders(aligned, preserved, systems, "twin", similarity="speaker", seed=0)
    assert sum("RVQ-1" in line and "holds here" in line for line in lines) == len(slmtokbench.INFORMATION) + 2
    rest = [line for line in lines if "RVQ-1" not in line]
    assert len(rest) == 2 and "codec@:8 above codec@:1's: holds here" in rest[0]
    assert "codec@:8 above opus:6's: does not hold here" in rest[1]
