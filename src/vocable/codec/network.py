"""The network of a codec: encoder, quantizer, decoder, its training pass, and how weights come into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from vocable.codec import checkpoint
from vocable.codec.checkpoint import Checkpoint, CheckpointError
from vocable.codec.clips import as_batch, lengths_of, silence_after
from vocable.codec.config import CodecConfig
from vocable.codec.identity import Identified
from vocable.codec.layers import Recurrence, frame_mask
from vocable.codec.official import CONFIG
from vocable.codec.rvq import Quantized, ResidualVectorQuantizer
from vocable.codec.seanet import SEANetDecoder, SEANetEncoder
from vocable.codec.spectral import SpectralDecoder, SpectralEncoder
from vocable.codec.staged import Staged
from vocable.codec.weight_norm import fold, unfold, unfolded_shapes

if TYPE_CHECKING:
    from typing_extensions import Self

Parts = Literal["all", "encoder", "decoder"]

#: The encoder and the decoder of each architecture.
_ARCHITECTURES: dict[str, tuple[Callable[[CodecConfig], Staged], Callable[[CodecConfig], Staged]]] = {
    "spectral": (SpectralEncoder, SpectralDecoder),
    "seanet": (SEANetEncoder, SEANetDecoder),
}


@dataclass(frozen=True, eq=False)
class CodecOutput:
    """The result of the training pass. All tensors but `codes` carry gradients."""

    waveform: Tensor  #: float32 [B, L]
    codes: Tensor  #: int64 [B, K, T]
    semantic: Tensor  #: RVQ-1 mapped to the teacher's channels, [B, T, semantic_dimension]
    losses: dict[str, Tensor]  #: "commitment", a scalar
    quantized: Quantized  #: what CodebookEMA.update needs


class CodecNetwork(Identified):
    """Encoder, residual vector quantizer and decoder, with the ids of their weights."""

    encoder: Staged  #: None where it was not loaded, as the decoder
    decoder: Staged

    def __init__(self, config: CodecConfig, parts: Parts = "all") -> None:
        """A codec of random weights. parts: "encoder" builds no decoder, "decoder" no encoder."""
        super().__init__()
        if parts not in ("all", "encoder", "decoder"):
            raise ValueError(f"parts are 'all', 'encoder' or 'decoder', not {parts!r}")
        self.config, self.parts = config, parts
        encoder, decoder = _ARCHITECTURES[config.architecture]
        self.encoder = encoder(config) if parts != "decoder" else None  # type: ignore[assignment]
        self.quantizer = ResidualVectorQuantizer(
            config.num_quantizers, config.codebook_size, config.dimension, config.content_dimension
        )
        self.decoder = decoder(config) if parts != "encoder" else None  # type: ignore[assignment]
        #: Maps RVQ-1 to the teacher's channels; used in training alone.
        self.transform = nn.Linear(config.dimension, config.semantic_dimension)
        #: Number format of its recurrent layers; other than float32 it is for inference alone.
        self.recurrence: Recurrence = "float32"

    @classmethod
    def from_checkpoint(cls, found: Checkpoint, parts: Parts = "all", weight_norm: bool = False) -> Self:
        """Build a codec in float32 on the CPU from a checkpoint.

        parts: "encoder" or "decoder" leaves the other half out. weight_norm: keep weight norm, for training; False
        folds it into the weights, in place. Needs no more memory than the model itself. Raises CheckpointError unless
        the tensors are those of the config.
        """
        check_checkpoint(found)
        # Both now: later the file may hold another model, or be gone, and what is loaded may be a part, or folded.
        ids = found.ids()
        tensors = found.take({"all": (), "encoder": ("decoder.",), "decoder": ("encoder.",)}.get(parts, ()))
        config = found.config.with_weight_norm(weight_norm)
        if config.weight_norm != found.config.weight_norm:
            tensors = unfold(tensors) if weight_norm else fold(tensors)
        with _without_weights():
            model = cls(config, parts)
        model.load_state_dict(tensors, assign=True)
        model.keep_ids(ids)
        return model

    def staged(self, part: Literal["encoder", "decoder"]) -> Staged:
        """Return the encoder or the decoder. Raises ValueError for one that was not loaded."""
        found: Staged | None = getattr(self, part)
        if found is None:
            raise ValueError(f"this codec was loaded without its {part}: load it with parts='all'")
        return found

    def train(self, mode: bool = True) -> Self:
        """Set training mode, as of any module. A codec of reduced recurrence stays in evaluation mode."""
        super().train(mode and self.recurrence == "float32")
        return self

    @property
    def id(self) -> str:
        """The config's name and a hash of config and weights: those of the files that a codec was loaded from.

        It is kept as long as the weights stay (a new hash takes 0.4 s for `paper`). Raises ValueError for a codec that
        was loaded in parts and whose weights have changed.
        """
        return self._hashed("id")

    @property
    def token_id(self) -> str:
        """A hash of what decides codes, encoder and quantizer; tokens name it, and codecs that share it share tokens.

        Kept as the id is, as long as encoder and quantizer stay.
        """
        return self._hashed("token_id")

    def weights_of(self, name: str) -> list[Tensor]:
        """Return the weights that "id" or "token_id" names, of the parts that are loaded."""
        left_out = () if name == "id" else ("decoder.", "transform.")
        weights = [p for key, p in self.named_parameters() if not key.startswith(left_out)]
        return [*weights, self.quantizer.codebooks]

    def _hashed(self, name: str) -> str:
        def compute() -> str:
            if self.parts == "decoder" or (self.parts == "encoder" and name == "id"):
                raise ValueError(
                    f"this codec holds its {self.parts} alone, and its weights have changed: its {name} takes all parts"
                )
            return (checkpoint.codec_id if name == "id" else checkpoint.token_id)(self.config, self.state_dict())

        return self.id_of_weights(name, compute)

    def forward(
        self, waveform: Tensor, num_samples: Tensor | None = None, num_layers: Tensor | None = None
    ) -> CodecOutput:
        """The differentiable pass: gradients go straight through the quantizer, to the waveform too.

        waveform: float [B, L] or [B, 1, L]. num_samples: int [B], valid samples of each row; what lies behind them is
        not used. num_layers: int [B], how many layers each clip is decoded from (quantizer dropout). Codebooks are not
        changed: that is CodebookEMA's work.
        """
        waveform = as_batch(waveform, num_samples)
        batch, samples = waveform.shape
        lengths = lengths_of(num_samples, batch, samples)
        if int(lengths.min()) < 1 or int(lengths.max()) > samples:
            raise ValueError(f"num_samples must be 1 to {samples}, not {lengths.tolist()}")
        frames = -(-lengths // self.config.hop_length)
        latents = self.staged("encoder")(silence_after(waveform, lengths), lengths)
        quantized = self.quantizer(latents, frame_mask(frames, latents.shape[1], latents), num_layers)
        return CodecOutput(
            waveform=silence_after(self.staged("decoder")(quantized.latents, frames)[:, :samples], lengths),
            codes=quantized.codes,
            semantic=self.transform(quantized.first.to(self.transform.weight.dtype)),
            losses={"commitment": quantized.commitment_loss},
            quantized=quantized,
        )


def check_checkpoint(found: Checkpoint) -> None:
    """Raise CheckpointError unless a checkpoint's tensors are those of its config."""
    try:
        # Without weight norm, whose constructor is one of those that import torch's compiler on the meta device.
        with _without_weights():
            empty = CodecNetwork(found.config.with_weight_norm(False))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{found.source}: its {CONFIG} is not a codec's ({error})") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    found.check(unfolded_shapes(shapes) if found.config.weight_norm else shapes)


def _without_weights() -> torch.device:
    """The meta device, on which modules have no weights: random ones would take seconds, and twice the memory.

    Some of torch's operators on the meta device import its compiler, which takes a second and 74 MiB. Randn, arange
    and weight norm are among them, so the constructors of a codec do without them.
    """
    return torch.device("meta")
