"""The non-autoregressive model: batches, what it reads, and that it learns a voice's layers."""

from __future__ import annotations

import pytest
import torch

from vocable.lm.nar import NAR, NARConfig, frame_symbols
from vocable.lm.transformer import IGNORED, TransformerConfig, cross_entropy

LAYERS, SIZE, D = 4, 10, 6


def make(seed: int = 0) -> NAR:
    torch.manual_seed(seed)
    transformer = TransformerConfig(dim=32, layers=2, heads=2, hidden=48, stages=LAYERS - 1)
    return NAR(NARConfig(LAYERS, SIZE, D, 5, transformer), torch.randn(LAYERS, SIZE, D)).eval()


def codes(frames: int, seed: int) -> torch.Tensor:
    return torch.randint(SIZE, (LAYERS, frames), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_clip_is_the_same_alone_and_in_a_batch() -> None:
    model = make()
    clips = [(codes(5, 1), codes(9, 2), 0), (codes(3, 3), codes(12, 4), 2), (codes(1, 5), codes(4, 6), 1)]

    alone, rows = [], []
    for prompt, target, stage in clips:
        symbols = frame_symbols([-1, *range(4)] * 3, 15)[: target.shape[1]]
        rows.append((prompt.T, target.T, symbols, stage))
        sizes = torch.tensor([prompt.shape[1]]), torch.tensor([target.shape[1]])
        alone.append(model(prompt[None], sizes[0], target[None], sizes[1], symbols[None], torch.tensor([stage]))[0])
        hidden = target.clone()
        hidden[stage + 1 :] = 0  # what is to be said is not read
        again = model(prompt[None], sizes[0], hidden[None], sizes[1], symbols[None], torch.tensor([stage]))[0]
        assert torch.equal(again, alone[-1])
    pad = torch.nn.utils.rnn.pad_sequence
    p, t, s = (pad([row[i] for row in rows], batch_first=True, padding_value=1) for i in range(3))
    sizes = [torch.tensor([len(row[i]) for row in rows]) for i in range(2)]
    stages = torch.tensor([row[3] for row in rows])
    batch = model(p.transpose(1, 2), sizes[0], t.transpose(1, 2), sizes[1], s, stages)
    for one, row in zip(alone, batch, strict=True):
        torch.testing.assert_close(row[: len(one)], one, atol=1e-5, rtol=0)


def test_filling_keeps_rvq_1_and_reads_everything_it_is_given() -> None:
    model, semantic, prompt = make(), codes(8, 1)[0], codes(6, 2)
    with torch.no_grad():
        for parameter in model.parameters():  # random weights as they come hardly tell one input from another
            parameter *= 8
    symbols = [0, 0, 1, 1, -1, 2, 2, 2]
    filled = model.fill(semantic, prompt, symbols)
    assert filled.shape == (LAYERS, 8) and torch.equal(filled[0], semantic)
    assert torch.equal(model.fill(semantic, prompt, symbols), filled)
    for other in (model.fill(semantic, codes(6, 3), symbols), model.fill(semantic, prompt), model.fill(semantic)):
        assert other.shape == filled.shape and not torch.equal(other, filled)


@torch.no_grad()
def test_guidance_leads_away_from_what_neither_voice_nor_text_tells() -> None:
    model, semantic, prompt, symbols = make(), codes(8, 1)[0], codes(6, 2), [0, 0, 1, 1, -1, 2, 2, 2]
    for parameter in model.parameters():
        parameter *= 8
    sizes, first, spoken = torch.tensor([6, 8]), torch.tensor([0]), frame_symbols(symbols, 8)[None]
    target = semantic.expand(1, LAYERS, -1)
    told = model(prompt[None], sizes[:1], target, sizes[1:], spoken, first)
    untold = model(prompt[None, :, :0], first, target, sizes[1:], frame_symbols(None, 8)[None], first)
    for guidance in (0.0, 1.5):
        expected = ((1 + guidance) * told - guidance * untold)[0].argmax(-1)
        assert torch.equal(model.fill(semantic, prompt, symbols, guidance=guidance)[1], expected)
    assert not torch.equal(expected, told[0].argmax(-1))
    plain, guided = (model.fill(semantic, prompt, guidance=guidance) for guidance in (0.0, 9.0))
    assert torch.equal(plain, guided), "a voice alone leads to no clearer words"


def test_it_learns_layers_that_hang_on_the_voice() -> None:
    """Layer k is RVQ-1 shifted by the voice, which only the prompt tells."""
    model = make().train()
    generator = torch.Generator().manual_seed(0)

    def clip(voice: int, frames: int) -> torch.Tensor:
        first = torch.randint(SIZE, (frames,), generator=generator)
        return torch.stack([(first + k * voice) % SIZE for k in range(LAYERS)])

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(350):
        voices = torch.randint(3, (16,), generator=generator).tolist()
        prompts, targets = ([clip(v, n) for v in voices] for n in (6, 8))
        stage = torch.randint(LAYERS - 1, (16,), generator=generator)
        wanted = torch.stack([t[k + 1] for t, k in zip(targets, stage.tolist(), strict=True)])
        unknown = torch.stack([frame_symbols(None, 8)] * 16)
        scores = model(
            torch.stack(prompts), torch.full((16,), 6), torch.stack(targets), torch.full((16,), 8), unknown, stage
        )
        loss = cross_entropy(scores, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    right = [(model.fill(t[0], clip(v, 6)) == t)[1:].float().mean() for v in range(3) for t in [clip(v, 30)]]
    assert torch.stack(right).mean() > 0.9


def test_long_clips_are_written_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    for parameter in model.parameters():
        parameter.data *= 8
    first, prompt = codes(21, 1)[0], codes(6, 2)
    symbols = [i % 5 - 1 for i in range(21)]

    def fill(start: int, stop: int) -> torch.Tensor:
        return model.fill(first[start:stop], prompt, symbols[start:stop])

    windows = [fill(0, 12)[:, :8], fill(4, 20)[:, 4:12], fill(12, 21)[:, 4:]]
    without_context = torch.cat([fill(0, 8), fill(8, 16), fill(16, 21)], 1)
    monkeypatch.setattr("vocable.lm.nar.CHUNK", 8 / 50)
    monkeypatch.setattr("vocable.lm.nar.CONTEXT", 4 / 50)
    assert torch.equal(fill(0, 21), torch.cat(windows, 1))
    assert not torch.equal(fill(0, 21), without_context)
    assert not torch.equal(fill(0, 21), model.fill(first, None, symbols))


def test_targets_behind_a_clip_count_nothing() -> None:
    scores = torch.randn(2, 3, SIZE)
    targets = torch.tensor([[1, 2, 3], [4, IGNORED, IGNORED]])
    rows = torch.cat([scores[0], scores[1, :1]])
    assert cross_entropy(scores, targets) == pytest.approx(
        float(cross_entropy(rows[None], torch.tensor([[1, 2, 3, 4]])))
    )
