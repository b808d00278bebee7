"""`Stream`: encode and decode a batch of recordings while they come, in blocks of any length."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vocable.audio import AudioError
from vocable.codec.base import Codec
from vocable.codec.clips import as_clips, checked_codes, layer_range
from vocable.codec.frames import FrameSteps, State
from vocable.codec.layers import inference
from vocable.codec.state_file import read_state, write_state
from vocable.codec.tokens import Decoded, Encoded, TokensError

#: A block [n] of one recording, or one block for each recording of the batch: [B, n], or a list of [n] of any lengths.
Blocks = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]


class Stream:
    """A batch of recordings that are encoded, decoded, or both, while they come.

    A frame is encoded as soon as its last sample and those of the look-ahead are there, and each frame is computed
    alone, so codes and speech do not depend on how the recording is cut into blocks. All that a stream remembers is its
    state, a flat dict of tensors. A stream may be used in one thread at a time; different streams may run in different
    threads.

    Made by `SpeechTokenizer.stream`.
    """

    def __init__(self, codec: Codec, steps: FrameSteps, batch: int, layers: slice | None) -> None:
        self.codec, self.steps, self.batch = codec, steps, batch
        self.layers = slice(*layer_range(layers, codec.num_quantizers))
        self.token_id = codec.token_id  # computing it takes as long as a frame
        self._encoder, self._decoder = self._start()

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return self.codec.device

    # ---- encode and decode ---------------------------------------------------------------------------------------

    @inference
    def encode(self, block: Blocks) -> Encoded:
        """Encode the next block of each recording; return the codes of all frames that are complete with look-ahead.

        block: float [n] at the codec's rate for a batch of 1; float [B, n], or a list of B arrays [n], whose lengths
        may differ and may be 0. The result may have no frames. Its gains are float32 [B, T], one for each frame, if
        the stream follows the level. Raises AudioError for non-finite or non-float input, or another batch.
        """
        self.steps.network.staged("encoder")  # raises ValueError if it was not loaded
        state, hop = self._encoder, self.steps.hop
        waiting = state["waiting"].tolist()
        rows = [
            torch.cat([rest[:count], block.to(rest)]) if count else block.to(rest)
            for rest, count, block in zip(state["rest"], waiting, self._blocks(block), strict=True)
        ]
        counts = [len(row) // hop for row in rows]
        out = _Frames(self.batch)
        for t in range(max(counts)):
            active = [i for i, count in enumerate(counts) if count > t]
            self._encode_frame(torch.stack([rows[i][t * hop : (t + 1) * hop] for i in active]), active, None, out)
        rest = torch.zeros_like(state["rest"])
        for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
            rest[i, : len(row) - count * hop] = row[count * hop :]
        left = torch.tensor([len(row) - count * hop for row, count in zip(rows, counts, strict=True)], device="cpu")
        self._encoder = self._encoder | {"rest": rest, "waiting": left}
        return self._encoded(out)

    @inference
    def decode(self, codes: Encoded | Tensor | np.ndarray) -> Decoded:
        """Decode the next frames of each recording; return the speech that later frames do not change.

        codes: an `Encoded`, or int [B, K', T] of the stream's layers. The speech is divided by the gains of an
        `Encoded`; without gains it has the codec's level. The result may have no samples. Raises TokensError for codes
        of another codec or another batch, for invalid codes, and for codes after the end of a recording.
        """
        self.steps.network.staged("decoder")  # raises ValueError if it was not loaded
        gain, layers = None, self.layers
        if isinstance(codes, Encoded):
            if codes.token_id != self.token_id:
                self.codec.check_token_id(codes.token_id, "codes")
            counts, samples, layers = codes.num_frames.tolist(), codes.num_samples.tolist(), codes.layers
            gain, codes = codes.gain, codes.codes
        elif not isinstance(codes, (Tensor, np.ndarray)) or codes.ndim != 3:
            raise TokensError("codes are an Encoded, or a tensor or an array [B, K, T]")
        else:
            counts = [codes.shape[2]] * self.batch
            samples = [count * self.steps.hop for count in counts]
        if len(codes) != self.batch:
            raise TokensError(f"codes of {len(codes)} recordings, but the stream has {self.batch}")
        if any(length > count * self.steps.hop for length, count in zip(samples, counts, strict=True)):
            raise TokensError(f"more samples than the frames hold: each has {self.steps.hop} at most")
        if not max(counts):
            return self._decoded([[] for _ in counts])
        codes, first_layer = checked_codes(codes, layers, self.codec.codebook_sizes, self.device)
        total = self._decoder["samples"].tolist()
        if any(samples % self.steps.hop and count for samples, count in zip(total, counts, strict=True)):
            raise TokensError("codes after the last frame of a recording: end it with flush()")
        gain = self._gains(gain, codes.shape[2])
        self._decoder = self._decoder | {
            "samples": torch.tensor([a + b for a, b in zip(total, samples, strict=True)], device="cpu")
        }
        speech: list[list[Tensor]] = [[] for _ in counts]
        for t in range(max(counts)):
            active = [i for i, count in enumerate(counts) if count > t]
            self._decode_frame(codes[active, :, t : t + 1], gain[active, t : t + 1], active, first_layer, None, speech)
        return self._decoded(speech)

    @inference
    def flush(self) -> tuple[Encoded, Decoded]:
        """End the recordings: return the codes of the last frames, and the last speech; the stream then begins anew.

        The last codes are decoded by this stream. Where it only encodes or only decodes, ignore the other result.
        """
        encoded, decoded = self._encoded(_Frames(self.batch)), self._decoded([[] for _ in range(self.batch)])
        if self._encoder:
            encoded = self._flush_encoder()
        if self._decoder:
            before = self.decode(encoded).clips()
            after = self._flush_decoder().clips()
            decoded = self._decoded([list(pair) for pair in zip(before, after, strict=True)])
        self._encoder, self._decoder = self._start()
        return encoded, decoded

    # ---- state ---------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return the state: a flat dict of tensors whose first axis is the batch.

        States of several streams are joined with torch.cat, and divided by indexing.
        """
        return {f"encoder.{name}": tensor for name, tensor in self._encoder.items()} | {
            f"decoder.{name}": tensor for name, tensor in self._decoder.items()
        }

    def restore(self, state: State) -> None:
        """Continue from a state of `state()`. Raises ValueError for that of a stream of another kind or batch."""
        own = self.state()
        for name in own.keys() | state.keys():
            found = [(tensor.dtype, tensor.shape) for tensor in (own.get(name), state.get(name)) if tensor is not None]
            if len(found) < 2 or found[0] != found[1]:
                raise ValueError(
                    f"a state of another kind of stream ({name} differs): call stream() with the batch and gain of the "
                    "stream that it is from, on a codec loaded with the same parts"
                )
        moved = {name: tensor.to(own[name].device, copy=True) for name, tensor in state.items()}
        self._encoder, self._decoder = (
            {name.removeprefix(part): tensor for name, tensor in moved.items() if name.startswith(part)}
            for part in ("encoder.", "decoder.")
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a safetensors file, which `load` reads, in mid-word if need be."""
        write_state(path, self.state(), self.codec.id)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Continue from a file of `save`. Raises ValueError for another file, or a state of another codec or stream."""
        self.restore(read_state(path, self.codec.id))

    def _start(self) -> tuple[State, State]:
        """Return the states of new recordings; that of a part that was not loaded is empty."""
        encoder, decoder = State(), State()
        zeros = torch.zeros(self.batch, dtype=torch.int64, device="cpu")
        if self.steps.network.parts != "decoder":
            rest = torch.zeros(self.batch, self.steps.hop, device=self.device)
            encoder = self.steps.start_encoder(self.batch) | {"rest": rest, "waiting": zeros}
        if self.steps.network.parts != "encoder":
            decoder = self.steps.start_decoder(self.batch) | {"samples": zeros}
        return encoder, decoder

    # ---- frames --------------------------------------------------------------------------------------------------

    def _encode_frame(self, samples: Tensor, active: list[int], end: Tensor | None, out: _Frames) -> None:
        """Encode the next frame of the recordings `active`; add the codes of frames that exist to `out`."""
        state = self._chosen(self._encoder, active)
        codes, gain, new = self.steps.encode(samples, state, self.layers.stop, end)
        self._encoder = self._merged(self._encoder, new, active)
        for j, (i, frame) in enumerate(zip(active, state["frame"].tolist(), strict=True)):
            if frame >= self.steps.encoder_delay:
                out.codes[i].append(codes[j, self.layers])
                if gain is not None:
                    out.gains[i].append(gain[j])

    def _decode_frame(
        self,
        codes: Tensor,
        gain: Tensor,
        active: list[int],
        first_layer: int,
        end: Tensor | None,
        speech: list[list[Tensor]],
    ) -> None:
        """Decode the next frame of the recordings `active`; add the samples of the recordings to `speech`."""
        hop, delay = self.steps.hop, self.steps.decoder_delay
        state = self._chosen(self._decoder, active)
        samples, new = self.steps.decode(codes, gain, state, first_layer, end)
        self._decoder = self._merged(self._decoder, new, active)
        for j, i in enumerate(active):
            first = int(state["frame"][j]) * hop - delay
            begin, stop = max(0, -first), int(state["samples"][j]) - first
            if begin < min(stop, hop):
                speech[i].append(samples[j, begin:stop])

    def _flush_encoder(self) -> Encoded:
        hop, state, out = self.steps.hop, self._encoder, _Frames(self.batch)
        waiting = state["waiting"]
        end = state["frame"] * hop + waiting
        frames = -(-end // hop)
        while active := [i for i in range(self.batch) if self._encoder["frame"][i] < self._last(frames[i])]:
            rest = state["rest"][active] * (self._encoder["frame"] == state["frame"])[active, None].to(state["rest"])
            self._encode_frame(rest, active, end[active], out)
        done = (state["frame"] - self.steps.encoder_delay).clamp_min(0) * hop
        return self._encoded(out, end - done)

    def _last(self, frames: Tensor) -> int:
        """Return the number of steps of a recording of `frames` frames."""
        return int(frames) + self.steps.encoder_delay if frames else 0

    def _flush_decoder(self) -> Decoded:
        speech: list[list[Tensor]] = [[] for _ in range(self.batch)]
        end, needed = self._decoder["frame"], self._decoder["samples"] + self.steps.decoder_delay
        while active := [
            i for i in range(self.batch) if end[i] and self._decoder["frame"][i] * self.steps.hop < needed[i]
        ]:
            codes = torch.zeros(len(active), 1, 1, dtype=torch.int64, device=self.device)
            gain = self._gains(None, 1)[active]
            if "gain" in self._decoder:
                gain = self._decoder["gain"][active, -1:]
            self._decode_frame(codes, gain, active, 0, end[active], speech)
        return self._decoded(speech)

    def _chosen(self, state: State, active: list[int]) -> State:
        """Return the state of the recordings `active`."""
        return state if len(active) == self.batch else {name: tensor[active] for name, tensor in state.items()}

    def _merged(self, state: State, new: State, active: list[int]) -> State:
        """Return `state` with the tensors of `new` for the recordings `active`."""
        if len(active) == self.batch:
            return state | new
        merged = dict(state)
        for name, tensor in new.items():
            merged[name] = state[name].clone()
            merged[name][active] = tensor
        return merged

    # ---- input and output ----------------------------------------------------------------------------------------

    def _blocks(self, block: Blocks) -> list[Tensor]:
        """Return one checked float32 [n] for each recording of the batch; n may be 0."""
        if isinstance(block, (Tensor, np.ndarray)):
            blocks = [block] if block.ndim == 1 else list(block)
        else:
            blocks = list(block)
        if len(blocks) != self.batch:
            raise AudioError(f"blocks of {len(blocks)} recordings, but the stream has {self.batch}")
        return [as_clips([one], None)[0] if len(one) else torch.zeros(0, device="cpu") for one in blocks]

    def _gains(self, gain: Tensor | None, frames: int) -> Tensor:
        """Return the gain of each frame, float32 [B, T], from the gains of an `Encoded`; None: 1."""
        if gain is None:
            gain = torch.ones(self.batch, device=self.device)
        gain = gain.to(self.device)
        return gain if gain.ndim == 2 else gain[:, None].expand(-1, frames)

    def _encoded(self, out: _Frames, num_samples: Tensor | None = None) -> Encoded:
        """Return codes as a padded batch. num_samples: int64 [B] (None: whole frames)."""
        counts = [len(rows) for rows in out.codes]
        codes = torch.zeros(
            self.batch, self.layers.stop - self.layers.start, max(counts), dtype=torch.int64, device=self.device
        )
        gains = None
        if self.steps.has_level:
            gains = torch.ones(self.batch, max(counts), device="cpu")
        for i, rows in enumerate(out.codes):
            if rows:
                codes[i, :, : len(rows)] = torch.cat(rows, 1)
                if gains is not None:
                    gains[i, : len(rows)] = torch.cat(out.gains[i]).cpu()
        if self.steps.gain is not None:
            gains = torch.full((self.batch,), self.steps.gain, device="cpu")
        num_frames = torch.tensor(counts, device="cpu")
        lengths = num_frames * self.steps.hop if num_samples is None else num_samples
        return Encoded(
            codes,
            num_frames,
            lengths,
            self.layers,
            self.token_id,
            self.codec.sample_rate,
            self.codec.frame_rate,
            gains,
        )

    def _decoded(self, speech: list[list[Tensor]]) -> Decoded:
        """Return the pieces of each recording's speech as a padded batch."""
        rows = [torch.cat(pieces) if pieces else torch.zeros(0, device=self.device) for pieces in speech]
        return Decoded(
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(list(map(len, rows)), device="cpu")
        )


class _Frames:
    """The frames of each recording of a batch: codes [K', 1] and gains [1]."""

    def __init__(self, batch: int) -> None:
        self.codes: list[list[Tensor]] = [[] for _ in range(batch)]
        self.gains: list[list[Tensor]] = [[] for _ in range(batch)]
