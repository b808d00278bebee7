"""`CodecNetwork`: encoder, quantizer and decoder, the training pass, and loading from a checkpoint."""

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
    quantized: Quantized  #: the input of CodebookEMA.update


class CodecNetwork(Identified):
    """Encoder, residual vector quantizer and decoder, with the ids of their weights."""

    encoder: Staged  #: None if only the decoder was loaded
    decoder: Staged  #: None if only the encoder was loaded

    def __init__(self, config: CodecConfig, parts: Parts = "all") -> None:
        """Build a codec with random weights. parts: "encoder" builds no decoder, "decoder" no encoder."""
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
        #: Map from RVQ-1 to the teacher's channels, used only in training.
        self.transform = nn.Linear(config.dimension, config.semantic_dimension)
        #: Number format of the weights of the recurrent layers; formats other than float32 are for inference only.
        self.recurrence: Recurrence = "float32"

    @classmethod
    def from_checkpoint(cls, found: Checkpoint, parts: Parts = "all", weight_norm: bool = False) -> Self:
        """Build a codec in float32 on the CPU from a checkpoint.

        parts: "encoder" or "decoder" loads that part and the quantizer only. weight_norm: True keeps weight norm, for
        training; False folds it into the weights, in place. Raises CheckpointError if the tensors do not fit the
        config.
        """
        check_checkpoint(found)
        # Both ids are computed now: later the file may be changed or gone, and the loaded weights partial or folded.
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
        """Return the encoder or the decoder. Raises ValueError if it was not loaded."""
        found: Staged | None = getattr(self, part)
        if found is None:
            raise ValueError(f"this codec was loaded without its {part}: load it with parts='all'")
        return found

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. A codec with bfloat16 recurrent layers stays in evaluation mode."""
        super().train(mode and self.recurrence == "float32")
        return self

    @property
    def id(self) -> str:
        """NAME-HASH; the hash is that of the config and the weights of the files that the codec was loaded from.

        The id is cached until the weights change; hashing takes 0.4 s for `paper`. Raises ValueError if the weights of
        a partly loaded codec have changed.
        """
        return self._hashed("id")

    @property
    def token_id(self) -> str:
        """A hash of encoder and quantizer, which is stored in token files; codecs with the same token id share tokens.

        It is cached until the weights of encoder or quantizer change.
        """
        return self._hashed("token_id")

    def weights_of(self, name: str) -> list[Tensor]:
        """Return the loaded weights that the id `name`, "id" or "token_id", depends on."""
        left_out = () if name == "id" else ("decoder.", "transform.")
        weights = [p for key, p in self.named_parameters() if not key.startswith(left_out)]
        return [*weights, self.quantizer.codebooks]

    def _hashed(self, name: str) -> str:
        def compute() -> str:
            if self.parts == "decoder" or (self.parts == "encoder" and name == "id"):
                raise ValueError(
                    f"only the {self.parts} of this codec was loaded, and its weights have changed: load all parts for "
                    f"the {name}"
                )
            return (checkpoint.codec_id if name == "id" else checkpoint.token_id)(self.config, self.state_dict())

        return self.id_of_weights(name, compute)

    def forward(
        self, waveform: Tensor, num_samples: Tensor | None = None, num_layers: Tensor | None = None
    ) -> CodecOutput:
        """Run the training pass. Gradients pass straight through the quantizer, and reach the waveform too.

        waveform: float [B, L] or [B, 1, L]. num_samples: int [B], valid samples of each row (None: all). num_layers:
        int [B], the number of layers that each clip is decoded from (quantizer dropout; None: all). The pass does not
        change the codebooks; `CodebookEMA` does.
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
    """Raise CheckpointError unless a checkpoint's tensors fit its config."""
    try:
        # Without weight norm, whose constructor would import torch's compiler (see `_without_weights`).
        with _without_weights():
            empty = CodecNetwork(found.config.with_weight_norm(False))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{found.source}: its {CONFIG} is not that of a codec ({error})") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    found.check(unfolded_shapes(shapes) if found.config.weight_norm else shapes)


def _without_weights() -> torch.device:
    """Return the meta device, on which modules are built without weights: random weights would take seconds, and twice
    the memory.

    Some operators on the meta device, among them randn, arange and weight norm, import torch's compiler, which takes a
    second and 74 MiB. So the constructors of a codec do not use them.
    """
    return torch.device("meta")
