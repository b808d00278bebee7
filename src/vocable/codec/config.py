"""What a codec is made of. A codec's id is the hash of this config and its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal


@dataclass(frozen=True)
class SpectralConfig:
    """The encoder and decoder of `fast`: every layer runs between an STFT and an inverse STFT, at 100 or 50 Hz."""

    n_fft: int = 640  #: samples in an STFT frame; its hop is half the codec's hop
    fine_dim: int = 256  #: channels at 100 Hz
    frame_dim: int = 384  #: channels at 50 Hz
    expansion: int = 3  #: hidden channels of a ConvNeXt block over its channels
    kernel_size: int = 7  #: depthwise kernel, in frames
    encoder_fine_blocks: int = 2
    encoder_frame_blocks: int = 3
    decoder_frame_blocks: int = 2
    decoder_fine_blocks: int = 4

    def __post_init__(self) -> None:
        _check_integers(self)
        if self.kernel_size % 2 == 0 or self.frame_dim % 2:
            raise ValueError(f"kernel_size must be odd and frame_dim even, not {self.kernel_size} and {self.frame_dim}")


@dataclass(frozen=True)
class CodecConfig:
    """A codec. `name` begins its id; `architecture` chooses the encoder and decoder."""

    name: str = "fast"
    architecture: Literal["spectral"] = "spectral"
    sample_rate: int = 16_000  #: Hz
    hop_length: int = 320  #: samples a frame
    num_quantizers: int = 8  #: K
    codebook_size: int = 1024
    dimension: int = 128  #: D, channels of a latent and of a codebook entry
    semantic_dimension: int = 512  #: the teacher's channels, which RVQ-1 is mapped to in training
    spectral: SpectralConfig = field(default_factory=SpectralConfig)

    def __post_init__(self) -> None:
        if self.architecture != "spectral":
            raise ValueError(f"architecture must be 'spectral', not {self.architecture!r}")
        _check_integers(self)
        if self.dimension < 8:
            raise ValueError(f"dimension must be at least 8, not {self.dimension}")
        if self.hop_length % 2 or self.spectral.n_fft % (self.hop_length // 2):
            raise ValueError("hop_length must be even, and spectral.n_fft a multiple of its half")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Build from `to_dict`'s form; raises ValueError for a key that no codec has."""
        values = dict(values)
        spectral = SpectralConfig(**_known(SpectralConfig, values.pop("spectral", {})))
        return cls(**_known(cls, values), spectral=spectral)


def _check_integers(config: object) -> None:
    for name, value in vars(config).items():
        if name in ("name", "architecture", "spectral"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, not {value!r}")


def _known(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(values) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}")
    return values


#: The published architectures by name.
PRESETS: dict[str, CodecConfig] = {"fast": CodecConfig()}
