"""NAR, the non-autoregressive model: writes the layers above RVQ-1 in a voice (arXiv 2308.16692, section 2.4).

It predicts one layer at a time, all frames in parallel: layer k from layers 0 to k - 1. Its input is one sequence: the
frames of the prompt with all their layers, then the frames of the target with the layers that are known. The input of a
frame is the sum of its codebook vectors, as the codec's decoder gets it; if the timing of the text is known, the symbol
of the frame is added. Which layer to predict is the stage of the transformer: stage k - 1 for layer k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vocable.codec.base import Codec
from vocable.lm.cancelling import IsCancelled, stop_if_cancelled
from vocable.lm.sampling import Sampling, draw
from vocable.lm.transformer import Size, Transformer, TransformerConfig
from vocable.training.recipe_file import Positive, Section

#: Seconds that are written at once, and seconds of context on both sides: together no more than training clips have.
CHUNK, CONTEXT = 12.0, 1.0
#: Default guidance. On the development set it halves the word errors, at a loss of 0.3 DistillMOS; 1 saves a quarter of
#: them, at 0.15.
GUIDANCE = 2.0
UNKNOWN = 0  #: input id of a frame whose symbol is unknown; 1 is a pause, and symbols follow from 2 on


def codebooks_of(codec: Codec) -> Tensor:
    """Return the vectors of all codes, float32 [K, N, D]. Raises ValueError if the layers have different sizes."""
    if len(set(codec.codebook_sizes)) > 1:
        raise ValueError(f"language models need layers of equal codebook size; this codec has {codec.codebook_sizes}")
    return torch.stack([codec.codebook(layer) for layer in range(codec.num_quantizers)])


def check_guidance(guidance: float) -> None:
    """Raise ValueError unless guidance is 0 or more and finite."""
    if not 0 <= guidance < math.inf:
        raise ValueError(f"guidance must be 0 or more, not {guidance}")


@dataclass(frozen=True)
class NARConfig(Section):
    """Sizes of a NAR."""

    num_quantizers: Size  #: layers K of the codec
    codebook_size: Size  #: codes N of each layer
    dimension: Size  #: channels D of the codec's vectors
    num_symbols: Size  #: size of the symbol table
    transformer: TransformerConfig  #: with K - 1 stages
    frame_rate: Positive = 50.0  #: frames per second of the codec


class NAR(nn.Module):
    """A bidirectional transformer from the prompt and the known layers of the target to the next layer."""

    codebooks: Tensor
    answers: Tensor

    def __init__(self, config: NARConfig, codebooks: Tensor) -> None:
        """codebooks: of the codec, float32 [K, N, D]; they are not trained and not saved."""
        super().__init__()
        self.config = config
        dim = config.transformer.dim
        if config.transformer.stages != config.num_quantizers - 1:
            raise ValueError(
                f"{config.num_quantizers} layers need {config.num_quantizers - 1} stages, "
                f"not {config.transformer.stages}"
            )
        self.set_codebooks(codebooks)
        self.vectors = nn.Linear(config.dimension, dim)
        self.symbols = nn.Embedding(config.num_symbols + 2, dim)  # unknown, pause, and the symbols of the table
        self.part = nn.Embedding(2, dim)  # prompt, target
        for embedding in (self.symbols, self.part):
            nn.init.normal_(embedding.weight, std=0.3)  # about the size of the vectors that they are added to
        self.transformer = Transformer(config.transformer)
        #: The output layer predicts a vector; the logit of a code is the product with the code's own vector. So it does
        #: not need a row of weights per code. The vectors of a layer are scaled to a common size, because those of late
        #: layers are small.
        self.expect = nn.Parameter(torch.empty(config.num_quantizers - 1, dim, config.dimension))
        nn.init.normal_(self.expect, std=0.005)  # small, so that all codes are about equally likely at first
        self.bias = nn.Parameter(torch.zeros(config.num_quantizers - 1, config.codebook_size))

    def set_codebooks(self, codebooks: Tensor) -> None:
        """Set the codec's vectors, float32 [K, N, D]."""
        self.register_buffer("codebooks", codebooks, persistent=False)
        sizes = codebooks[1:].std((1, 2), keepdim=True)
        self.register_buffer("answers", (codebooks[1:] / sizes).transpose(1, 2), persistent=False)

    def forward(
        self, prompt: Tensor, num_prompt: Tensor, codes: Tensor, num_frames: Tensor, symbols: Tensor, stage: Tensor
    ) -> Tensor:
        """Return the logits of layer stage + 1 of every target frame, [B, T, N].

        prompt: int64 [B, K, P], of num_prompt frames, int64 [B]. codes: of the target, int64 [B, K, T], of num_frames
        frames, int64 [B]; only layers 0 to stage are read. symbols: input ids of the target's frames
        (`frame_symbols`), int64 [B, T]. stage: int64 [B], from 0. All are right-padded.
        """
        before, width = prompt.shape[2], codes.shape[2]
        # The target follows the prompt without a gap, so that all padding is at the end.
        position = torch.arange(before + width, device=codes.device).expand(len(codes), -1)
        is_target = position >= num_prompt[:, None]
        target_frame = (position - num_prompt[:, None]).clamp(0, width - 1)
        source = torch.where(is_target, before + target_frame, position)
        all_layers = torch.full_like(stage, self.config.num_quantizers)
        known = torch.cat([self._embed(prompt, all_layers), self._embed(codes, stage)], 1)
        x = self.vectors(known.gather(1, source[..., None].expand(-1, -1, known.shape[2])))
        spoken = self.symbols(symbols.gather(1, target_frame)) * is_target[..., None]
        x = x + self.part(is_target.long()) + spoken
        x = self.transformer(x, causal=False, num_valid=num_prompt + num_frames, stage=stage)
        target = num_prompt[:, None] + torch.arange(width, device=x.device)
        x = x.gather(1, target[..., None].expand(-1, -1, x.shape[2]))
        logits: Tensor = x @ self.expect[stage] @ self.answers[stage] + self.bias[stage][:, None]
        return logits

    def _embed(self, codes: Tensor, stage: Tensor) -> Tensor:
        """Sum the vectors of layers 0 to each clip's stage: int64 [B, K, T] -> float32 [B, T, D]."""
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
        cancelled: IsCancelled | None = None,
    ) -> Tensor:
        """Write all layers of a clip of any length, chunk by chunk: RVQ-1 int64 [T] -> int64 [K, T].

        prompt: codes of the voice, int64 [K, P]. symbols: of each frame, PAUSE among them; None if unknown.
        guidance: weight of classifier-free guidance (arXiv 2207.12598): logits are moved by it away from those without
        prompt and symbols, which training also uses. 0 takes half the time; without symbols there is no guidance.
        cancelled: asked before each layer of each chunk. Raises ValueError unless guidance is 0 or more and finite, and
        `Cancelled`.
        """
        check_guidance(guidance)
        device, layers = self.codebooks.device, self.config.num_quantizers
        generator = torch.Generator().manual_seed(seed)
        voice = torch.zeros(layers, 0, dtype=torch.int64) if prompt is None else prompt
        spoken = frame_symbols(symbols, len(semantic)).to(device)
        guidance = 0.0 if symbols is None else guidance
        chunk, context = (round(seconds * self.config.frame_rate) for seconds in (CHUNK, CONTEXT))
        chunks = []
        for start in range(0, len(semantic), chunk):
            begin, stop = max(0, start - context), start + chunk
            window = slice(begin, stop + context)
            codes = self._fill_chunk(
                semantic[window].to(device),
                voice.to(device),
                spoken[window],
                guidance=guidance,
                sampling=sampling,
                generator=generator,
                cancelled=cancelled,
            )
            chunks.append(codes[:, start - begin : stop - begin])
        return torch.cat(chunks, 1)

    def _fill_chunk(
        self,
        semantic: Tensor,
        voice: Tensor,
        symbols: Tensor,
        *,
        guidance: float,
        sampling: Sampling,
        generator: torch.Generator,
        cancelled: IsCancelled | None,
    ) -> Tensor:
        """Write all layers: RVQ-1 and symbols int64 [T], codes of the voice int64 [K, P] -> int64 [K, T]."""
        codes = semantic.repeat(self.config.num_quantizers, 1)  # layers above the stage are not read
        unknown = torch.full_like(symbols, UNKNOWN)
        for stage in range(self.config.num_quantizers - 1):
            stop_if_cancelled(cancelled)
            logits = self._clip_logits(voice, codes, symbols, stage)
            if guidance:
                logits += guidance * (logits - self._clip_logits(voice[:, :0], codes, unknown, stage))
            codes[stage + 1] = draw(logits, sampling, generator)
        return codes

    def _clip_logits(self, voice: Tensor, codes: Tensor, symbols: Tensor, stage: int) -> Tensor:
        """Run `forward` for one clip; returns logits [T, N]."""
        sizes = torch.tensor([voice.shape[1], codes.shape[1], stage], device=codes.device)[:, None]
        logits: Tensor = self(voice[None], sizes[0], codes[None], sizes[1], symbols[None], sizes[2])[0]
        return logits


def frame_symbols(symbols: Sequence[int] | None, frames: int) -> Tensor:
    """Convert the symbol of each frame, or None, to NAR's input ids: int64 [T]."""
    if symbols is None:
        return torch.full((frames,), UNKNOWN)
    assert len(symbols) == frames
    return torch.tensor(symbols) + 2  # PAUSE, which is -1, becomes 1
