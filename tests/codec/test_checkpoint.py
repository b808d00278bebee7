from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from conftest import make_tiny, make_tiny_paper
from vocable.codec.checkpoint import CheckpointError, locate
from vocable.codec.exchange import export_official
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import TokensError


def test_round_trip(tiny: SpeechTokenizer, tiny_folder: Path) -> None:
    loaded = SpeechTokenizer.from_pretrained(tiny_folder)
    assert loaded.id == tiny.id and loaded.config == tiny.config and not loaded.training
    state = loaded.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in tiny.state_dict().items())


def test_the_embedded_model_has_a_name(
    fast: SpeechTokenizer, tiny: SpeechTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SpeechTokenizer.from_pretrained("fast").id == fast.id
    tiny.save_pretrained("fast")
    assert SpeechTokenizer.from_pretrained("fast").id == fast.id, "the name is never a folder"
    for folder in ("./fast", Path("fast"), tmp_path / "fast"):
        assert SpeechTokenizer.from_pretrained(folder).id == tiny.id


def test_a_half_precision_file_gives_codes(tiny: SpeechTokenizer, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path, torch.float16)
    loaded = SpeechTokenizer.from_pretrained(tmp_path)
    assert loaded.id != tiny.id and loaded.id == SpeechTokenizer.from_pretrained(tmp_path).id
    assert all(t.dtype == torch.float32 for t in loaded.state_dict().values())


def test_the_id_follows_config_and_weights(tiny: SpeechTokenizer, tiny_folder: Path) -> None:
    assert tiny.id.startswith("tiny-") and make_tiny().id == tiny.id != make_tiny(seed=1).id
    assert make_tiny(name="other").id != tiny.id
    model = SpeechTokenizer.from_pretrained(tiny_folder).to(torch.bfloat16)
    assert model.id == tiny.id, "bfloat16 is a way of running a codec, not another codec"
    model = SpeechTokenizer.from_pretrained(tiny_folder).train()
    model.quantizer.codebooks += 1
    assert model.id != tiny.id, "a model in training is no longer the one that was loaded"


def broken(folder: Path, source: Path, **files: bytes | None) -> Path:
    """A copy of a model with some files replaced, or left out (None)."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        data = files.get(name.split(".")[0], (source / name).read_bytes())
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def test_wrong_checkpoints_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    tensors = safetensors.torch.load_file(tiny_folder / "model.safetensors")

    def encoded(values: object) -> bytes:
        return json.dumps(values).encode()

    pickled = tmp_path / "pickled.pt"
    torch.save(tensors, pickled)
    cases = {
        "no config": {"config": None},
        "no weights": {"model": None},
        "empty config": {"config": b""},
        "config is a list": {"config": b"[1]"},
        "unknown field": {"config": encoded(config | {"spam": 1})},
        "another architecture": {"config": encoded(config | {"architecture": "seanet"})},
        "negative size": {"config": encoded(config | {"codebook_size": -1})},
        "another size": {"config": encoded(config | {"codebook_size": 33})},
        "missing tensor": {"model": safetensors.torch.save({k: v for k, v in tensors.items() if "norm" not in k})},
        "extra tensor": {"model": safetensors.torch.save(tensors | {"spam": torch.zeros(1)})},
        "cut file": {"model": (tiny_folder / "model.safetensors").read_bytes()[:5000]},
        "empty file": {"model": b""},
        "pickle": {"model": pickled.read_bytes()},
        "deep config": {"config": b"[" * 100_000},
        "deep key": {"config": encoded(config)[:-1] + b', "name": ' + b"[" * 100_000 + b"}"},
        "a key that moves the cursor": {"config": encoded(config)[:-1] + b', "\\u001b[2J": 1}'},
        "a tensor that moves the cursor": {"model": safetensors.torch.save(tensors | {"\x1b[2J": torch.zeros(1)})},
        **{
            f"{value} in {key}": {
                "model": safetensors.torch.save(tensors | {key: torch.full_like(tensors[key], value)})
            }
            for value in (float("nan"), float("inf"))
            for key in ("quantizer.codebooks", "decoder.head.bias")
        },
    }
    for name, files in cases.items():
        folder = broken(tmp_path / name, tiny_folder, **files)
        with pytest.raises(CheckpointError) as caught:
            SpeechTokenizer.from_pretrained(folder)
        assert str(folder) in str(caught.value) and str(caught.value).isprintable(), name


@torch.no_grad()
def test_one_number_that_is_none_is_refused(tmp_path: Path) -> None:
    codec = make_tiny()
    codec.encoder.embed.weight[3, 4] = float("nan")
    codec.save_pretrained(tmp_path)
    for parts in ("all", "decoder"):
        with pytest.raises(CheckpointError, match=r"encoder.embed.weight contains NaN"):
            SpeechTokenizer.from_pretrained(tmp_path, parts=parts)
    codec.encoder.embed.weight.fill_(3e38)  # whose sum is infinite
    codec.save_pretrained(tmp_path)
    assert SpeechTokenizer.from_pretrained(tmp_path).id == codec.id


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts mappings as Linux lists them")
@pytest.mark.parametrize("make", [make_tiny, make_tiny_paper])
def test_a_file_is_mapped_once(make: Callable[[], SpeechTokenizer], tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    codec = SpeechTokenizer.from_pretrained(tmp_path)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    # A private mapping that was written to may be listed in pieces.
    size = sum(int(end, 16) - int(start, 16) for start, end in (line.split()[0].split("-") for line in mapped))
    assert size <= (tmp_path / "model.safetensors").stat().st_size + 8192 and codec.id == make().id


def test_weights_and_config_are_replaced_together(
    tiny: SpeechTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for target in (f"{type(tiny.config).__module__}.CodecConfig.to_dict", "safetensors.torch.save_file"):
        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(target, stop)
            make_tiny(seed=1, level=-26.0).save_pretrained(tmp_path)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_that_is_no_checkpoint_is_named(tiny_folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name}: not a checkpoint; name its folder"):
            SpeechTokenizer.from_pretrained(tiny_folder / name)


@pytest.mark.parametrize("kind", ["ours", "official", "official with safetensors", "neither"])
def test_pickles_are_fetched_only_where_nothing_else_will_do(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(repository: str, allow_patterns: list[str], **_: object) -> str:
        assert repository == "owner/name"
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    config = {"n_filters": 4} if kind.startswith("official") else {"name": "x"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if kind in ("ours", "official with safetensors"):
        (tmp_path / "model.safetensors").touch()
    assert locate("owner/name") == tmp_path
    assert any(pattern.endswith(".pt") for pattern in asked) == (kind == "official")
    assert "config.json" in asked and "model.safetensors" in asked


def test_the_oldest_torch_has_a_safe_unpickler() -> None:
    """CVE-2025-32434: before 2.6, torch.load(weights_only=True) runs code."""
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    oldest = re.search(r'"torch>=(\d+)\.(\d+)"', pyproject)
    assert oldest and (int(oldest[1]), int(oldest[2])) >= (2, 6)


def test_a_name_that_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no-such-model", "./owner/name", str(tmp_path / "absent")):
        with pytest.raises(CheckpointError, match=r"no such folder|neither"):
            SpeechTokenizer.from_pretrained(name)


def in_the_hubs_cache(cache: Path, name: str, files: dict[str, Path]) -> None:
    """A repository as a download leaves it."""
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    for path, source in files.items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).write_bytes(source.read_bytes())
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(snapshot.name)


def test_hub_ids_are_found_in_the_cache_offline(tiny_folder: Path, tmp_path: Path) -> None:
    """Ours, and one of the authors' in a subfolder; run in a process whose hub is offline."""
    import os
    import subprocess
    import sys

    make_tiny_paper().save_pretrained(tmp_path / "paper")
    weights = export_official(tmp_path / "paper", tmp_path / "official")
    in_the_hubs_cache(tmp_path / "hub", "someone/tiny", {p.name: p for p in tiny_folder.iterdir()})
    avg = {f"speechtokenizer_hubert_avg/{p.name}": p for p in weights.parent.iterdir()}
    in_the_hubs_cache(tmp_path / "hub", "fnlp/SpeechTokenizer", avg)
    code = (
        "from vocable import SpeechTokenizer\n"
        "print(SpeechTokenizer.from_pretrained('someone/tiny').id)\n"
        "print(SpeechTokenizer.from_pretrained('fnlp/SpeechTokenizer/speechtokenizer_hubert_avg').id)\n"
        "for name in ('someone/absent', 'fnlp/SpeechTokenizer'):\n"
        "    try: SpeechTokenizer.from_pretrained(name)\n"
        "    except ValueError as error: print(error)"
    )
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    ours, theirs, absent, root = out.splitlines()
    assert ours == make_tiny().id
    assert theirs == SpeechTokenizer.from_pretrained(weights).id
    assert absent.startswith("someone/absent: no such folder, and no such model on the hub")
    assert root.startswith("fnlp/SpeechTokenizer: no config.json there; name the subfolder")


def test_the_token_id_follows_what_decides_codes(tiny: SpeechTokenizer, tmp_path: Path) -> None:
    clip = 0.1 * torch.randn(3_000, generator=torch.Generator().manual_seed(0))
    spectral = dataclasses.replace(tiny.config.spectral, decoder_fine_blocks=2, synthesis_n_fft=320)
    for same in (
        make_tiny(name="other"),
        SpeechTokenizer(dataclasses.replace(tiny.config, spectral=spectral, semantic_dimension=7)),
    ):
        state = {key: t for key, t in tiny.state_dict().items() if not key.startswith(("decoder.", "transform."))}
        for part in (same.decoder, same.transform):
            for parameter in part.parameters():
                parameter.data += 0.1
        same.load_state_dict(same.state_dict() | state)
        assert same.token_id == tiny.token_id and same.id != tiny.id
        theirs = same.eval().decode(tiny.encode(clip)).waveform
        assert not torch.allclose(theirs, tiny.decode(same.encode(clip)).waveform)
        same.save_pretrained(tmp_path)
        for parts in ("all", "encoder", "decoder"):
            loaded = SpeechTokenizer.from_pretrained(tmp_path, parts=parts)
            assert (loaded.token_id, loaded.id) == (same.token_id, same.id)
    for name in ("encoder.project.weight", "quantizer.codebooks"):
        other = make_tiny()
        other.load_state_dict(other.state_dict() | {name: tiny.state_dict()[name] + 0.1})
        assert other.token_id != tiny.token_id
        with pytest.raises(TokensError, match=f"codes of {other.token_id}, but those of this codec are tokens-"):
            tiny.decode(other.encode(clip))
    assert make_tiny(level=-26.0).token_id != make_tiny(high_pass=40.0).token_id != tiny.token_id
    assert tiny.token_id.startswith("tokens-") and len(tiny.token_id) == 17


def test_the_token_id_of_a_codec_with_weight_norm(tmp_path: Path) -> None:
    make_tiny_paper().save_pretrained(tmp_path)
    folded = SpeechTokenizer.from_pretrained(tmp_path)
    normed = SpeechTokenizer.from_pretrained(tmp_path, weight_norm=True)
    assert folded.token_id == normed.token_id == normed.train().token_id == make_tiny_paper().token_id
