"""Reduced recurrences and compiled models: which codes stay, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SPEECH, make_tiny_paper
from vocable import SpeechTokenizer, audio
from vocable.codec.layers import LSTM


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return audio.read(SPEECH, 16_000)[0][:64_000]


def test_most_codes_stay(fast: SpeechTokenizer, speech: np.ndarray) -> None:
    reduced = SpeechTokenizer.from_pretrained(recurrence="bfloat16")
    assert reduced.id == fast.id, "a way to run it, not another codec"
    whole, mine = fast.encode(speech), reduced.encode(speech)
    same = (whole.codes == mine.codes)[0].float()
    assert same[0].mean() >= 0.99 and 0.98 <= same.mean() < 1, "and some do not"
    decoded = reduced.decode(whole).waveform
    assert (decoded - fast.decode(whole).waveform).abs().max() < 0.1 * decoded.abs().max()


def test_bfloat16_in_batches_and_chunks(speech: np.ndarray) -> None:
    codec = SpeechTokenizer.from_pretrained(recurrence="bfloat16")
    alone = codec.encode(speech).codes
    # Equal on a CPU with bfloat16 products. One without them adds up a batch in another order than a single clip, and
    # sums that are rounded to bfloat16 carry the difference on from frame to frame: 0.993 is what one such CPU gives.
    assert (codec.encode([speech, speech[:20_000]]).codes[0] == alone[0]).float().mean() >= 0.98
    chunked = codec.encode_long(speech, chunk_frames=40).codes  # states are rounded from chunk to chunk
    assert (chunked == alone).float().mean() > 0.99


def test_the_papers_model(tmp_path: Path) -> None:
    codec = make_tiny_paper()
    codec.save_pretrained(tmp_path)
    reduced = SpeechTokenizer.from_pretrained(tmp_path, recurrence="bfloat16")
    layers = [m for m in reduced.modules() if isinstance(m, LSTM)]
    assert len(layers) == 6 and all(p.dtype == torch.bfloat16 for m in layers for p in m.parameters())
    waveform = 0.2 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    latents, theirs = reduced.latents(waveform), codec.latents(waveform)
    assert (latents - theirs).abs().max() < 0.05 * theirs.abs().max()
    assert reduced.reconstruct(waveform).waveform.shape == (2, 8000)


def test_what_a_reduced_codec_refuses(tiny_folder: Path, tmp_path: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(tiny_folder, recurrence="bfloat16")
    with pytest.raises(ValueError, match="rounded to bfloat16: load them in float32 to save it"):
        codec.save_pretrained(tmp_path)
    for other in ("int8", "int4"):
        with pytest.raises(ValueError, match=f"recurrence is float32, bfloat16, not '{other}'"):
            SpeechTokenizer.from_pretrained(tiny_folder, recurrence=other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="float32 models on the CPU"):
        SpeechTokenizer.from_pretrained(tiny_folder, dtype=torch.bfloat16, recurrence="bfloat16")


def test_a_reduced_codec_stays_as_it_is_in_a_module_that_trains(tiny_folder: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(tiny_folder, recurrence="bfloat16")
    clip = 0.1 * torch.randn(4_000, generator=torch.Generator().manual_seed(0))
    before, ids = codec.encode(clip), (codec.id, codec.token_id)
    parent = torch.nn.Sequential(codec, torch.nn.Linear(2, 2)).train()
    assert parent[1].training and not codec.training and (codec.id, codec.token_id) == ids
    assert torch.equal(codec.encode(clip).codes, before.codes)


@pytest.mark.slow
def test_compiling_changes_no_code(fast: SpeechTokenizer, speech: np.ndarray) -> None:
    compiled = SpeechTokenizer.from_pretrained(compile=True)
    for clips in ([speech], [speech, speech[:20_000], speech[:999]]):
        whole, mine = fast.encode(clips), compiled.encode(clips)
        assert (whole.codes != mine.codes).float().mean() <= 1e-3
        torch.testing.assert_close(compiled.decode(whole).waveform, fast.decode(whole).waveform, atol=1e-4, rtol=0)


def test_a_copy_of_a_compiled_codec_runs_its_own_weights(tiny: SpeechTokenizer) -> None:
    codec = copy.deepcopy(tiny)
    before = codec.encoder.before
    codec.encoder.before = lambda x, lengths=None: before(x, lengths)  # as torch.compile leaves it
    clip = 0.1 * torch.randn(4_000, generator=torch.Generator().manual_seed(0))
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec))):
        assert torch.equal(other.latents(clip), tiny.latents(clip))
        torch.nn.init.zeros_(other.encoder.embed.weight)
        assert not torch.equal(other.latents(clip), tiny.latents(clip))
