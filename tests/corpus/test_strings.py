"""Codes as text, and text as codes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from test_sequences import SIZE, clips
from torch import Tensor

from vocable.corpus.sequences import flatten, offset
from vocable.corpus.strings import add_codes, codes_to_text, text_to_codes


@given(clips(least=1))
def test_text_and_its_inverse(codes: Tensor) -> None:
    text = codes_to_text(codes)
    assert torch.equal(text_to_codes(text), codes)
    assert torch.equal(text_to_codes(text.replace("><", "> \n<")), codes)
    if len(codes) > 1 and codes.shape[1] > 1:  # a language model that stopped within a frame
        assert torch.equal(text_to_codes(text.rpartition("<")[0]), codes[:, :-1])


def test_the_strings() -> None:
    assert codes_to_text(torch.tensor([[512, 1], [7, 0]])) == "<s0_512><s1_7><s0_1><s1_0>"
    assert text_to_codes("<s0_1>", num_layers=2).shape == (2, 0)
    with pytest.raises(ValueError, match="'h' is not part of a code"):
        text_to_codes("<s0_1> hello")
    with pytest.raises(ValueError, match="code 1 is of layer 2"):
        text_to_codes("<s0_1><s2_1><s1_1>")


def test_codes_in_a_hugging_face_tokenizer() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=base, unk_token="[UNK]")
    first = add_codes(tokenizer, num_layers=2, codebook_size=SIZE)
    assert len(tokenizer) == first + 2 * SIZE
    codes = torch.randint(SIZE, (2, 30), generator=torch.Generator().manual_seed(0))
    ids = tokenizer("hello " + codes_to_text(codes) + " world").input_ids
    assert ids[0] == 1 and ids[-1] == 2
    assert ids[1:-1] == flatten(offset(codes, codebook_size=SIZE, first=first)).tolist()
    assert torch.equal(text_to_codes(tokenizer.decode(ids[1:-1])), codes)
    with pytest.raises(ValueError, match="already"):
        add_codes(tokenizer, num_layers=1, codebook_size=SIZE)
