"""Byte-pair encoding of codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vocable.corpus.bpe import CodeBPE

SIZE = 37


def test_frequent_sequences_become_ids(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    words = [torch.tensor(w) for w in ([1, 2, 3], [9, 9], [4, 5, 6, 7])]
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.cat([words[int(i)] for i in torch.randint(3, (20,), generator=generator)]) for _ in range(30)]
    encoding = CodeBPE.train(sequences, codebook_size=SIZE, vocabulary=SIZE + 20)
    assert SIZE < encoding.vocabulary <= SIZE + 20
    assert encoding.compression(sequences) > 2.5
    assert torch.equal(encoding.decode(torch.arange(SIZE)), torch.arange(SIZE))  # these ids are the codes
    encoding.save(tmp_path / "bpe.json")
    again = CodeBPE.load(tmp_path / "bpe.json")
    odd = torch.randint(SIZE, (200,), generator=generator)
    for sequence in [*sequences, odd, odd[:0]]:
        ids = encoding.encode(sequence)
        assert torch.equal(encoding.decode(ids), sequence) and torch.equal(again.encode(sequence), ids)
    with pytest.raises(ValueError, match="outside of the codebook"):
        encoding.encode(torch.tensor([1, SIZE + 1]))
    with pytest.raises(ValueError, match="outside of the vocabulary"):
        encoding.decode(torch.tensor([10_000]))
    with pytest.raises(ValueError, match="is smaller than the codebook"):
        CodeBPE.train(sequences, codebook_size=SIZE, vocabulary=5)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="not a byte-pair encoding"):
        CodeBPE.load(tmp_path / "bad.json")
