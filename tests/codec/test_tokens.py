from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded, TokensError


@pytest.fixture(scope="module")
def encoded(tiny: SpeechTokenizer) -> Encoded:
    g = torch.Generator().manual_seed(0)
    return tiny.encode([0.1 * torch.randn(n, generator=g) for n in (5000, 333, 9999)], layers=slice(0, 3))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".jsonl"])
def test_round_trip(encoded: Encoded, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tokens{suffix}"
    encoded.save(path)
    loaded = Encoded.load(path)
    for field in ("codes", "num_frames", "num_samples"):
        assert torch.equal(getattr(loaded, field), getattr(encoded, field)), field
    for field in ("layers", "token_id", "sample_rate", "frame_rate"):
        assert getattr(loaded, field) == getattr(encoded, field), field
    assert loaded.codes.dtype == torch.int64
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no temporary file stays"


def test_rows(encoded: Encoded, tiny: SpeechTokenizer) -> None:
    assert encoded.semantic.shape[1] == 1 and encoded.acoustic.shape[1] == 2 and len(encoded) == 3
    upper = tiny.encode(torch.randn(999) * 0.1, layers=slice(2, 4))
    assert upper.acoustic.shape[1] == 2
    with pytest.raises(TokensError, match="no semantic row"):
        _ = upper.semantic


def test_broken_files(encoded: Encoded, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".npz", ".jsonl"):
        good = tmp_path / f"good{suffix}"
        encoded.save(good)
        data = good.read_bytes()
        for i, bad in enumerate((b"", b"text", data[: len(data) // 2], data[::-1], b"[]\n", b"{}\n")):
            path = tmp_path / f"bad{i}{suffix}"
            path.write_bytes(bad)
            with pytest.raises(TokensError, match=path.name):
                Encoded.load(path)
    with pytest.raises(TokensError, match="no such file"):
        Encoded.load(tmp_path / "absent.npz")
    with pytest.raises(TokensError, match="ends in"):
        encoded.save(tmp_path / "tokens.txt")


def test_a_file_of_another_version_or_shape(encoded: Encoded, tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    encoded.save(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(row | {"version": "99"}) for row in rows))
    with pytest.raises(TokensError, match="update vocable"):
        Encoded.load(path)
    path.write_text("\n".join(json.dumps(row | {"layers": [0, 7]}) for row in rows))
    with pytest.raises(TokensError, match="do not fit"):
        Encoded.load(path)


def test_an_npz_with_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, codes=np.array([{}], dtype=object), header=np.array("{}"))
    with pytest.raises(TokensError, match="not a token file"):
        Encoded.load(path)
