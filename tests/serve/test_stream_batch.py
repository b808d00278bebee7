"""Streams that are stepped together give what each gives alone."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from codec.test_causal import HOP, make_causal, noise
from vocable.codec.model import SpeechTokenizer
from vocable.codec.token_frames import FrameReader, frame_bytes, header_bytes, header_of, read_frames
from vocable.codec.tokens import Encoded, TokensError
from vocable.pcm import pcm_bytes, pcm_waveform
from vocable.serve.stream_batch import Decoders, Encoders, Output


@pytest.fixture(scope="module")
def codec() -> SpeechTokenizer:
    return make_causal(encoder_look_ahead=2, content_blocks=1, codec={"level": -26.0, "high_pass": 40.0})


def pcm_of(samples: int, seed: int) -> bytes:
    return pcm_bytes(noise(samples, seed).numpy())


def frames_of(codec: SpeechTokenizer, pcm: bytes, layers: slice | None = None) -> bytes:
    """What `vocable stream encode` writes."""
    stream = codec.stream(layers=layers)
    header = header_of(codec, stream.layers, None)
    parts = [stream.encode(torch.from_numpy(pcm_waveform(pcm))), stream.flush()[0]]
    return header_bytes(header, False) + b"".join(frame_bytes(part, header, False) for part in parts)


def speech_of(codec: SpeechTokenizer, frames: bytes) -> bytes:
    """What `vocable stream decode` writes."""
    stream = codec.stream()
    parts = [stream.decode(frame) for frame in read_frames(io.BytesIO(frames))] + [stream.flush()[1]]
    return b"".join(pcm_bytes(part.waveform[0].numpy()) for part in parts)


def run(batch: Encoders | Decoders, inputs: dict[int, list[bytes]]) -> dict[int, list[Output]]:
    """Give each stream one piece between two steps; a stream begins at the step of its number."""
    outputs: dict[int, list[Output]] = {number: [] for number in inputs}
    for now in range(10_000):
        for number, pieces in inputs.items():
            if number == now and isinstance(batch, Encoders):
                outputs[number].append(Output(number, batch.open(number, slice(0, 1 + number % 3))))
            elif number == now:
                batch.open(number)
            if number <= now and number in batch.inputs and now - number < len(pieces):
                batch.add(number, pieces[now - number])
            elif number in batch.inputs and number < now:
                batch.end(number)
        for output in batch.step():
            outputs[output.stream].append(output)
        if all(made and made[-1].last for made in outputs.values()):
            return outputs
    raise AssertionError("the streams do not end")


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def joined(outputs: list[Output]) -> bytes:
    assert [output.error for output in outputs] == [None] * len(outputs)
    return b"".join(output.data for output in outputs)


def test_encoders(codec: SpeechTokenizer) -> None:
    pcm = {0: pcm_of(8 * HOP + 5, 0), 2: pcm_of(HOP, 1), 3: b"", 4: pcm_of(12 * HOP - 1, 2), 7: pcm_of(3, 3)}
    sizes = {0: 2 * HOP, 2: 20, 3: 2, 4: 6 * HOP + 2, 7: 640}
    outputs = run(Encoders(codec), {number: pieces(pcm[number], sizes[number]) for number in pcm})
    for number, made in outputs.items():
        expected = frames_of(codec, pcm[number], slice(0, 1 + number % 3))
        found, wanted = (list(read_frames(io.BytesIO(data))) for data in (joined(made), expected))
        assert len(found) == len(wanted) == -(-len(pcm[number]) // 2 // HOP)
        assert sum(output.used for output in made) == len(pcm[number])
        if wanted:
            one, other = Encoded.joined(found), Encoded.joined(wanted)
            assert torch.equal(one.codes, other.codes) and torch.equal(one.num_samples, other.num_samples)
            torch.testing.assert_close(one.gain, other.gain, atol=0, rtol=3e-4)


def test_decoders(codec: SpeechTokenizer) -> None:
    lengths = {0: 4 * HOP + 5, 1: HOP, 3: 9 * HOP, 6: 7}
    frames = {n: frames_of(codec, pcm_of(length, n), slice(0, 1 + n % 3)) for n, length in lengths.items()}
    outputs = run(Decoders(codec), {n: pieces(frames[n], 9 + 9 * n) for n in frames})
    for n, made in outputs.items():
        found, expected = (
            np.frombuffer(data, "<i2").astype(int) for data in (joined(made), speech_of(codec, frames[n]))
        )
        assert len(found) == lengths[n] and np.abs(found - expected).max() <= 1
        assert sum(output.used for output in made) == len(frames[n])


def test_input_that_cannot_be_used_does_not_affect_the_others(codec: SpeechTokenizer) -> None:
    good = frames_of(codec, pcm_of(12 * HOP, 0))
    other = frames_of(make_causal(n_fft=4 * HOP), pcm_of(12 * HOP, 0))
    header = good[: len(good) - len(list(read_frames(io.BytesIO(good)))) * 8]
    bad = {
        1: (b"no frames at all", "no token frames"),
        2: (other, "but those of this codec are"),
        3: (header + b"\x77\x77" * 3 + b"\0\0", "codes must be 0 to"),
        4: (good[:-1], "cut off"),
        5: (header.replace(b'"hop_length": 32', b'"hop_length": 64') + good[len(header) :], "of other rates"),
        6: (good[: -4 * 8] + b"\xff\xff\x05\x00" + good[-4 * 8 :], "end it with flush"),
    }
    outputs = run(Decoders(codec), {0: pieces(good, 8)} | {n: [data] for n, (data, _) in bad.items()})
    for n, (_, message) in bad.items():
        error = outputs[n][-1].error
        assert error is not None and message in error and "\n" not in error
    assert joined(outputs[0]) == speech_of(codec, good)


def test_a_client_that_sends_much_is_stepped_frame_by_frame(codec: SpeechTokenizer) -> None:
    batch = Encoders(codec)
    for number in (0, 1):
        batch.open(number, None)
    batch.add(0, pcm_of(50 * HOP, 0))
    for _ in range(5):
        batch.add(1, pcm_of(HOP, 1))
        outputs = list(batch.step())
        assert [(output.stream, output.used) for output in outputs] == [(0, 2 * HOP), (1, 2 * HOP)]
    batch.remove(0)
    assert not list(batch.step()) and list(batch.inputs) == [1]
    with pytest.raises(ValueError, match="does not select"):
        batch.open(2, slice(0, 9))
    assert list(batch.inputs) == [1]


@pytest.mark.parametrize("as_json", [False, True])
def test_frames_in_pieces(codec: SpeechTokenizer, as_json: bool) -> None:
    stream = codec.stream()
    header = header_of(codec, stream.layers, None)
    parts = [stream.encode(noise(9 * HOP + 3)), stream.flush()[0]]
    data = header_bytes(header, as_json) + b"".join(frame_bytes(part, header, as_json) for part in parts)
    wanted = Encoded.joined(list(read_frames(io.BytesIO(data))))
    for size in (1, 7, len(data)):
        reader, found = FrameReader(), []
        for piece in pieces(data, size):
            reader.add(piece)
            while (frame := reader.next()) is not None:
                found.append(frame)
        assert len(reader) == 0 and len(found) == 10
        assert torch.equal(Encoded.joined(found).codes, wanted.codes)


@pytest.mark.parametrize(
    "frame",
    [
        {"codes": [[]]},
        {"codes": [10**30, 1, 1]},
        {"codes": [1, 1, 1], "gain": "nan"},
        {"codes": [1, 1, 1], "num_samples": []},
        [],
    ],
    ids=str,
)
def test_frames_that_are_damaged(codec: SpeechTokenizer, frame: object) -> None:
    reader = FrameReader()
    reader.add(header_bytes(header_of(codec, slice(0, 3), None), True) + json.dumps(frame).encode() + b"\n")
    with pytest.raises(TokensError, match="damaged token frame"):
        reader.next()
    deep = FrameReader()
    deep.add(b'{"a":' + b"[" * 60_000 + b"\n")
    with pytest.raises(TokensError, match="no token frames"):
        deep.next()
