"""Official checkpoints in all their forms. That the numbers agree is shown in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from conftest import differing_frames, make_tiny, make_tiny_paper
from vocable.codec import exchange, official
from vocable.codec.checkpoint import CheckpointError
from vocable.codec.config import PRESETS
from vocable.codec.model import SpeechTokenizer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny codec as the official package would have saved it."""
    folder = tmp_path_factory.mktemp("tiny-paper")
    make_tiny_paper(activation="Snake").save_pretrained(folder / "ours")
    return exchange.export_official(folder / "ours", folder / "official").parent


def copy(
    exported: Path, folder: Path, tensors: object = None, name: str = "SpeechTokenizer.pt", **config: object
) -> Path:
    """The exported folder with changes."""
    folder.mkdir(parents=True)
    values = json.loads((exported / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    torch.save(
        torch.load(exported / "SpeechTokenizer.pt", weights_only=True) if tensors is None else tensors, folder / name
    )
    return folder


@pytest.mark.parametrize(("activation", "heading"), [("ELU", "### A."), ("Snake", "### B.")])
def test_every_official_key_and_shape(activation: str, heading: str, shared: Path) -> None:
    """Against the list taken from the authors' package."""
    text = (shared / "reference" / "official_state_dict.txt").read_text()
    section = text[text.index(heading) :].split("###")[1]
    rows = [line.split("\t") for line in section.splitlines() if line.count("\t") == 3]
    listed = {row[0]: tuple(int(n) for n in row[1].strip("()").split(",") if n.strip()) for row in rows}
    with torch.device("meta"):
        config = PRESETS["paper"]
        seanet = config.seanet.__class__(activation=activation)
        model = SpeechTokenizer(config.__class__(**{**vars(config), "seanet": seanet}))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    ours = {}
    for name, key in official._names(model.config):
        ours[key] = (1, *shapes.pop(name), 1) if name.endswith(".alpha") else shapes.pop(name)
    assert shapes.keys() == {"quantizer.codebooks"}
    assert ours == {key: shape for key, shape in listed.items() if not key.startswith("quantizer.")}
    assert len(listed) - len(ours) == 4 * 8 and len(listed) == (166 if activation == "ELU" else 192)


def test_forms_of_one_checkpoint_are_one_codec(exported: Path, tmp_path: Path) -> None:
    """Flat, inside a trainer's checkpoint, with the newer weight-norm names, by file name, with more config keys."""
    tensors = torch.load(exported / "SpeechTokenizer.pt", weights_only=True)
    halved = {key: value.half() for key, value in tensors.items()}
    newer = {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for key, value in tensors.items()
    }
    trainer = {"generator": tensors, "optim_g": {"state": {}}, "best_dev_mel_loss": 0.3}
    folders = [
        exported,
        copy(exported, tmp_path / "extra", sampling_rate=16_000, segment_size=48_000),
        copy(exported, tmp_path / "dev", name="ckpt.dev"),
        copy(exported, tmp_path / "newer", newer),
        copy(exported, tmp_path / "trainer", trainer, name="SpeechTokenizerTrainer_00002500"),
    ]
    names = {SpeechTokenizer.from_pretrained(folder).id for folder in folders}
    both = copy(exported, tmp_path / "both", trainer, name="SpeechTokenizerTrainer_00002500")
    torch.save(tensors, both / "SpeechTokenizer_best_dev.pt")
    names.add(SpeechTokenizer.from_pretrained(both).id)
    torch.save(tensors, both / "SpeechTokenizer.pt")
    with pytest.raises(CheckpointError, match="name the file"):
        SpeechTokenizer.from_pretrained(both)
    names.add(exchange.import_official(both / "SpeechTokenizer_best_dev.pt", tmp_path / "one"))
    names.add(exchange.import_official(exported, tmp_path / "two"))
    names.add(SpeechTokenizer.from_pretrained(tmp_path / "two").id)
    names.add(SpeechTokenizer.from_pretrained(both / "SpeechTokenizer_best_dev.pt").id)
    assert len(names) == 1
    half = SpeechTokenizer.from_pretrained(copy(exported, tmp_path / "half", halved))
    assert half.encode(torch.randn(1000)).codes.shape == (1, 8, 4)
    assert exchange.import_official(tmp_path / "half", tmp_path / "three") == half.id not in names


def test_broken_official_checkpoints_are_refused(exported: Path, tmp_path: Path) -> None:
    tensors = torch.load(exported / "SpeechTokenizer.pt", weights_only=True)
    first, book = next(iter(tensors)), "quantizer.vq.layers.1._codebook.embed"
    empty = {k: torch.zeros_like(v) if k.endswith("inited") else v for k, v in tensors.items()}
    cases: dict[str, Path] = {
        "missing": copy(exported, tmp_path / "missing", {k: v for k, v in tensors.items() if k != first}),
        "extra": copy(exported, tmp_path / "extra", tensors | {"spam": torch.zeros(1)}),
        "codebook": copy(exported, tmp_path / "codebook", tensors | {book: torch.zeros(3, 2)}),
        "statistics": copy(
            exported, tmp_path / "statistics", {k: v[:3] if "embed_avg" in k else v for k, v in tensors.items()}
        ),
        "integers": copy(exported, tmp_path / "integers", tensors | {first: tensors[first].int()}),
        "number as key": copy(exported, tmp_path / "numbers", tensors | {3: tensors[first]}),
        "word for a truth": copy(exported, tmp_path / "word", bidirectional="yes"),
        "shape": copy(exported, tmp_path / "shape", tensors | {first: torch.zeros(3)}),
        "not initialized": copy(exported, tmp_path / "unfilled", empty),
        "not tensors": copy(exported, tmp_path / "list", [1, 2]),
        "no key": copy(exported, tmp_path / "nokey", n_q=None),
        "wrong type": copy(exported, tmp_path / "type", n_q="8"),
        "other strides": copy(exported, tmp_path / "strides", strides=[8, 5, 4, 4]),
        "activation": copy(exported, tmp_path / "activation", activation="ReLU"),
        "ELU": copy(exported, tmp_path / "elu", activation="ELU"),
    }
    code = tmp_path / "code"
    cases["a pickled object"] = copy(exported, code, {"generator": np.random.default_rng(0)})
    cut = copy(exported, tmp_path / "cut")
    (cut / "SpeechTokenizer.pt").write_bytes((exported / "SpeechTokenizer.pt").read_bytes()[:5000])
    cases["cut"] = cut
    for name, folder in cases.items():
        for call in (
            lambda folder=folder: SpeechTokenizer.from_pretrained(folder),
            lambda folder=folder: exchange.import_official(folder, tmp_path / "out"),
        ):
            with pytest.raises(CheckpointError) as caught:
                call()
            assert str(folder) in str(caught.value) and "\n" not in str(caught.value), name
    assert not (tmp_path / "out").exists()


def test_only_the_papers_architecture_can_be_exported(tmp_path: Path) -> None:
    make_tiny().save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match="official package cannot build"):
        exchange.export_official(tmp_path / "ours", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_broken_models_are_not_exported(exported: Path, tmp_path: Path) -> None:
    exchange.import_official(exported, tmp_path / "ours")
    (tmp_path / "ours" / "codebook_statistics.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="codebook_statistics"):
        exchange.export_official(tmp_path / "ours", tmp_path / "out")
    with pytest.raises(ValueError, match="the input itself"):
        exchange.export_official(tmp_path / "ours", tmp_path / "ours")
    with pytest.raises(ValueError, match="the input itself"):
        exchange.import_official(exported / "SpeechTokenizer.pt", exported)
    tensors = safetensors.torch.load_file(tmp_path / "ours" / "model.safetensors")
    safetensors.torch.save_file(dict(list(tensors.items())[1:]), tmp_path / "ours" / "model.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        exchange.export_official(tmp_path / "ours", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_statistics_of_another_codec_are_not_exported(exported: Path, tmp_path: Path) -> None:
    exchange.import_official(exported, tmp_path / "ours")
    make_tiny_paper(seed=1, activation="Snake").save_pretrained(tmp_path / "ours")
    tensors = torch.load(exchange.export_official(tmp_path / "ours", tmp_path / "out"), weights_only=True)
    book = {what: tensors[f"quantizer.vq.layers.0._codebook.{what}"] for what in ("embed", "embed_avg", "cluster_size")}
    torch.testing.assert_close(book["embed"], book["embed_avg"] / book["cluster_size"][:, None])


def test_folding_changes_no_code(exported: Path) -> None:
    clip = 0.2 * torch.randn(9_000, generator=torch.Generator().manual_seed(0))
    folded = SpeechTokenizer.from_pretrained(exported)
    normed = SpeechTokenizer.from_pretrained(exported, weight_norm=True)
    assert folded.id == normed.id
    assert len(folded.state_dict()) < len(normed.state_dict())
    torch.testing.assert_close(folded.latents(clip), normed.latents(clip), atol=1e-4, rtol=1e-4)
    differing_frames(folded, clip, folded.encode(clip).codes[0], normed.encode(clip).codes[0])


def test_a_folded_codec_is_saved_folded(exported: Path, tmp_path: Path) -> None:
    folded = SpeechTokenizer.from_pretrained(exported)
    folded.save_pretrained(tmp_path / "folded")
    again = SpeechTokenizer.from_pretrained(tmp_path / "folded")
    assert again.config.seanet is not None and not again.config.seanet.weight_norm
    clip = 0.2 * torch.randn(5_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.latents(clip), folded.latents(clip))
    normed = SpeechTokenizer.from_pretrained(tmp_path / "folded", weight_norm=True)
    torch.testing.assert_close(normed.latents(clip), folded.latents(clip), atol=1e-4, rtol=1e-4)


def test_parts(exported: Path) -> None:
    clip = 0.2 * torch.randn(5_000, generator=torch.Generator().manual_seed(0))
    for source in (None, exported):
        whole = SpeechTokenizer.from_pretrained(source)
        encoder = SpeechTokenizer.from_pretrained(source, parts="encoder")
        decoder = SpeechTokenizer.from_pretrained(source, parts="decoder")
        assert encoder.id == decoder.id == whole.id
        encoded = encoder.encode(clip)
        assert torch.equal(encoded.codes, whole.encode(clip).codes)
        assert torch.equal(decoder.decode(encoded).waveform, whole.decode(encoded).waveform)
        assert not any(key.startswith("decoder") for key in encoder.state_dict())
        with pytest.raises(ValueError, match="without its decoder"):
            encoder.decode(encoded)
        with pytest.raises(ValueError, match="without its encoder"):
            decoder.encode(clip)
        with pytest.raises(ValueError, match="load all parts"):
            encoder.save_pretrained("nowhere")
    with pytest.raises(ValueError, match="parts are"):
        SpeechTokenizer.from_pretrained(parts="head")  # type: ignore[arg-type]


def test_names_of_the_official_package_are_told_apart(tiny: SpeechTokenizer) -> None:
    for name, ours in (("n_q", "num_quantizers"), ("downsample_rate", "hop_length"), ("forward_feature", "embed")):
        assert not hasattr(tiny, name)
        with pytest.raises(AttributeError, match=f"{name} of the official package is {ours}"):
            getattr(tiny, name)
    with pytest.raises(AttributeError, match="no attribute 'spam'"):
        _ = tiny.spam


def test_rvq_1_alone_costs_no_search_above(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SpeechTokenizer.from_pretrained(exported)
    searched = []
    nearest = model.quantizer.nearest
    monkeypatch.setattr(model.quantizer, "nearest", lambda x, k, norms: searched.append(k) or nearest(x, k, norms))
    model.encode(torch.randn(3000), layers=slice(0, 1))
    assert searched == [0]


def test_the_preset_is_the_papers_size() -> None:
    with torch.device("meta"):
        model = SpeechTokenizer(PRESETS["paper"])
    sizes = {
        part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("encoder", "decoder", "transform")
    }
    assert sizes == {"encoder": 67_705_856, "decoder": 35_182_530, "transform": 787_200}
