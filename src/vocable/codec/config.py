"""What a codec is made of. A codec's id is the hash of this config and its weights.

Every size has an upper bound, far above what any codec needs: a config.json that somebody else wrote is checked before
memory or time is spent on the model that it describes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

#: The largest value of whole-number fields that do not name their own: numbers of channels, samples and Hz.
LARGEST = 65_536
#: What a codec may be called: its name begins its id, which is printed and kept in token files.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _at_most(most: int, default: int, later: bool = False) -> Any:
    """A whole number with an upper bound of its own."""
    return field(default=default, metadata={"most": most, "later": later})


def _later(default: Any) -> Any:
    """A field that older configs do not have: `to_dict` leaves it out where it has its default, so ids stay."""
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class SpectralConfig:
    """The encoder and decoder of `fast`: every layer runs between an STFT and an inverse STFT, at 100 or 50 Hz.

    Two kinds: the offline one sees both sides of a frame. The causal one sees `encoder_look_ahead` and
    `decoder_look_ahead` future frames, its recurrence runs forward only, and its STFT frames end with the last sample
    that they may see; `CodecConfig.delay` follows from these fields.
    """

    n_fft: int = _at_most(2048, 640)  #: samples in an STFT frame; its hop is half the codec's hop
    fine_dim: int = 256  #: channels at 100 Hz
    frame_dim: int = 384  #: channels at 50 Hz
    expansion: int = _at_most(64, 3)  #: hidden channels of a ConvNeXt block over its channels
    kernel_size: int = _at_most(1024, 7)  #: depthwise kernel, in frames
    encoder_fine_blocks: int = _at_most(64, 2)
    encoder_frame_blocks: int = _at_most(64, 3)
    decoder_frame_blocks: int = _at_most(64, 2)
    decoder_fine_blocks: int = _at_most(64, 4)
    causal: bool = _later(False)
    encoder_look_ahead: int = _later(0)  #: frames at 50 Hz that a causal encoder sees beyond the current one
    decoder_look_ahead: int = _later(0)  #: and a causal decoder
    synthesis_n_fft: int = _at_most(2048, 0, later=True)  #: samples in a frame of the decoder's inverse STFT; 0: n_fft
    content_blocks: int = _at_most(
        64, 0, later=True
    )  #: blocks of the branch that RVQ-1's own channels come from; 0: there is none
    phase_noise: float = _later(0.0)  #: length of a random vector that is added to the decoder's phase vectors

    def __post_init__(self) -> None:
        _check_integers(self)
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal must be true or false, not {self.causal!r}")
        for name in ("encoder_look_ahead", "decoder_look_ahead"):
            if getattr(self, name) and not self.causal:
                raise ValueError(f"{name} is for a causal codec: an offline one sees both sides of a frame")
        for side in ("encoder", "decoder"):
            ahead, blocks = getattr(self, f"{side}_look_ahead"), getattr(self, f"{side}_frame_blocks")
            most = blocks * (self.kernel_size - 1)
            if ahead > most:
                raise ValueError(f"{side}_look_ahead must be at most {most}, which its kernels span, not {ahead}")
        if not _is_finite(self.phase_noise) or self.phase_noise < 0:
            raise ValueError(f"phase_noise must be a finite number, at least 0, not {self.phase_noise!r}")
        if self.phase_noise > 1000:
            raise ValueError(f"phase_noise must be at most 1000, not {self.phase_noise!r}")
        if self.kernel_size % 2 == 0 or self.frame_dim % 2:
            raise ValueError(f"kernel_size must be odd and frame_dim even, not {self.kernel_size} and {self.frame_dim}")


@dataclass(frozen=True)
class SEANetConfig:
    """The encoder and decoder of the paper: convolutions on the waveform, strided down to frames and up again."""

    n_filters: int = _at_most(4096, 64)  #: channels at the sample rate; they double with every stride
    strides: tuple[int, ...] = (8, 5, 4, 2)  #: the decoder's, first to last; the encoder's are the reverse
    kernel_size: int = _at_most(1024, 7)  #: of the first and the last convolution
    residual_kernel_size: int = _at_most(1024, 3)
    residual_layers: int = _at_most(16, 1)  #: blocks before each stride
    dilation_base: int = 2  #: block j of a stage is dilated by dilation_base ** j
    lstm_layers: int = _at_most(16, 2)
    bidirectional: bool = True  #: the encoder's recurrence; the decoder's runs forward only, as the authors' does
    activation: Literal["ELU", "Snake"] = "ELU"
    weight_norm: bool = True  #: False once weight norm is folded into the weights, for inference

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
            raise ValueError("residual_kernel_size must be at least 2: kernels of 1 stand beside it already")
        if not self.strides or any(not _is_whole(s) or s < 1 for s in self.strides):
            raise ValueError(f"strides must be whole numbers, at least 1, not {list(self.strides)}")
        if len(self.strides) > 16 or math.prod(self.strides) > LARGEST:
            raise ValueError(f"strides must be at most 16, of a product of at most {LARGEST}")
        if (self.residual_layers - 1) * math.log2(self.dilation_base) > math.log2(LARGEST):
            raise ValueError(f"dilation_base ** (residual_layers - 1) must be at most {LARGEST}")


@dataclass(frozen=True)
class CodecConfig:
    """A codec. `name` begins its id; `architecture` chooses the encoder and decoder, and which of two fields counts."""

    name: str = "fast"
    architecture: Literal["spectral", "seanet"] = "spectral"
    sample_rate: int = _at_most(384_000, 16_000)  #: Hz
    hop_length: int = 320  #: samples a frame
    num_quantizers: int = _at_most(256, 8)  #: K
    codebook_size: int = 1024  #: at most 65,536: token files keep codes as uint16
    dimension: int = 128  #: D, channels of a latent and of a codebook entry
    semantic_dimension: int = 512  #: the teacher's channels, which RVQ-1 is mapped to in training
    spectral: SpectralConfig | None = None  #: set for "spectral", and for it alone
    seanet: SEANetConfig | None = None  #: set for "seanet", and for it alone
    level: float | None = _later(None)  #: dBov of active speech that clips are brought to before encoding; None: as is
    high_pass: float = _later(0.0)  #: Hz, cutoff of a high-pass filter before the encoder; 0: none

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ValueError(
                f"name must be 1 to 64 letters, digits, '-', '_', '.', the first no sign, not {self.name!r}"
            )
        if self.architecture not in tuple(_PARTS):
            raise ValueError(f"architecture must be one of {', '.join(_PARTS)}, not {self.architecture!r}")
        for name, kind in _PARTS.items():
            given = getattr(self, name)
            if name == self.architecture and given is None:
                object.__setattr__(self, name, kind())
            elif name != self.architecture and given is not None:
                raise ValueError(f"architecture {self.architecture!r} takes no {name!r} part")
        _check_integers(self)
        if self.level is not None and not _is_finite(self.level):
            raise ValueError(f"level must be a finite number of dBov, or none at all, not {self.level!r}")
        if self.level is not None and not -100 <= self.level <= 0:
            raise ValueError(f"level must be -100 to 0 dBov, not {self.level!r}")
        if not _is_finite(self.high_pass) or not 0 <= self.high_pass < self.sample_rate / 2:
            raise ValueError(f"high_pass must be 0 to less than {self.sample_rate / 2:g} Hz, not {self.high_pass!r}")
        if self.high_pass and not 1 <= self.high_pass <= self.sample_rate / 2 - 1:  # the filter's response has no end
            raise ValueError(
                f"high_pass must be 0, or 1 Hz from 0 and from {self.sample_rate / 2:g} Hz, not {self.high_pass!r}"
            )
        if self.spectral is not None:
            if self.dimension < 8:
                raise ValueError(f"dimension must be at least 8, not {self.dimension}")
            for size in (self.spectral.n_fft, self.spectral.synthesis_n_fft):
                if self.hop_length % 2 or size % (self.hop_length // 2):
                    raise ValueError("hop_length must be even, and spectral.n_fft a multiple of its half")
        if self.seanet is not None and math.prod(self.seanet.strides) != self.hop_length:
            strides = list(self.seanet.strides)
            raise ValueError(f"hop_length must be the product of the strides {strides}, not {self.hop_length}")

    @property
    def content_dimension(self) -> int:
        """Channels of the latents that RVQ-1 alone quantizes, the first ones; 0: all layers quantize all channels."""
        return self.dimension // 4 if self.spectral is not None and self.spectral.content_blocks else 0

    @property
    def weight_norm(self) -> bool:
        """Whether the convolutions have weight norm."""
        return self.seanet is not None and self.seanet.weight_norm

    def with_weight_norm(self, weight_norm: bool) -> CodecConfig:
        """Return the config with weight norm folded or unfolded; an architecture that has none stays as it is."""
        if self.seanet is None:
            return self
        return replace(self, seanet=replace(self.seanet, weight_norm=weight_norm))

    @property
    def delay(self) -> int | None:
        """Samples that decoded speech lags behind its input in a stream; None for a codec that needs the whole clip.

        Speech before sample t - delay does not depend on the input from sample t on: a frame waits for its last
        sample, for the frames that encoder and decoder look ahead, and for the STFT frames that overlap its own.
        """
        c = self.spectral
        if c is None or not c.causal:
            return None
        frames = 1 + c.encoder_look_ahead + c.decoder_look_ahead
        return frames * self.hop_length - 1 + (c.synthesis_n_fft or c.n_fft) - self.hop_length // 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back; the part of the other architecture is left out."""
        return {key: _plain(value) for key, value in _stated(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Build from `to_dict`'s form; raises ValueError for a key that no codec has."""
        values = dict(_known(cls, values))
        for name, kind in _PARTS.items():
            if values.get(name) is not None:
                values[name] = kind(**_known(kind, values[name]))
        return cls(**values)


_PARTS: dict[str, type] = {"spectral": SpectralConfig, "seanet": SEANetConfig}


def _stated(config: Any) -> dict[str, Any]:
    """A config's fields without the later ones that have their default."""
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
