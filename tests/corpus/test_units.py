"""Patterns, ids, strings and encodings of codes, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vocable.corpus import units

SIZE = 37


@st.composite
def clips(draw: st.DrawFn, least: int = 0) -> Tensor:
    layers, frames, seed = draw(st.integers(1, 9)), draw(st.integers(least, 40)), draw(st.integers(0, 99))
    return torch.randint(SIZE, (layers, frames), generator=torch.Generator().manual_seed(seed))


@given(clips())
def test_patterns_there_and_back(codes: Tensor) -> None:
    layers, frames = codes.shape
    flat, late, steps = units.flatten(codes), units.delay(codes, -1), units.parallel(codes)
    assert flat.shape == (layers * frames,) and late.shape == (layers, frames + layers - 1)
    assert (late == -1).sum() == layers * (layers - 1)
    for back in (units.unflatten(flat, layers), units.undelay(late), units.unparallel(steps)):
        assert torch.equal(back, codes)


@given(clips(least=1), st.integers(0, 50_000))
def test_ids_there_and_back(codes: Tensor, first: int) -> None:
    ids = units.offset(codes, SIZE, first)
    assert torch.equal(units.unoffset(ids, SIZE, first), codes)
    for k, row in enumerate(ids):  # no layer has an id of another
        assert int(row.min()) >= first + k * SIZE and int(row.max()) < first + (k + 1) * SIZE
    if len(codes) > 1:
        with pytest.raises(ValueError, match="none of layer"):
            units.unoffset(ids.roll(1, 0), SIZE, first)


@given(clips(least=1))
def test_strings_there_and_back(codes: Tensor) -> None:
    text = units.write_units(codes)
    assert torch.equal(units.read_units(text), codes)
    assert torch.equal(units.read_units(text.replace("><", "> \n<")), codes)
    assert units.read_units("<s0_1>", 2).shape == (2, 0)
    if len(codes) > 1 and codes.shape[1] > 1:  # a model that stopped within a frame
        assert torch.equal(units.read_units(text.rpartition("<")[0]), codes[:, :-1])


@given(clips())
def test_runs_there_and_back(codes: Tensor) -> None:
    sequence = codes[0] % 3
    runs, durations = units.deduplicate(sequence)
    assert (runs[1:] != runs[:-1]).all()
    assert torch.equal(units.repeat(runs, durations), sequence)


def test_what_is_no_sequence_of_codes() -> None:
    with pytest.raises(ValueError, match="no whole frames"):
        units.unflatten(torch.arange(7), 2)
    with pytest.raises(ValueError, match="no whole frame"):
        units.undelay(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="'h' is no unit"):
        units.read_units("<s0_1> hello")
    with pytest.raises(ValueError, match="unit 1 is of layer 2"):
        units.read_units("<s0_1><s2_1><s1_1>")
    with pytest.raises(ValueError, match="from 0 to 36"):
        units.offset(torch.tensor([[37]]), SIZE)
    assert units.write_units(torch.tensor([[512, 1], [7, 0]])) == "<s0_512><s1_7><s0_1><s1_0>"


def test_encoding_of_what_comes_often(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    words = [torch.tensor(w) for w in ([1, 2, 3], [9, 9], [4, 5, 6, 7])]
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.cat([words[int(i)] for i in torch.randint(3, (20,), generator=generator)]) for _ in range(30)]
    encoding = units.UnitBPE.train(sequences, SIZE, SIZE + 20)
    assert SIZE < encoding.vocabulary <= SIZE + 20
    assert units.compression(encoding, sequences) > 2.5
    assert torch.equal(encoding.decode(torch.arange(SIZE)), torch.arange(SIZE))  # these ids are the codes
    encoding.save(tmp_path / "bpe.json")
    again = units.UnitBPE.load(tmp_path / "bpe.json")
    odd = torch.randint(SIZE, (200,), generator=generator)
    for sequence in [*sequences, odd, odd[:0]]:
        ids = encoding.encode(sequence)
        assert torch.equal(encoding.decode(ids), sequence) and torch.equal(again.encode(sequence), ids)
    with pytest.raises(ValueError, match="not among"):
        encoding.encode(torch.tensor([1, SIZE + 1]))
    with pytest.raises(ValueError, match="is none of"):
        encoding.decode(torch.tensor([10_000]))
    with pytest.raises(ValueError, match="no room"):
        units.UnitBPE.train(sequences, SIZE, 5)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="not an encoding"):
        units.UnitBPE.load(tmp_path / "bad.json")


def test_units_in_a_hugging_face_tokenizer() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=base, unk_token="[UNK]")
    first = units.add_units(tokenizer, 2, SIZE)
    assert len(tokenizer) == first + 2 * SIZE
    codes = torch.randint(SIZE, (2, 30), generator=torch.Generator().manual_seed(0))
    ids = tokenizer("hello " + units.write_units(codes) + " world").input_ids
    assert ids[0] == 1 and ids[-1] == 2
    assert ids[1:-1] == units.flatten(units.offset(codes, SIZE, first)).tolist()
    assert torch.equal(units.read_units(tokenizer.decode(ids[1:-1])), codes)
    with pytest.raises(ValueError, match="already"):
        units.add_units(tokenizer, 1, SIZE)
