"""`VocableModel`: a codec as a model of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.utils import ModelOutput

from vocable.codec.level import condition
from vocable.codec.model import SpeechTokenizer
from vocable.codec.tokens import Encoded
from vocable.hf.configuration import VocableConfig
from vocable.training.losses import SpectralLoss
from vocable.training.recipe import Losses

#: Of transformers that knows audio tokenizers; older versions have models only.
_Base: Any = getattr(transformers.modeling_utils, "PreTrainedAudioTokenizerBase", transformers.PreTrainedModel)


@dataclass
class VocableOutput(ModelOutput):  # type: ignore[misc]
    """The result of `VocableModel`. What was not computed is None."""

    loss: Tensor | None = None  #: scalar, in training only
    audio_codes: Tensor | None = None  #: int64 [B, K', T], 0 after a clip's end
    audio_codes_mask: Tensor | None = None  #: int64 [B, T], 1 on valid frames
    audio_values: Tensor | None = None  #: float32 [B, L]
    #: float32 [B], the factor that each clip was multiplied by before it was encoded; None: the codec has no level
    gain: Tensor | None = None


class VocableModel(_Base):  # type: ignore[misc]
    """A codec of vocable. Its weights are those of `codec`, a `SpeechTokenizer`, which has all other methods."""

    config_class = VocableConfig
    base_model_prefix = "vocable"
    main_input_name = "input_values"
    input_modalities = "audio"

    def __init__(self, config: VocableConfig) -> None:
        super().__init__(config)
        self.codec = SpeechTokenizer(config.codec_config)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, dtype: torch.dtype | str | None = None, **kwargs: Any) -> Any:
        """Load a model, as every model of transformers does.

        dtype: of the weights of encoder and decoder (None or "auto": float32); the codebooks are always float32.
        """
        loaded = super().from_pretrained(*args, dtype=torch.float32, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._restore_constants()
        if dtype not in (None, "auto"):
            model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return loaded

    @classmethod
    def from_codec(cls, codec: SpeechTokenizer) -> VocableModel:
        """Return a model with the weights of a codec. Raises ValueError for a partly loaded codec."""
        if codec.parts != "all":
            raise ValueError(f"only the {codec.parts} of this codec was loaded: load all parts")
        model = cls(VocableConfig(codec.config.to_dict()))
        model.codec.load_state_dict(codec.state_dict())
        model.eval()
        return model

    @torch.no_grad()
    def _restore_constants(self) -> None:
        """Set the buffers that no file holds, such as windows: `from_pretrained` of transformers 5 empties them."""
        with torch.device("meta"):
            built = SpeechTokenizer(self.config.codec_config)
        for name, constant in built.named_buffers():
            if not constant.is_meta:
                self.codec.get_buffer(name).copy_(constant)

    def _init_weights(self, module: object) -> None:
        """Keep the weights that the codec's own layers have drawn."""

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode recordings.

        input_values: float [B, L] or [B, 1, L]. padding_mask: [B, L], 1 on valid samples, which come first (None: all
        are valid). num_quantizers: number of layers (None: all K). Returns codes, their mask and gains in a
        `VocableOutput`, or as a tuple for `return_dict=False`. Raises what `SpeechTokenizer.encode` raises.
        """
        lengths = _lengths(padding_mask)
        encoded = self.codec.encode(input_values, num_samples=lengths, layers=slice(0, num_quantizers))
        frames = encoded.num_frames.to(encoded.codes.device)
        mask = torch.arange(encoded.codes.shape[2], device=frames.device) < frames[:, None]
        output = VocableOutput(audio_codes=encoded.codes, audio_codes_mask=mask.long(), gain=encoded.gain)
        return _returned(output, return_dict)

    def decode(
        self,
        audio_codes: Tensor,
        padding_mask: Tensor | None = None,
        gain: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Decode the codes of the first K' layers, int [B, K', T].

        padding_mask: that of the recordings, [B, L] (None: every clip has T whole frames). gain: from `encode` (None:
        speech at the codec's level). Returns speech, float32 [B, L], in a `VocableOutput`, or as a tuple for
        `return_dict=False`. Raises what `SpeechTokenizer.decode` raises.
        """
        codec, (batch, layers, frames) = self.codec, audio_codes.shape
        samples = _lengths(padding_mask)
        if samples is None:
            samples = torch.full((batch,), frames * codec.hop_length)
        encoded = Encoded(
            audio_codes,
            -(-samples // codec.hop_length),
            samples,
            slice(0, layers),
            codec.token_id,
            codec.sample_rate,
            codec.frame_rate,
            gain,
        )
        output = VocableOutput(audio_values=codec.decode(encoded).waveform)
        return _returned(output, return_dict)

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encode and decode recordings; arguments as in `encode`.

        In training mode, run the training pass with gradients instead, through all layers. Its loss is that of the
        codec's trainer without teacher and discriminators. The codebooks do not change: vocable's own trainer moves
        them.
        """
        if not self.training:
            output = self.encode(input_values, padding_mask, num_quantizers)
            output["audio_values"] = self.decode(output.audio_codes, padding_mask, output.gain).audio_values
        else:
            clips = input_values.squeeze(1) if input_values.ndim == 3 else input_values
            lengths = _lengths(padding_mask)
            with torch.no_grad():  # the codec's training pass takes speech at the codec's level
                waveform = torch.stack([condition(clip, self.codec.config)[0] for clip in clips])
            found = self.codec(waveform, num_samples=lengths)
            loss = self._loss(found.waveform, waveform, found.losses["commitment"])
            output = VocableOutput(loss=loss, audio_codes=found.codes, audio_values=found.waveform)
        return _returned(output, return_dict)

    def _loss(self, decoded: Tensor, original: Tensor, commitment: Tensor) -> Tensor:
        weights = Losses()
        spectral = SpectralLoss(self.config.sampling_rate, weights.resolutions)(decoded, original)
        waveform = weights.waveform * (decoded - original).abs().mean()
        total: Tensor = weights.mel * spectral["mel"] + weights.spectrum * spectral["spectrum"] + waveform
        return total + weights.commitment * commitment


def _lengths(padding_mask: Tensor | None) -> Tensor | None:
    """Return the number of valid samples of each row of a mask, int64 [B], on the CPU; None without a mask."""
    return None if padding_mask is None else padding_mask.flatten(1).sum(1).long().cpu()


def _returned(output: VocableOutput, return_dict: bool | None) -> Any:
    """Return an output, or its values as a tuple for `return_dict=False`."""
    return output if return_dict is not False else output.to_tuple()
