"""AR: the sequence of a training clip, and the export to transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vocable.lm.ar import AR, ARConfig
from vocable.lm.timing import PAUSE, Timing
from vocable.lm.transformer import IGNORED, TransformerConfig

SIZE, SYMBOLS = 12, 6


def make(timed: bool = True, seed: int = 0, look_ahead: bool = False) -> AR:
    torch.manual_seed(seed)
    transformer = TransformerConfig(dim=32, layers=2, heads=2, hidden=48)
    return AR(ARConfig(SIZE, SYMBOLS, transformer, timed, look_ahead)).eval()


def test_the_sequence_of_a_clip() -> None:
    model = make()
    timing = Timing([PAUSE, 3, 1], [1, 2, 1])
    inputs, targets = model.example([3, 1], torch.tensor([7, 8, 9, 5]), timing, torch.tensor([2, 4]))
    symbol = model.first_symbol_id
    speech = [model.pause_id, 7, symbol + 3, 8, 9, symbol + 1, 5]
    before = [model.prompt_id, 2, 4, model.text_id, symbol + 3, symbol + 1, model.speech_id]
    assert inputs.tolist() == before + speech
    assert targets.tolist() == [IGNORED] * 6 + [*speech, model.end_id]
    ahead = make(look_ahead=True)
    inputs, targets = ahead.example([3, 1], torch.tensor([7, 8, 9, 5]), timing, None)
    speech = [model.pause_id, symbol + 3, 7, symbol + 3, symbol + 1, 8, 9, symbol + 1, model.end_id, 5]
    assert inputs.tolist()[4:] == speech
    assert targets.tolist()[3:] == [IGNORED if i in (1, 4, 8) else id for i, id in enumerate(speech)] + [model.end_id]
    plain, learned = make(timed=False).example([3, 1], torch.tensor([7, 8]), None, None)
    assert plain.tolist() == [model.text_id, symbol + 3, symbol + 1, model.speech_id, 7, 8]
    assert learned.tolist()[-3:] == [7, 8, model.end_id]


def test_transformers_takes_it_from_here(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="comes with vocable[train]")
    model = make()
    model.export_llama(tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    ids = torch.randint(model.vocabulary_size, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids).logits, model(ids), atol=1e-5, rtol=0)
