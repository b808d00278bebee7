"""The non-autoregressive model: a voice's layers over RVQ-1, each from those below (arXiv 2308.16692, section 2.4).

It reads the prompt's frames, all layers of them, and behind them the target's frames with the layers that are there,
and says the next layer of the target, all frames at once. What a frame holds is the sum of its code vectors, as the
codec gives it to its decoder; and, where a timing is known, the symbol that it speaks. Which layer is asked for is a
stage, a gain of every norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vocable.codec.base import Codec
from vocable.lm.sampling import Sampling, draw
from vocable.lm.transformer import Transformer, TransformerConfig

#: Frames that are filled in at once, and that are read on either side of them: no more than clips of training have.
PIECE, CONTEXT = 600, 50
GUIDANCE = 2.0  #: on dev half as many words are lost as without, at 0.3 DistillMOS; at 1 a quarter fewer, at 0.15
UNKNOWN = 0  #: the symbol of a frame whose symbol is not known; others are one higher than in their table


def codebooks_of(codec: Codec) -> Tensor:
    """The vectors of all of a codec's codes: float32 [K, N, D]. Raises ValueError for layers of different sizes."""
    if len(set(codec.codebook_sizes)) > 1:
        raise ValueError(f"language models need layers of one codebook size, this codec has {codec.codebook_sizes}")
    return torch.stack([codec.codebook(layer) for layer in range(codec.num_quantizers)])


@dataclass(frozen=True)
class NARConfig:
    num_quantizers: int
    codebook_size: int
    dimension: int  #: of the codec's code vectors
    num_symbols: int
    transformer: TransformerConfig  #: with a stage for each layer but the first


