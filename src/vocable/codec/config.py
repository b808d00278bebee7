"""`CodecConfig`: the architecture and the sizes of a codec. The codec's id is a hash of its config and weights.

Every size has an upper bound, far above what any codec needs, so that an untrusted config.json cannot make the loader
allocate memory or compute without limit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

#: The largest value of integer fields without a bound of their own: numbers of channels, samples and Hz.
LARGEST = 65_536
#: Allowed names of codecs. The name is part of the id, which is printed and stored in token files.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _at_most(most: int, default: int, later: bool = False) -> Any:
    """Return an integer field with its own upper bound. later: as in `_later`."""
    return field(default=default, metadata={"most": most, "later": later})


def _later(default: Any) -> Any:
    """Return a field that older configs lack. `to_dict` omits it if it has its default, so old ids do not change."""
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class SpectralConfig:
    """Sizes of the encoder and decoder of `fast`, whose layers run between an STFT and an inverse STFT.

    An offline codec uses the frames on both sides of a frame. A causal codec uses `encoder_look_ahead` and
    `decoder_look_ahead` future frames, its recurrence runs forward only, and its STFT frames end with the last sample
    that they may use; `CodecConfig.delay` is computed from these fields.
    """

    n_fft: int = _at_most(2048, 640)  #: samples in an STFT frame; the STFT hop is half the codec's hop
    fine_dim: int = 256  #: channels at 100 Hz
    frame_dim: int = 384  #: channels at 50 Hz
    expansion: int = _at_most(64, 3)  #: hidden channels of a ConvNeXt block, divided by its channels
    kernel_size: int = _at_most(1024, 7)  #: length of the depthwise kernels in frames
    encoder_fine_blocks: int = _at_most(64, 2)  #: blocks of the encoder at 100 Hz
    encoder_frame_blocks: int = _at_most(64, 3)  #: blocks of the encoder at 50 Hz
    decoder_frame_blocks: int = _at_most(64, 2)  #: blocks of the decoder at 50 Hz
    decoder_fine_blocks: int = _at_most(64, 4)  #: blocks of the decoder at 100 Hz
    causal: bool = _later(False)  #: whether the codec uses no future input but the look-ahead
    encoder_look_ahead: int = _later(0)  #: future frames at 50 Hz that a causal encoder uses
    decoder_look_ahead: int = _later(0)  #: future frames at 50 Hz that a causal decoder uses
    synthesis_n_fft: int = _at_most(2048, 0, later=True)  #: samples in a frame of the decoder's inverse STFT; 0: n_fft
    #: blocks of the encoder branch that computes RVQ-1's own channels; 0: no such branch
    content_blocks: int = _at_most(64, 0, later=True)
    phase_noise: float = _later(0.0)  #: length of the random vector that is added to each phase vector of the decoder

    def __post_init__(self) -> None:
        _check_integers(self)
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal must be true or false, not {self.causal!r}")
        for name in ("encoder_look_ahead", "decoder_look_ahead"):
            if getattr(self, name) and not self.causal:
                raise ValueError(f"{name} is a field of causal codecs: remove it, or set causal")
        for side in ("encoder", "decoder"):
            ahead, blocks = getattr(self, f"{side}_look_ahead"), getattr(self, f"{side}_frame_blocks")
            most = blocks * (self.kernel_size - 1)
            if ahead > most:
                raise ValueError(f"{side}_look_ahead must be at most {most}, the span of its kernels, not {ahead}")
        if not _is_finite(self.phase_noise) or self.phase_noise < 0:
            raise ValueError(f"phase_noise must be a finite number, at least 0, not {self.phase_noise!r}")
        if self.phase_noise > 1000:
            raise ValueError(f"phase_noise must be at most 1000, not {self.phase_noise!r}")
        if self.kernel_size % 2 == 0 or self.frame_dim % 2:
            raise ValueError(f"kernel_size must be odd and frame_dim even, not {self.kernel_size} and {self.frame_dim}")


@dataclass(frozen=True)
class SEANetConfig:
    """Sizes of the encoder and decoder of the paper: strided and transposed convolutions on the waveform."""

    n_filters: int = _at_most(4096, 64)  #: channels at the sample rate; they double with every stride
    strides: tuple[int, ...] = (8, 5, 4, 2)  #: strides of the decoder, first to last; the encoder's are the reverse
    kernel_size: int = _at_most(1024, 7)  #: kernel of the first and the last convolution
    residual_kernel_size: int = _at_most(1024, 3)  #: kernel of the first convolution of a residual block
    residual_layers: int = _at_most(16, 1)  #: residual blocks of each stage
    dilation_base: int = 2  #: block j of a stage is dilated by dilation_base ** j
    lstm_layers: int = _at_most(16, 2)  #: LSTM layers of the encoder and of the decoder
    bidirectional: bool = True  #: whether the encoder's LSTM is bidirectional; the decoder's runs forward only
    activation: Literal["ELU", "Snake"] = "ELU"
    weight_norm: bool = True  #: False if weight norm is folded into the weights, for inference

    def __post_init__(self) -> None:
        if not isinstance(self.strides, (list, tuple)):
            raise ValueError(f"strides must be a list of whole numbers, not {self.strides!r}")
        object.__setattr__(self, "strides", tuple(self.strides))  # JSON and YAML give lists
        _check_integers(self)
        if self.activation not in ("ELU", "Snake"):
            raise ValueError(f"activation must be 'ELU' or 'Snake', not {self.activation!r}")
        for name in ("bidirectional", "weight_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if self.n_filters % 2:
            raise ValueError(f"n_filters must be even, not {self.n_filters}")
        if self.residual_kernel_size < 2:
            raise ValueError("residual_kernel_size must be at least 2: the block's other kernels are 1")
        if not self.strides or any(not _is_whole(s) or s < 1 for s in self.strides):
            raise ValueError(f"strides must be whole numbers, at least 1, not {list(self.strides)}")
        if len(self.strides) > 16 or math.prod(self.strides) > LARGEST:
            raise ValueError(f"strides must be at most 16 numbers whose product is at most {LARGEST}")
        if (self.residual_layers - 1) * math.log2(self.dilation_base) > math.log2(LARGEST):
            raise ValueError(f"dilation_base ** (residual_layers - 1) must be at most {LARGEST}")


@dataclass(frozen=True)
class CodecConfig:
    """The config of a codec. `architecture` is the name of the field with the sizes of its encoder and decoder."""

    name: str = "fast"  #: first part of the id
    architecture: Literal["spectral", "seanet"] = "spectral"
    sample_rate: int = _at_most(384_000, 16_000)  #: in Hz
    hop_length: int = 320  #: samples per frame
    num_quantizers: int = _at_most(256, 8)  #: number of quantizer layers K
    codebook_size: int = 1024  #: entries of each codebook; at most 65,536, because token files store codes as uint16
    dimension: int = 128  #: D, channels of a latent and of a codebook entry
    semantic_dimension: int = 512  #: channels of the teacher, to which RVQ-1 is mapped in training
    spectral: SpectralConfig | None = None  #: sizes of the architecture "spectral"; None for the other one
    seanet: SEANetConfig | None = None  #: sizes of the architecture "seanet"; None for the other one
    level: float | None = _later(None)  #: active speech level in dBov that clips are scaled to; None: not scaled
    high_pass: float = _later(0.0)  #: cutoff in Hz of a high-pass filter before the encoder; 0: no filter

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ValueError(
                f"name must be 1 to 64 letters, digits, '-', '_', '.', and begin with a letter or digit, "
                f"not {self.name!r}"
            )
        if self.architecture not in tuple(_SIZES):
            raise ValueError(f"architecture must be one of {', '.join(_SIZES)}, not {self.architecture!r}")
        for name, kind in _SIZES.items():
            given = getattr(self, name)
            if name == self.architecture and given is None:
                object.__setattr__(self, name, kind())
            elif name != self.architecture and given is not None:
                raise ValueError(f"architecture {self.architecture!r} has no field {name!r}: remove it")
        _check_integers(self)
        if self.level is not None and not _is_finite(self.level):
            raise ValueError(f"level must be a finite number of dBov, or null, not {self.level!r}")
        if self.level is not None and not -100 <= self.level <= 0:
            raise ValueError(f"level must be -100 to 0 dBov, not {self.level!r}")
        if not _is_finite(self.high_pass) or not 0 <= self.high_pass < self.sample_rate / 2:
            raise ValueError(f"high_pass must be 0 to less than {self.sample_rate / 2:g} Hz, not {self.high_pass!r}")
        # Nearer to 0 or to half the sample rate, the impulse response would be too long.
        if self.high_pass and not 1 <= self.high_pass <= self.sample_rate / 2 - 1:
            raise ValueError(f"high_pass must be 0, or 1 to {self.sample_rate / 2 - 1:g} Hz, not {self.high_pass!r}")
        if self.spectral is not None:
            if self.dimension < 8:
                raise ValueError(f"dimension must be at least 8, not {self.dimension}")
            for size in (self.spectral.n_fft, self.spectral.synthesis_n_fft):
                if self.hop_length % 2 or size % (self.hop_length // 2):
                    raise ValueError("hop_length must be even, and spectral.n_fft a multiple of half of it")
        if self.seanet is not None and math.prod(self.seanet.strides) != self.hop_length:
            strides = list(self.seanet.strides)
            raise ValueError(f"hop_length must be the product of the strides {strides}, not {self.hop_length}")

    @property
    def content_dimension(self) -> int:
        """The number of channels, from the first, that only RVQ-1 quantizes; 0: all layers quantize all channels."""
        return self.dimension // 4 if self.spectral is not None and self.spectral.content_blocks else 0

    @property
    def weight_norm(self) -> bool:
        """Whether the convolutions have weight norm."""
        return self.seanet is not None and self.seanet.weight_norm

    def with_weight_norm(self, weight_norm: bool) -> CodecConfig:
        """Return the config with this `weight_norm`, or the config itself if its architecture has no weight norm."""
        if self.seanet is None:
            return self
        return replace(self, seanet=replace(self.seanet, weight_norm=weight_norm))

    @property
    def delay(self) -> int | None:
        """Delay of a stream in samples, from input to decoded speech; None for a codec that needs the whole clip.

        Decoded speech before sample t - delay depends only on the input before sample t. The delay is the frame itself,
        the look-ahead of encoder and decoder, and the overlap of the inverse STFT.
        """
        c = self.spectral
        if c is None or not c.causal:
            return None
        frames = 1 + c.encoder_look_ahead + c.decoder_look_ahead
        return frames * self.hop_length - 1 + (c.synthesis_n_fft or c.n_fft) - self.hop_length // 2

    def to_dict(self) -> dict[str, Any]:
        """Return the config as JSON values, without the field of the other architecture."""
        return {key: _plain(value) for key, value in _stated(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Build a config from the values of `to_dict`. Raises ValueError for an unknown key or an invalid value."""
        values = dict(_known(cls, values))
        for name, kind in _SIZES.items():
            if values.get(name) is not None:
                values[name] = kind(**_known(kind, values[name]))
        return cls(**values)


