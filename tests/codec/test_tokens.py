from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
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
    with pytest.raises(TokensError, match="no semantic codes"):
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


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".jsonl"])
def test_files_with_gains(encoded: Encoded, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tokens{suffix}"
    with_gain = dataclasses.replace(encoded, gain=torch.tensor([0.1, 1.0, 33.3]))
    with_gain.save(path)
    loaded = Encoded.load(path)
    assert loaded.gain is not None and loaded.gain.dtype == torch.float32
    assert torch.equal(loaded.gain, with_gain.gain)
    assert [float(clip.gain) for clip in loaded.clips()] == with_gain.gain.tolist()
    for bad in ([1.0, 2.0], [1.0, 1.0, 0.0], [1.0, 1.0, float("nan")]):
        if suffix != ".jsonl" or len(bad) == 3:
            dataclasses.replace(encoded, gain=torch.tensor(bad)).save(path)
            with pytest.raises(TokensError, match="do not fit"):
                Encoded.load(path)
    assert encoded.gain is None and encoded.clips()[0].gain is None


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".jsonl"])
def test_files_of_version_1_name_the_codec(
    encoded: Encoded, tiny: SpeechTokenizer, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = Encoded._header

    def version_1(self: Encoded) -> dict:
        return {
            {"token_id": "codec_id"}.get(key, key): value for key, value in (header(self) | {"version": "1"}).items()
        }

    path = tmp_path / f"old{suffix}"
    with monkeypatch.context() as patched:
        patched.setattr(Encoded, "_header", version_1)
        dataclasses.replace(encoded, token_id=tiny.id).save(path)
    old = Encoded.load(path)
    assert old.token_id == tiny.id and torch.equal(old.codes, encoded.codes) and old.gain is None
    assert torch.equal(tiny.decode(old).waveform, tiny.decode(encoded).waveform)
    old.save(path)
    assert Encoded.load(path).token_id == tiny.id


def test_lines_of_unlike_origin_are_refused(encoded: Encoded, tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    encoded.save(path)
    first, *rest = path.read_text().splitlines()
    for change in ({"token_id": "tokens-0"}, {"gain": 1.0}, {"version": "1", "codec_id": encoded.token_id}):
        path.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]))
        with pytest.raises(TokensError, match="different codecs"):
            Encoded.load(path)


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    """A token file with another header."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            change(row)
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return
    tensors = np.load(path) if path.suffix == ".npz" else safetensors.numpy.load_file(path)
    codes = tensors["codes"]
    if path.suffix == ".npz":
        header = json.loads(str(tensors["header"]))
    else:
        with safetensors.safe_open(path, "numpy") as file:
            header = json.loads(file.metadata()["vocable"])
    header["codes"] = codes
    change(header)
    codes = np.asarray(header.pop("codes"))
    if path.suffix == ".npz":
        np.savez_compressed(path, codes=codes, header=np.array(json.dumps(header)))
    else:
        safetensors.numpy.save_file({"codes": codes}, path, {"vocable": json.dumps(header)})


HEADERS = {
    "scalar lengths": {"num_frames": 16, "num_samples": 5000},
    "nested lengths": {"num_frames": [[16, 2, 32]]},
    "fractions": {"num_frames": [15.7, 2, 32]},
    "truths": {"num_samples": [True, 333, 9999]},
    "too many samples": {"num_samples": [5000, 333, 99_999]},
    "no samples": {"num_samples": [5000, 0, 9999]},
    "no frames": {"num_frames": []},
    "huge lengths": {"num_frames": [10**30] * 3},
    "layers that do not fit": {"layers": [0, 4]},
    "negative layers": {"layers": [-1, 2]},
    "words for layers": {"layers": ["0", "3"]},
    "no rate": {"sample_rate": 0},
    "no frame rate": {"frame_rate": float("nan")},
    "an id that moves the cursor": {"token_id": "\x1b]0;owned\x07"},
    "an id of two lines": {"token_id": "tokens-1\nvocable: all is well"},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("what", HEADERS)
def test_headers_that_cannot_be(what: str, suffix: str, encoded: Encoded, tmp_path: Path) -> None:
    path = tmp_path / f"tokens{suffix}"
    encoded.save(path)
    rewrite(path, lambda header: header.update(HEADERS[what]))
    with pytest.raises(TokensError) as caught:
        Encoded.load(path)
    assert str(caught.value).startswith(str(path)) and str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".jsonl"])
def test_what_is_no_code_is_not_taken_for_one(suffix: str, encoded: Encoded, tmp_path: Path) -> None:
    path = tmp_path / f"tokens{suffix}"
    for kind in (np.float32, np.float64, bool):
        encoded.save(path)
        rewrite(path, lambda header, kind=kind: header.update(codes=np.asarray(header["codes"]).astype(kind).tolist()))
        with pytest.raises(TokensError, match=path.name):
            Encoded.load(path)


def test_a_row_that_was_cut_is_not_repeated(encoded: Encoded, tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    for codes, frames in (([[5]] * 3, 100), ([[5]] * 3, 40_000_000), ([[5, 6], [5], [5, 6]], 2), (5, 1), ([], 1)):
        encoded.save(path)
        rewrite(path, lambda row, c=codes, n=frames: row.update(codes=c, num_frames=n, num_samples=1))
        with pytest.raises(TokensError, match=path.name):
            Encoded.load(path)


def test_a_small_archive_does_not_fill_the_memory(encoded: Encoded, tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    encoded.save(path)
    rewrite(path, lambda header: header.update(codes=np.zeros((3, 3, 5_000_000), np.uint16)))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(TokensError, match="do not fit the header"):
        Encoded.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("code", [-1, 65_536, 70_000])
def test_codes_that_do_not_fit_are_not_written(code: int, encoded: Encoded, tmp_path: Path) -> None:
    bad = dataclasses.replace(encoded, codes=torch.full_like(encoded.codes, code))
    for write in (lambda: bad.save(tmp_path / "tokens.npz"), bad.to_bytes):
        with pytest.raises(TokensError, match=f"codes of 0 to 65535, found {code} to {code}"):
            write()
    assert not list(tmp_path.iterdir())


def test_no_control_character_of_another_codec_s_id_is_printed(tiny: SpeechTokenizer, encoded: Encoded) -> None:
    bad = dataclasses.replace(encoded, token_id="\x1b]0;owned\x07")
    with pytest.raises(TokensError) as caught:
        tiny.decode(bad)
    assert str(caught.value).isprintable() and "owned" in str(caught.value)
