"""AR, the autoregressive model: text to RVQ-1 (SpeechTokenizer, arXiv 2308.16692, section 2.4; VALL-E, 2301.02111).

This file holds the network and its training examples; `speaking.py` decodes with it. A clip is one sequence of tokens
from one vocabulary:

    [PROMPT] codes of the voice [TEXT] symbols [SPEECH] symbol codes symbol codes ... [END]

Each symbol of the text is repeated in the speech, before the codes of the frames that speak it. Decoding allows only
the text's next symbol there, so the model decides when a symbol begins, never which one: it cannot skip a word, repeat
one, or speak past the end, even if it was trained on little speech. With `look_ahead` the symbol is followed by the
next one of the text, because the sound of a symbol depends on the one after it, and models learn to look it up in the
text only after a thousand steps or more. Without timings (`timed: false`, as in the papers) the speech is codes only,
and the model must learn all of this.

The voice is the RVQ-1 codes of a prompt, as in the paper. With `all_layers` in the recipe, the codec's vectors of all
layers of the prompt are added to their embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vocable.lm.llama import export_llama
from vocable.lm.timing import PAUSE, Timing
from vocable.lm.transformer import IGNORED, Size, SizeOrNone, Transformer, TransformerConfig
from vocable.training.recipe_file import Positive, Section


@dataclass(frozen=True)
class ARConfig(Section):
    """Sizes and sequence format of an AR."""

    codebook_size: Size  #: number of RVQ-1 codes
    num_symbols: Size  #: size of the symbol table
    transformer: TransformerConfig
    timed: bool = True  #: the speech holds the symbols of the text
    look_ahead: bool = False  #: each symbol in the speech is followed by the next one of the text
    dimension: SizeOrNone = 0  #: channels of the vectors that describe a voice beside its codes; 0: no vectors
    frame_rate: Positive = 50.0  #: frames per second of the codec


class AR(nn.Module):
    """A causal transformer over the joint vocabulary of codes, special tokens and symbols."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config
        size = config.codebook_size
        #: Ids of the special tokens; the ids below are codes, the ids from `first_symbol_id` on are symbols.
        self.prompt_id, self.text_id, self.speech_id, self.end_id, self.pause_id = range(size, size + 5)
        self.first_symbol_id = size + 5
        self.vocabulary_size = self.first_symbol_id + config.num_symbols
        self.embedding = nn.Embedding(self.vocabulary_size, config.transformer.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.voice = nn.Linear(config.dimension, config.transformer.dim, bias=False) if config.dimension else None
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(config.transformer.dim, self.vocabulary_size, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, ids: Tensor, voice: Tensor | None = None) -> Tensor:
        """Return the logits [B, S, V] of the next token at each position.

        ids: int64 [B, S]. voice: the codec's vectors of the prompt's frames, float32 [B, P, D], zero-padded; only if
        the config has a `dimension` D.
        """
        logits: Tensor = self.head(self.transformer(self.embed(ids, voice), causal=True))
        return logits

    def embed(self, ids: Tensor, voice: Tensor | None = None) -> Tensor:
        """Return the transformer's input [B, S, dim]; arguments as in `forward`."""
        x: Tensor = self.embedding(ids)
        if self.voice is None or voice is None:
            return x
        after = ids.shape[1] - 1 - voice.shape[1]  # one token, PROMPT, is before the voice, the rest after it
        return x + nn.functional.pad(self.voice(voice), (0, 0, 1, after))

    def symbol_id(self, symbol: int) -> int:
        """Return the token id of a symbol of the table, or of PAUSE."""
        return self.pause_id if symbol == PAUSE else self.first_symbol_id + symbol

    def prefix(self, symbols: Sequence[int], prompt: Tensor | None) -> list[int]:
        """Return the ids of a sequence up to and with SPEECH. prompt: RVQ-1 of the voice, int64 [P], or None."""
        voice = [] if prompt is None or not len(prompt) else [self.prompt_id, *prompt.tolist()]
        return [*voice, self.text_id, *map(self.symbol_id, symbols), self.speech_id]

    def example(
        self, symbols: Sequence[int], codes: Tensor, timing: Timing | None, prompt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the ids and targets of a training clip, both int64 [S].

        codes: RVQ-1 of the clip, int64 [T]. timing: needed if the model is timed. Targets up to SPEECH are IGNORED,
        and so are tokens of the speech that earlier ones determine.
        """
        prefix = self.prefix(symbols, prompt)
        speech, learned = codes.numpy(), np.ones(len(codes), bool)
        if self.config.timed:
            assert timing is not None
            starts = np.cumsum([0, *timing.frames[:-1]])
            inserted, determined = self._inserted(timing.symbols)
            starts = starts.repeat(len(inserted) // len(starts))
            speech, learned = np.insert(speech, starts, inserted), np.insert(learned, starts, ~determined)
        ids = np.concatenate([prefix, speech, [self.end_id]])
        targets = np.where(np.concatenate([np.zeros(len(prefix), bool), learned, [True]]), ids, IGNORED)
        return torch.from_numpy(ids[:-1]), torch.from_numpy(targets[1:])

    def _inserted(self, symbols: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids inserted before each symbol's frames, and which of them earlier tokens determine.

        symbols: of the timing, PAUSE among them. With look_ahead there are two ids per symbol, its own and that of the
        text's next symbol, which the text determines; without, there is one.
        """
        ids = np.array([self.symbol_id(symbol) for symbol in symbols])
        if not self.config.look_ahead:
            return ids, np.zeros(len(ids), bool)
        next_ids, following = [], self.end_id
        for symbol in reversed(symbols):
            next_ids.append(following)
            following = following if symbol == PAUSE else self.symbol_id(symbol)
        return np.stack([ids, next_ids[::-1]], 1).ravel(), np.tile([False, True], len(ids))

    def export_llama(self, folder: Path, max_positions: int = 4096) -> None:
        """Write a folder that transformers loads as LlamaForCausalLM, over the joint vocabulary.

        Raises ValueError for a model that reads vectors of a voice.
        """
        if self.voice is not None:
            raise ValueError("a model that reads vectors of a voice cannot be exported: Llama reads ids only")
        export_llama(self.transformer, self.embedding.weight, self.head.weight, folder, max_positions)
