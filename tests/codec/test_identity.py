"""Ids name the weights that are there: they change when those do, and stay when nothing but the surroundings does."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import make_tiny, make_tiny_paper
from vocable.codec import checkpoint
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import TokensError


def ids(codec: SpeechTokenizer) -> tuple[str, str]:
    return codec.id, codec.token_id


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is hashed from here on."""
    hashed: list[str] = []
    for name in ("codec_id", "token_id"):
        compute = getattr(checkpoint, name)
        monkeypatch.setattr(checkpoint, name, lambda *a, n=name, f=compute: hashed.append(n) or f(*a))
    return hashed


def one_value(weight: torch.Tensor) -> None:
    weight[0] += 1


WRITES = {
    "in place": lambda w: w.add_(1),
    "one value": one_value,
    "data in place": lambda w: w.data.mul_(1.5),
    "data copied": lambda w: w.data.copy_(torch.randn_like(w)),
}


@pytest.mark.parametrize("how", WRITES)
@torch.no_grad()
def test_ids_change_with_the_weights_in_eval_mode(how: str, tiny_folder: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(tiny_folder)
    for weight, tokens_too in (
        (codec.quantizer.codebooks, True),
        (codec.encoder.project.weight, True),
        (codec.decoder.embed.weight, False),
        (codec.transform.bias, False),
    ):
        before = ids(codec)
        WRITES[how](weight)
        assert codec.id != before[0] and (codec.token_id != before[1]) == tokens_too
        codec.save_pretrained(tiny_folder.parent / "written")
        assert ids(SpeechTokenizer.from_pretrained(tiny_folder.parent / "written")) == ids(codec)


def test_a_frozen_codec_in_a_users_module_keeps_its_ids(tiny_folder: Path, hashing: list[str]) -> None:
    for options in ({}, {"parts": "encoder"}, {"parts": "decoder"}, {"recurrence": "bfloat16"}):
        codec = SpeechTokenizer.from_pretrained(tiny_folder, **options).requires_grad_(False)
        before = ids(codec)
        hashing.clear()
        parent = nn.Sequential(codec, nn.Linear(3, 3))
        for change in (parent.train, parent.eval, parent.bfloat16, parent.float, parent.cpu):
            change()
            assert ids(codec) == before
        for other in (copy.deepcopy(parent)[0], pickle.loads(pickle.dumps(codec))):
            assert ids(other) == before and other is not codec
        parent.load_state_dict(copy.deepcopy(parent.state_dict()))  # a user's checkpoint
        assert ids(codec) == before and not hashing


def test_a_folded_codec_keeps_its_ids(tmp_path: Path, hashing: list[str]) -> None:
    make_tiny_paper().save_pretrained(tmp_path)
    codec = SpeechTokenizer.from_pretrained(tmp_path)
    assert ids(codec) == ids(make_tiny_paper())
    before = ids(codec)
    hashing.clear()
    parent = nn.Sequential(codec).train()
    parent.load_state_dict(copy.deepcopy(parent.state_dict()))
    assert ids(codec) == ids(copy.deepcopy(codec)) == before and not hashing
    parent.load_state_dict({key: value + 1 for key, value in parent.state_dict().items()})
    assert codec.id != before[0] and codec.token_id != before[1]


def test_ids_are_hashed_once(hashing: list[str]) -> None:
    codec = make_tiny()
    clip = 0.1 * torch.randn(2_000, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        codec.train().decode(codec.encode(clip))
    assert hashing == ["token_id"] and ids(codec) == ids(codec) and hashing == ["token_id", "codec_id"]


@torch.no_grad()
def test_a_part_whose_weights_changed_has_the_ids_that_it_can_have(tiny_folder: Path) -> None:
    encoder = SpeechTokenizer.from_pretrained(tiny_folder, parts="encoder")
    decoder = SpeechTokenizer.from_pretrained(tiny_folder, parts="decoder")
    whole = SpeechTokenizer.from_pretrained(tiny_folder)
    tokens = whole.encode(0.1 * torch.randn(2_000))
    decoder.decoder.embed.weight += 1
    assert decoder.token_id == whole.token_id and decoder.decode(tokens).waveform.shape == (1, 2_000)
    for codec in (encoder, whole):
        codec.quantizer.codebooks += 1
    assert encoder.token_id == whole.token_id
    for codec in (encoder, decoder):
        message = f"only the {codec.parts} of this codec was loaded, and its weights have changed"
        with pytest.raises(ValueError, match=message):
            _ = codec.id
    decoder.quantizer.codebooks += 1
    with pytest.raises(ValueError, match="load all parts for the token_id"):
        decoder.decode(tokens)
    for other in ("tokens-0123456789", "paper-0123456789", None):
        with pytest.raises(TokensError, match=f"codes of {other}, but .*: load the codec of"):
            encoder.check_token_id(other, "codes")  # type: ignore[arg-type]


def test_a_codec_without_weights_or_in_two_places(tiny_folder: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(tiny_folder)
    codec.decoder.to("meta")  # stands for another device
    assert codec.to("meta").config == make_tiny().config


def test_inference_mode(tiny_folder: Path) -> None:
    with torch.inference_mode():  # tensors that are born there count no changes
        codec = SpeechTokenizer.from_pretrained(tiny_folder)
        before = codec.token_id
        codec.quantizer.codebooks.mul_(1.5)
        assert codec.token_id != before