class NAR(nn.Module):
    """Predicts layer k from layers 0 to k - 1, k from 1."""

    codebooks: Tensor
    answers: Tensor

    def __init__(self, config: NARConfig, codebooks: Tensor) -> None:
        """codebooks: the codec's, float32 [K, N, D]; they are not trained here, and not saved."""
        super().__init__()
        self.config = config
        dim = config.transformer.dim
        if config.transformer.stages != config.num_quantizers - 1:
            raise ValueError(
                f"{config.num_quantizers} layers have a stage each but the first, not {config.transformer.stages}"
            )
        self.set_codebooks(codebooks)
        self.vectors = nn.Linear(config.dimension, dim)
        self.symbols = nn.Embedding(config.num_symbols + 2, dim)  # unknown, pause, and those of the table
        self.part = nn.Embedding(2, dim)  # prompt, target
        for embedding in (self.symbols, self.part):
            nn.init.normal_(embedding.weight, std=0.3)  # about as large as the vectors that they are added to
        self.transformer = Transformer(config.transformer)
        #: A code's score is what its own vector and what the model expects have in common: 1,024 codes a layer need no
        #: 1,024 rows of weights. The vectors are brought to one size, as those of late layers are small.
        self.expect = nn.Parameter(torch.empty(config.num_quantizers - 1, dim, config.dimension))
        nn.init.normal_(self.expect, std=0.005)  # all codes are about as likely, to begin with
        self.bias = nn.Parameter(torch.zeros(config.num_quantizers - 1, config.codebook_size))

    def set_codebooks(self, codebooks: Tensor) -> None:
        """Take the codec's vectors, float32 [K, N, D]."""
        self.register_buffer("codebooks", codebooks, persistent=False)
        sizes = codebooks[1:].std((1, 2), keepdim=True)
        self.register_buffer("answers", (codebooks[1:] / sizes).transpose(1, 2), persistent=False)

    def forward(
        self, prompt: Tensor, num_prompt: Tensor, codes: Tensor, num_frames: Tensor, symbols: Tensor, stage: Tensor
    ) -> Tensor:
        """Scores of layer stage + 1 of every target frame, [B, T, N].

        prompt: int64 [B, K, P], num_prompt: int64 [B]; codes: int64 [B, K, T], of which the layers up to the stage are
        read, num_frames: int64 [B]; symbols: int64 [B, T]; stage: int64 [B], from 0. All right-padded.
        """
        before, width = prompt.shape[2], codes.shape[2]
        # Prompt and target stand one behind the other without a gap, so that padding is at the end alone.
        position = torch.arange(before + width, device=codes.device).expand(len(codes), -1)
        is_target = position >= num_prompt[:, None]
        own = (position - num_prompt[:, None]).clamp(0, width - 1)
        source = torch.where(is_target, before + own, position)
        above = torch.full_like(stage, self.config.num_quantizers)
        given = torch.cat([self._vectors(prompt, above), self._vectors(codes, stage)], 1)
        x = self.vectors(given.gather(1, source[..., None].expand(-1, -1, given.shape[2])))
        said = self.symbols(symbols.gather(1, own)) * is_target[..., None]
        x = x + self.part(is_target.long()) + said
        x = self.transformer(x, causal=False, num_valid=num_prompt + num_frames, stage=stage)
        place = num_prompt[:, None] + torch.arange(width, device=x.device)
        x = x.gather(1, place[..., None].expand(-1, -1, x.shape[2]))
        scores: Tensor = x @ self.expect[stage] @ self.answers[stage] + self.bias[stage][:, None]
        return scores

    def _vectors(self, codes: Tensor, stage: Tensor) -> Tensor:
        """The sums of the layers' vectors up to each clip's stage: int64 [B, K, T] -> float32 [B, T, D]."""
        total = torch.zeros((), device=codes.device)
        for k in range(self.config.num_quantizers):
            total = total + self.codebooks[k][codes[:, k]] * (stage >= k)[:, None, None]
        return total

    @torch.inference_mode()
    def fill(
        self,
        semantic: Tensor,
        prompt: Tensor | None = None,
        symbols: Sequence[int] | None = None,
        *,
        guidance: float = GUIDANCE,
        sampling: Sampling = Sampling(temperature=0.0),
        seed: int = 0,
    ) -> Tensor:
        """All layers of a clip of any length: RVQ-1 int64 [T], the voice's codes int64 [K, P] or None -> int64 [K, T].

        symbols: of each frame, -1 a pause, or None where they are not known. guidance: where they are, how far scores
        are moved on, away from those of RVQ-1 without voice and symbols, which training knows too (classifier-free
        guidance: arXiv 2207.12598); 0: not at all, in half the time. Raises ValueError for one below 0 or without end.
        """
        if not 0 <= guidance < math.inf:
            raise ValueError(f"guidance is 0 or more, not {guidance}")
        device, layers = self.codebooks.device, self.config.num_quantizers
        generator = torch.Generator().manual_seed(seed)
        voice = torch.zeros(layers, 0, dtype=torch.int64) if prompt is None else prompt
        spoken = frame_symbols(symbols, len(semantic)).to(device)
        guidance = 0.0 if symbols is None else guidance
        pieces = []
        for start in range(0, len(semantic), PIECE):
            begin, stop = max(0, start - CONTEXT), start + PIECE
            window = slice(begin, stop + CONTEXT)
            content = semantic[window].to(device)
            codes = self._fill(content, voice.to(device), spoken[window], guidance, sampling, generator)
            pieces.append(codes[:, start - begin : stop - begin])
        return torch.cat(pieces, 1)

    def _fill(
        self,
        semantic: Tensor,
        voice: Tensor,
        symbols: Tensor,
        guidance: float,
        sampling: Sampling,
        generator: torch.Generator,
    ) -> Tensor:
        """RVQ-1 and symbols int64 [T], the prompt's codes int64 [K, P] -> int64 [K, T]."""
        codes = semantic.repeat(self.config.num_quantizers, 1)  # those that are not there yet are not read
        untold = torch.full_like(symbols, UNKNOWN)
        for stage in range(self.config.num_quantizers - 1):
            scores = self._one(voice, codes, symbols, stage)
            if guidance:
                scores += guidance * (scores - self._one(voice[:, :0], codes, untold, stage))
            codes[stage + 1] = draw(scores, sampling, generator)
        return codes

    def _one(self, voice: Tensor, codes: Tensor, symbols: Tensor, stage: int) -> Tensor:
        """Scores [T, N] of one clip."""
        sizes = torch.tensor([voice.shape[1], codes.shape[1], stage], device=codes.device)[:, None]
        scores: Tensor = self(voice[None], sizes[0], codes[None], sizes[1], symbols[None], sizes[2])[0]
        return scores


def sum_of(codebooks: Tensor, codes: Tensor) -> Tensor:
    """The summed vectors of all layers: int64 [K, T] -> float32 [T, D]."""
    rows = torch.arange(len(codes), device=codes.device)[:, None]
    return codebooks[rows, codes].sum(0)


def frame_symbols(symbols: Sequence[int] | None, frames: int) -> Tensor:
    """Symbols of frames, -1 a pause, as the model counts them: int64 [T]."""
    if symbols is None:
        return torch.full((frames,), UNKNOWN)
    assert len(symbols) == frames
    return torch.tensor(symbols) + 2  # -1, a pause, is 1
