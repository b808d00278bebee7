"""`VocableConfig`: the config of a codec, as transformers reads and writes it."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from vocable.codec.config import PRESETS, CodecConfig


class VocableConfig(PretrainedConfig):  # type: ignore[misc]
    """The config of `VocableModel`.

    codec: the values of `CodecConfig.to_dict` (None: those of `fast`). Other arguments are those of every config of
    transformers. Raises ValueError for an unknown key of `codec` or an invalid value.
    """

    model_type = "vocable"

    def __init__(self, codec: dict[str, Any] | None = None, **kwargs: Any) -> None:
        values = CodecConfig.from_dict(codec) if codec else PRESETS["fast"]
        self.codec = values.to_dict()
        #: What transformers' other codecs have too, under their names.
        self.sampling_rate, self.hop_length = values.sample_rate, values.hop_length
        self.num_quantizers, self.codebook_size = values.num_quantizers, values.codebook_size
        super().__init__(**kwargs)

    @property
    def codec_config(self) -> CodecConfig:
        """The config of the codec."""
        return CodecConfig.from_dict(self.codec)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sampling_rate / self.hop_length