_SIZES: dict[str, type] = {"spectral": SpectralConfig, "seanet": SEANetConfig}


def _stated(config: Any) -> dict[str, Any]:
    """Return a config's fields, without the fields of `_later` that have their default."""
    values = {f: getattr(config, f.name) for f in fields(config)}
    return {f.name: value for f, value in values.items() if not (f.metadata.get("later") and value == f.default)}


def _plain(value: Any) -> Any:
    if isinstance(value, (SpectralConfig, SEANetConfig)):
        return {key: _plain(item) for key, item in _stated(value).items()}
    return list(value) if isinstance(value, tuple) else value


def _check_integers(config: object) -> None:
    for one in fields(config):  # type: ignore[arg-type]
        value, least = getattr(config, one.name), 0 if one.metadata.get("later") else 1
        if one.type != "int":
            continue
        if not _is_whole(value) or value < least:
            raise ValueError(f"{one.name} must be a whole number, at least {least}, not {value!r}")
        if value > (most := one.metadata.get("most", LARGEST)):
            raise ValueError(f"{one.name} must be at most {most}, not {value}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def _known(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} must be a mapping of its fields, not {values!r}")
    unknown = sorted(set(map(str, values)) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}")
    return values


#: The published architectures by name.
PRESETS: dict[str, CodecConfig] = {
    "fast": CodecConfig(),
    "paper": CodecConfig(name="paper", architecture="seanet", dimension=1024, semantic_dimension=768),
}
