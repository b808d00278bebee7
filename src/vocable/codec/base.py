"""`Codec`: what the rooms above `codec/` may know of a codec."""

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
    """A neural codec: speech to K rows of codes at a fixed frame rate, and codes to speech.

    Corpora, language models, conversion and evaluation use nothing else of a codec, so whatever implements the abstract
    members can be tokenized with, trained on and evaluated. `layers` is a slice of the K layers everywhere:
    slice(0, 1) is the first layer, None is all of them.
    """

    #: Number format of the weights of recurrent layers.
    recurrence: Recurrence = "float32"

    # ---- abstract: properties ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The codec's name, with which its id begins."""

    @property
    @abstractmethod
    def id(self) -> str:
        """NAME-HASH, a hash of config and weights."""

    @property
    @abstractmethod
    def token_id(self) -> str:
        """A hash of what decides codes; token files name it."""

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
        """The device that the codec runs on."""

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

        sample_rate: Hz; None: the codec's. num_samples: valid samples of each row of a padded batch. layers: the
        rows to return. Raises AudioError for a waveform that cannot be encoded.
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

        num_samples: samples of each clip; None: those of the `Encoded`, or T whole frames. restore_level: divide by the
        gains of the `Encoded`. Raises TokensError for codes that this codec cannot decode.
        """

    @abstractmethod
    def embed(self, codes: Tensor | np.ndarray, *, layers: slice | None = None) -> Tensor:
        """Sum the codebook vectors of codes: int [B, K', T] of `layers` -> float32 [B, D, T]."""

    @abstractmethod
    def encode_long(
        self, blocks: Tensor | np.ndarray | Iterable[Tensor | np.ndarray], *, layers: slice | None = None
    ) -> Encoded:
        """Encode one recording, given whole as [L] or in blocks [n] at the codec's sample rate."""

    @abstractmethod
    def decode_long(
        self, encoded: Encoded, *, layers: slice | None = None, restore_level: bool = True
    ) -> Iterator[Tensor]:
        """Decode one clip; yields speech in blocks, float32 [n]. Raises TokensError at the call, not later."""

    # ---- what follows from these ---------------------------------------------------------------------------------

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
        """Samples that decoded speech lags behind its input in a stream; None for a codec that needs the whole clip."""
        return None

    def part_sizes(self) -> dict[str, int]:
        """Return the number of values in each part that is loaded, by the part's name."""
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
        """Bits per second of the codes of these layers, without entropy coding."""
        start, stop = layer_range(layers, self.num_quantizers)
        return self.frame_rate * math.fsum(math.log2(size) for size in self.codebook_sizes[start:stop])

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples: the ceiling of samples / hop_length."""
        return -(-num_samples // self.hop_length)

    def frame_to_time(self, frame: int) -> float:
        """The time in seconds at which a frame begins."""
        return frame * self.hop_length / self.sample_rate

    def time_to_frame(self, seconds: float) -> int:
        """The index of the frame at a time in seconds."""
        # Rounded to whole samples first: 0.3 s must not fall into frame 14 by a rounding error.
        return round(seconds * self.sample_rate) // self.hop_length

    def reconstruct(
        self,
        waveform: Waveforms,
        *,
        sample_rate: int | None = None,
        num_samples: Tensor | Sequence[int] | None = None,
        layers: slice | None = None,
    ) -> Decoded:
        """Encode and decode speech, through `layers` alone."""
        return self.decode(self.encode(waveform, sample_rate=sample_rate, num_samples=num_samples, layers=layers))

    def codebook(self, layer: int) -> Tensor:
        """Return the vectors of the codes of one layer: float32 [N, D]."""
        codes = torch.arange(self.codebook_sizes[layer], device=self.device)
        return self.embed(codes[None, None], layers=slice(layer, layer + 1))[0].T

    def check_token_id(self, token_id: str, what: str) -> None:
        """Raise TokensError unless `token_id` names tokens of this codec; `what` begins the message.

        Files of vocable 0.1 name the codec's id in place of the token id.
        """
        by_name = str(token_id).startswith(f"{self.name}-")
        if token_id != self.token_id and not (by_name and token_id == self.id):
            raise TokensError(f"{what} of {token_id}, but those of this codec are {self.token_id}: load that one")

    def select_layers(self, encoded: Encoded, layers: slice | None) -> tuple[Tensor, slice]:
        """Return the codes of `layers` from an `Encoded` (None: all that it holds), and these layers.

        Raises TokensError for codes of another codec, and for layers that the `Encoded` does not hold.
        """
        self.check_token_id(encoded.token_id, "codes")
        held = encoded.layers
        chosen = slice(*layer_range(held if layers is None else layers, self.num_quantizers))
        if chosen.start < held.start or chosen.stop > held.stop:
            raise TokensError(
                f"layers {chosen.start}:{chosen.stop} were asked for, the codes hold {held.start}:{held.stop}"
            )
        return encoded.codes[:, chosen.start - held.start : chosen.stop - held.start], chosen

    def _checked(self, codes: Tensor | np.ndarray, layers: slice | None) -> tuple[Tensor, int]:
        """Return codes as int64 [B, K', T] on the codec's device, and the layer of their first row."""
        return checked_codes(codes, layers, self.codebook_sizes, self.device)
