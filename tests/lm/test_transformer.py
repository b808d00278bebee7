from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vocable.lm.cache import Caches
from vocable.lm.llama import export_llama
from vocable.lm.transformer import Transformer, TransformerConfig

SIZES = {"dim": 24, "layers": 2, "heads": 3, "hidden": 40}


def tiny(**changes: float) -> Transformer:
    """Of weights large enough that every part counts."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(**{**SIZES, **changes})).eval()  # type: ignore[arg-type]
    for weight in model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.3)
        else:
            nn.init.uniform_(weight, 0.5, 1.5)
    return model


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(splits=st.lists(st.integers(1, 5), min_size=1, max_size=8), batch=st.integers(1, 3), room=st.integers(0, 3))
@torch.no_grad()
def test_the_cached_pass_is_the_full_pass(splits: list[int], batch: int, room: int) -> None:
    model = tiny()
    x = torch.randn(batch, sum(splits), 24)
    cache = model.cache(batch, sum(splits) + room)
    parts = [model(part, causal=True, cache=cache) for part in torch.split(x, splits, 1)]
    same(torch.cat(parts, 1), model(x, causal=True))
    assert cache.length == sum(splits)


@settings(max_examples=30, deadline=None)
@given(begun=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), min_size=1, max_size=4), steps=st.integers(1, 4))
@torch.no_grad()
def test_a_pass_over_several_caches_is_that_of_each(begun: list[tuple[int, int]], steps: int) -> None:
    """begun: rows and positions of each cache."""
    model = tiny()
    texts = [torch.randn(rows, length + steps, 24) for rows, length in begun]
    caches = [model.cache(len(x), x.shape[1]) for x in texts]
    for x, cache in zip(texts, caches, strict=True):
        if x.shape[1] > steps:
            model(x[:, :-steps], causal=True, cache=cache)
    for step in range(-steps, 0):
        together = torch.cat([x[:, step, None] for x in texts])
        parts = model(together, causal=True, cache=Caches(caches)).split([len(x) for x in texts])
        for x, part in zip(texts, parts, strict=True):
            same(part[:, 0], model(x, causal=True)[:, step])
    with pytest.raises(ValueError, match="1 position of"):
        model(together.expand(-1, 2, -1), causal=True, cache=Caches(caches))
    with pytest.raises(ValueError, match="too small"):
        model(together, causal=True, cache=Caches(caches))


@torch.no_grad()
def test_a_full_cache_says_so_and_stays_as_it_was() -> None:
    model, x = tiny(), torch.randn(1, 7, 24)
    cache = model.cache(1, 6)
    model(x[:, :4], causal=True, cache=cache)
    with pytest.raises(ValueError, match="4 of its 6 positions are filled, 3 more"):
        model(x[:, 4:], causal=True, cache=cache)
    same(model(x[:, 4:6], causal=True, cache=cache), model(x[:, :6], causal=True)[:, 4:])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), batch=st.integers(2, 5), begun=st.integers(0, 4))
@torch.no_grad()
def test_clips_of_a_cache_take_the_place_of_others(data: st.DataObject, batch: int, begun: int) -> None:
    """And begin as one."""
    model, x = tiny(), torch.randn(1, begun, 24).expand(batch, -1, -1)
    cache = model.cache(batch, 40)
    if begun:
        model(x[:1], causal=True, cache=cache)
        assert cache.shared_length == begun
    for length in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=8)):
        then = torch.randn(batch, length, 24)
        x = torch.cat([x, then], 1)
        same(model(then, causal=True, cache=cache), model(x, causal=True)[:, -length:])
        rows = data.draw(st.lists(st.integers(0, batch - 1), min_size=batch, max_size=batch))
        cache.select(rows)
        x = x[rows]
        equal = (x == x[0]).all(2).all(0).int().cumprod(0).sum()
        assert cache.shared_length == equal, "the shared prefix is known"


@torch.no_grad()
def test_caches_follow_the_weights_dtype_and_autocast() -> None:
    model, x = tiny(), torch.randn(2, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        cache = model.cache(2, 5)
        parts = [model(part, causal=True, cache=cache) for part in torch.split(x, [3, 1, 1], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(x, causal=True), rtol=0.1, atol=0.1)
    model.bfloat16()
    assert model.cache(2, 5).keys.dtype == torch.bfloat16
    assert model(x.bfloat16(), causal=True, cache=model.cache(2, 5)).dtype == torch.bfloat16


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), padding=st.integers(0, 3))
@torch.no_grad()
def test_a_clip_is_the_same_alone_and_in_a_padded_batch(lengths: list[int], padding: int) -> None:
    model = tiny(stages=3)
    x = torch.randn(len(lengths), max(lengths) + padding, 24) * 10
    stage = torch.randint(3, (len(lengths),))
    batch = model(x, causal=False, num_valid=torch.tensor(lengths), stage=stage)
    assert batch.isfinite().all()
    for i, length in enumerate(lengths):
        same(batch[i : i + 1, :length], model(x[i : i + 1, :length], causal=False, stage=stage[i : i + 1]))


@torch.no_grad()
def test_the_future_changes_the_past_in_bidirectional_passes_alone() -> None:
    model, x = tiny(), torch.randn(2, 9, 24)
    other = torch.cat([x[:, :5], torch.randn(2, 4, 24)], 1)
    same(model(x, causal=True)[:, :5], model(other, causal=True)[:, :5])
    assert (model(x, causal=False) - model(other, causal=False))[:, :5].abs().min(-1).values.max() > 1e-3
    assert not torch.allclose(model(x, causal=True)[:, 5:], model(other, causal=True)[:, 5:], atol=1e-3)


@torch.no_grad()
def test_order_counts() -> None:
    model, x = tiny(), torch.randn(1, 6, 24)
    assert not torch.allclose(model(x.flip(1), causal=False).flip(1), model(x, causal=False), atol=1e-3)


@torch.no_grad()
def test_stages_choose_the_gains_of_every_norm() -> None:
    model, x = tiny(stages=3), torch.randn(2, 6, 24)
    outputs = [model(x, causal=False, stage=torch.full((2,), i)) for i in range(3)]
    assert all((outputs[i] - outputs[j]).abs().max() > 0.1 for i, j in ((0, 1), (0, 2), (1, 2)))
    mixed = model(x, causal=False, stage=torch.tensor([0, 2]))
    same(mixed, torch.stack([outputs[0][0], outputs[2][1]]))

    plain = Transformer(TransformerConfig(**SIZES)).eval()
    staged = Transformer(TransformerConfig(**SIZES, stages=3)).eval()
    shared = {name: weight for name, weight in plain.state_dict().items() if "norm" not in name}
    missing, unexpected = staged.load_state_dict(shared, strict=False)
    assert missing and all(name.endswith("norm.gains.weight") for name in missing) and not unexpected
    same(staged(x, causal=False, stage=torch.tensor([1, 2])), plain(x, causal=False))


def test_what_does_not_go_together_is_refused() -> None:
    model, staged, x, one = tiny(), tiny(stages=2), torch.randn(1, 4, 24), torch.tensor([1])
    with pytest.raises(ValueError, match="this one has 0"):
        model(x, causal=True, stage=one)
    with pytest.raises(ValueError, match="this one has 2"):
        staged(x, causal=False)
    with pytest.raises(ValueError, match="takes no num_valid"):
        model(x, causal=True, num_valid=one)
    with pytest.raises(ValueError, match="without gradients"):
        model(x, causal=True, cache=model.cache(1, 4))
    with torch.no_grad(), pytest.raises(ValueError, match="causal passes"):
        model(x, causal=False, cache=model.cache(1, 4))
    for before, after in ((0, 2), (3, 1)):  # clips of a cache of three that have begun as three
        cache = model.cache(3, 8)
        with torch.no_grad(), pytest.raises(ValueError, match=f"the batch has {after} rows, the cache 3"):
            if before:
                model(x.expand(before, -1, -1), causal=True, cache=cache)
            model(x.expand(after, -1, -1), causal=True, cache=cache)


@pytest.mark.parametrize("changes", [{"heads": 5}, {"heads": 8}, {"heads": 0}, {"layers": 0}, {"stages": -1}])
def test_impossible_sizes_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TransformerConfig(**{**SIZES, **changes})


def test_every_weight_learns_and_begins_small() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(dim=64, layers=8, heads=2, hidden=128, dropout=0.1, stages=2))
    stage, num_valid = torch.tensor([0, 1]), torch.tensor([4, 7])
    x = torch.randn(2, 7, 64, requires_grad=True)
    (model(x, causal=False, num_valid=num_valid, stage=stage) * torch.randn(2, 7, 64)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().max() > 0, name
        if "gains" not in name:
            std = 0.02 / 4 if name.endswith(("out.weight", "down.weight")) else 0.02
            assert float(weight.detach().std()) == pytest.approx(std, rel=0.1), name


def test_dropout_is_for_training_alone() -> None:
    model, x = tiny(dropout=0.5), torch.randn(1, 6, 24)
    assert torch.equal(model(x, causal=True), model(x, causal=True))
    model.train()
    assert not torch.allclose(model(x, causal=True), model(x, causal=True), atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_transformers_loads_the_export_and_agrees(tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny(rope_theta=500.0)
    embedding = nn.Parameter(torch.randn(50, 24))
    head = embedding if tied else torch.randn(50, 24)
    for name in ("a", "b"):
        export_llama(model, embedding, head, tmp_path / name, max_positions=32)
    files = [tmp_path / name / "model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["tie_word_embeddings"] == tied
    assert config["rope_theta"] == 500 and config["max_position_embeddings"] == 32

    llama = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "a").eval()
    ids = torch.randint(50, (2, 20))
    logits = llama(ids).logits
    same(logits, model(embedding[ids], causal=True) @ head.T)
    assert torch.equal(logits, llama(ids).logits)
    assert torch.equal(model(embedding[ids], causal=True), model(embedding[ids], causal=True))
    assert llama.generate(ids, max_new_tokens=12, do_sample=False).shape == (2, 32)  # no token ends it early


def test_stages_cannot_be_exported(tmp_path: Path) -> None:
    weight = torch.zeros(5, 24)
    with pytest.raises(ValueError, match="stages"):
        export_llama(tiny(stages=2), weight, weight, tmp_path / "llama", 32)
    assert not (tmp_path / "llama").exists()
