"""The aligner: a small CTC recognizer on a codec's vectors, which finds the frames of each symbol of a text.

A language model cannot learn from a few hours of speech which frames speak which symbol. The aligner is trained in
minutes on the same speech and texts, in any language, without a lexicon or another recognizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vocable.codec.base import Codec
from vocable.lm.batching import draw_similar_lengths
from vocable.lm.recipe import AlignerRecipe
from vocable.lm.timing import Timing, best_path, timing_of_path
from vocable.lm.transformer import Size
from vocable.training.precision import autocast
from vocable.training.recipe_file import Section

LAYERS, KERNEL, DROPOUT = 5, 7, 0.1
RECEPTIVE_FIELD = LAYERS * (KERNEL // 2)  #: frames to each side of a frame that its scores depend on
CLIP_NORM = 1.0  #: largest norm of the gradient in training


@dataclass(frozen=True)
class AlignerConfig(Section):
    """Sizes of an aligner."""

    dimension: Size  #: channels of the codec's vectors
    num_symbols: Size  #: size of the symbol table
    hidden: Size = 256  #: channels of the convolutions


class Aligner(nn.Module):
    """A convolutional network from codec vectors to scores of symbols.

    It is convolutional so that a symbol is recognized in the frames that speak it; a recurrent network may recognize it
    much later.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: AlignerConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.register_buffer("mean", torch.zeros(config.dimension))
        self.register_buffer("deviation", torch.ones(config.dimension))
        self.first = nn.Linear(config.dimension, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(LAYERS))
        self.convs = nn.ModuleList(nn.Conv1d(hidden, hidden, KERNEL, padding=KERNEL // 2) for _ in range(LAYERS))
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(hidden, config.num_symbols + 1)

    def forward(self, vectors: Tensor, num_frames: Tensor) -> Tensor:
        """Return log-probabilities float32 [B, T, symbols + 1]; the last one is CTC's blank.

        vectors: float32 [B, T, D], right-padded. num_frames: valid frames of each clip, int64 [B].
        """
        inside = (torch.arange(vectors.shape[1], device=vectors.device) < num_frames[:, None])[..., None]
        x = self.first((vectors - self.mean) / self.deviation)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv((norm(x) * inside).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(nn.functional.gelu(y))
        return self.head(x).float().log_softmax(-1)  # type: ignore[no-any-return]

    def loss(self, vectors: Tensor, num_frames: Tensor, symbols: Tensor, num_symbols: Tensor) -> Tensor:
        """Return the CTC loss (Graves et al. 2006) in nats per symbol, the mean over clips.

        vectors, num_frames: as in `forward`. symbols: texts, int64 [B, S], right-padded. num_symbols: int64 [B].
        """
        scores = self(vectors, num_frames)
        return self._ctc(scores, num_frames, symbols, num_symbols, zero_infinity=True).mean()

    @torch.inference_mode()
    def align(self, vectors: Tensor, symbols: list[int], frame_rate: float) -> Timing:
        """Find the timing of `symbols` in one clip, float32 [T, D] at `frame_rate` frames per second.

        Raises ValueError for a clip with too few frames for the symbols.
        """
        scores = self(vectors[None], torch.tensor([len(vectors)], device=vectors.device))[0]
        return timing_of_path(best_path(scores.cpu().numpy(), symbols), symbols, frame_rate)

    @torch.inference_mode()
    def log_likelihood(self, scores: Tensor, num_frames: Tensor, symbols: Tensor, num_symbols: Tensor) -> Tensor:
        """Return CTC's log-likelihood of a text in each clip, divided by its number of symbols: float32 [B].

        scores: output of `forward`. The other arguments are as in `loss`, and num_frames may be 0. The result is -inf
        for clips with too few frames for their text, and for an empty text.
        """
        return -self._ctc(scores, num_frames, symbols, num_symbols).masked_fill(num_symbols == 0, torch.inf)

    def _ctc(
        self, scores: Tensor, num_frames: Tensor, symbols: Tensor, num_symbols: Tensor, zero_infinity: bool = False
    ) -> Tensor:
        """Return the CTC loss of each clip in nats per symbol, [B]."""
        blank = self.config.num_symbols
        nats = nn.functional.ctc_loss(
            scores.transpose(0, 1), symbols, num_frames, num_symbols, blank, "none", zero_infinity=zero_infinity
        )
        return nats / num_symbols.clamp(min=1)


def embed_codes(codec: Codec, codes: np.ndarray) -> Tensor:
    """Return the codec's vectors of codes: int16 [K, T] -> float32 [T, D]."""
    return codec.embed(torch.from_numpy(codes.astype(np.int64))[None])[0].T


@torch.random.fork_rng(devices=())
def train_aligner(
    model: Aligner,
    symbols: Mapping[str, list[int]],
    codes: Mapping[str, np.ndarray],
    codec: Codec,
    recipe: AlignerRecipe,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> None:
    """Train an aligner on the CPU.

    symbols: the text of each clip, by the clip's id. codes: of each clip, int16 [K, T]. The seed is fixed, so that runs
    of several seeds learn from the same timings.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    names = sorted(codes, key=lambda name: codes[name].shape[1])
    lengths = np.array([codes[name].shape[1] for name in names])
    sample = torch.cat(
        [embed_codes(codec, codes[names[i]]) for i in rng.integers(len(names), size=min(64, len(names)))]
    )
    model.mean.copy_(sample.mean(0))
    model.deviation.copy_(sample.std(0).clamp_min(1e-5))
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.1)
    model.train()
    for step in range(recipe.steps):
        chosen = [names[i] for i in draw_similar_lengths(lengths, recipe.batch_frames, rng)]
        vectors = [embed_codes(codec, codes[name]) for name in chosen]
        texts = [torch.tensor(symbols[name]) for name in chosen]
        num_frames, num_symbols = (torch.tensor([len(row) for row in rows]) for rows in (vectors, texts))
        with autocast("cpu"):
            loss = model.loss(
                pad_sequence(vectors, batch_first=True), num_frames, pad_sequence(texts, batch_first=True), num_symbols
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        progress("training the aligner", (step + 1) / recipe.steps)
    model.eval()
