"""`Codec`: the interface of a codec for every package outside of `codec/`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocable.codec.clips import Waveforms, checked_codes, layer_range
from vocable.codec.layers import Recurrence
from vocable.codec.tokens import Decoded, Encoded, TokensError


class Codec(ABC):
    """Base class of codecs, which encode speech to K rows of codes at a fixed frame rate, and decode codes to speech.

    Corpora, language models, conversion and evaluation use only this interface, so they work with every class that
    implements the abstract members. `layers` is always a slice of the K layers: slice(0, 1) is the first layer, None
    means all layers.
    """

    #: Number format of the weights of recurrent layers.
    recurrence: Recurrence = "float32"

    # ---- abstract: properties ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The codec's name, the first part of its id."""

    @property
    @abstractmethod
    def id(self) -> str:
        """NAME-HASH; the hash is that of the config and the weights."""

    @property
    @abstractmethod
    def token_id(self) -> str:
        """A hash of everything that the codes depend on; it is stored in token files."""

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    @abstractmethod
    def hop_length(self) -> int:
        """Samples per frame."""

    @property
    @abstractmethod
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes of each layer."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Channels D of the latents and of `embed`."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device that the weights are on."""

    # ---- abstract: encode and decode -----------------------------------------------------------------------------

    @abstractmethod
    def encode(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Encoded:
        """Encode speech: float [L], [B, L], [B, 1, L] or a list of [L] -> codes int64 [B, K', T].

        sample_rate: in Hz (None: the codec's). num_samples: valid samples of each row of a padded batch. layers: the
        layers whose codes are returned. Raises AudioError for an invalid waveform.
        """

    @abstractmethod
    def decode(
        self,
        codes: Encoded | Tensor | np.ndarray,
        *,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
        restore_level: bool = True,
    ) -> Decoded:
        """Decode an `Encoded`, or codes int [B, K', T] of `layers`, to speech, float32 [B, L].

        num_samples: samples of each clip (None: those of the `Encoded`, or T whole frames). restore_level: divide by
        the gains of the `Encoded`. Raises TokensError for codes that this codec cannot decode.
        """

    @abstractmethod
    def embed(self, codes: Tensor | np.ndarray, *, layers: slice | None = None) -> Tensor:
        """Sum the codebook entries of codes over the layers: int [B, K', T] of `layers` -> float32 [B, D, T]."""

    @abstractmethod
    def encode_long(
        self, blocks: Tensor | np.ndarray | Iterable[Tensor | np.ndarray], *, layers: slice | None = None
    ) -> Encoded:
        """Encode one recording at the codec's sample rate, given as one array [L] or in blocks [n]."""

    @abstractmethod
    def decode_long(
        self, encoded: Encoded, *, layers: slice | None = None, restore_level: bool = True
    ) -> Iterator[Tensor]:
        """Decode one clip; yields speech in blocks, float32 [n]. TokensError is raised at the call, not later."""

    # ---- implemented here ----------------------------------------------------------------------------------------

    @property
    def num_quantizers(self) -> int:
        """The number of layers K."""
        return len(self.codebook_sizes)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def delay(self) -> int | None:
        """Delay of a stream in samples, from input to decoded speech; None for a codec that needs the whole clip."""
        return None

    def part_sizes(self) -> dict[str, int]:
        """Return the number of parameters of each part that is loaded, by the part's name."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return the codec's ids, rates and sizes as plain values."""
        return {
            "id": self.id,
            "token_id": self.token_id,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "hop_length": self.hop_length,
            "delay": self.delay,
            "num_quantizers": self.num_quantizers,
            "codebook_sizes": list(self.codebook_sizes),
            "bitrate": self.bitrate(),
            "bitrate_semantic": self.bitrate(slice(0, 1)),
            "parameters": self.part_sizes(),
        }

    def bitrate(self, layers: slice | None = None) -> float:
        """Return the bit rate of the codes of `layers` in bit/s, without entropy coding."""
        start, stop = layer_range(layers, self.num_quantizers)
        return self.frame_rate * math.fsum(math.log2(size) for size in self.codebook_sizes[start:stop])

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a clip: num_samples / hop_length, rounded up."""
        return -(-num_samples // self.hop_length)

    def frame_to_time(self, frame: int) -> float:
        """Return the time in seconds at which a frame begins."""
        return frame * self.hop_length / self.sample_rate

    def time_to_frame(self, seconds: float) -> int:
        """Return the index of the frame at a time in seconds."""
        # The time is rounded to whole samples first: 0.3 s must not fall into frame 14 by a rounding error.
        return round(seconds * self.sample_rate) // self.hop_length

    def reconstruct(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Decoded:
        """Encode speech and decode it from the codes of `layers`; arguments are those of `encode`."""
        return self.decode(self.encode(waveform, sample_rate=sample_rate, num_samples=num_samples, layers=layers))

    def codebook(self, layer: int) -> Tensor:
        """Return the codebook entries of one layer: float32 [N, D]."""
        codes = torch.arange(self.codebook_sizes[layer], device=self.device)
        return self.embed(codes[None, None], layers=slice(layer, layer + 1))[0].T

    def check_token_id(self, token_id: str, what: str) -> None:
        """Raise TokensError unless `token_id` is that of this codec; `what` begins the message.

        Files of vocable 0.1 store the codec's id instead of the token id.
        """
        by_name = str(token_id).startswith(f"{self.name}-")
        if token_id != self.token_id and not (by_name and token_id == self.id):
            raise TokensError(
                f"{what} of {token_id}, but those of this codec are {self.token_id}: load the codec of {token_id}"
            )

    def select_layers(self, encoded: Encoded, layers: slice | None) -> tuple[Tensor, slice]:
        """Return the codes of `layers` (None: all layers of the `Encoded`), and these layers.

        Raises TokensError for codes of another codec, and for layers that the `Encoded` does not hold.
        """
        self.check_token_id(encoded.token_id, "codes")
        held = encoded.layers
        chosen = slice(*layer_range(held if layers is None else layers, self.num_quantizers))
        if chosen.start < held.start or chosen.stop > held.stop:
            raise TokensError(
                f"the codes hold layers {held.start}:{held.stop}: choose layers among these, not "
                f"{chosen.start}:{chosen.stop}"
            )
        return encoded.codes[:, chosen.start - held.start : chosen.stop - held.start], chosen

    def _checked(self, codes: Tensor | np.ndarray, layers: slice | None) -> tuple[Tensor, int]:
        """Return codes as int64 [B, K', T] on the codec's device, and the layer of their first row."""
        return checked_codes(codes, layers, self.codebook_sizes, self.device)
