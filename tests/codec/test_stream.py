"""Streams: what comes out in blocks is what the whole clip gives, and all that is remembered is in the state."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.test_causal import HOP, first_change, make_causal, noise
from conftest import ROOT, differing_frames, make_tiny_paper
from vocable import audio
from vocable.audio import AudioError
from vocable.codec import level
from vocable.codec.model import SpeechTokenizer
from vocable.codec.stream import Stream
from vocable.codec.tokens import Encoded, TokensError

FIELDS = {"content_blocks": 1, "phase_noise": 0.3, "synthesis_n_fft": HOP}
CODECS = {
    "plain": make_causal(),
    "content and noise": make_causal(**FIELDS),
    "look-ahead": make_causal(encoder_look_ahead=3, decoder_look_ahead=5, content_blocks=1, phase_noise=0.3),
    "short frames": make_causal(n_fft=HOP, encoder_look_ahead=1),
    "long frames": make_causal(n_fft=4 * HOP, synthesis_n_fft=4 * HOP, decoder_look_ahead=1),
}
LEVELLED = make_causal(encoder_look_ahead=2, codec={"level": -26.0, "high_pass": 40.0}, **FIELDS)


def run(stream: Stream, blocks: list, encoded_only: bool = False) -> tuple[Encoded, list[torch.Tensor]]:
    """Encode and decode blocks; the codes of all of them, and each recording's speech."""
    codes, speech = [], []
    for block in blocks:
        codes.append(stream.encode(block))
        speech.append(stream.decode(codes[-1]))
    last, rest = stream.flush()
    together = zip(*(part.clips() for part in [*speech, rest]), strict=True)
    return Encoded.joined([*codes, last]), [torch.cat(parts) for parts in together]


def cuts(samples: int, most: int, seed: int) -> list[int]:
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < samples:
        sizes.append(min(int(rng.integers(0, most + 1)), samples - sum(sizes)))
    return sizes


# ---- blocks and the whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CODECS)
@settings(max_examples=6, deadline=None)
@given(samples=st.integers(1, 50 * HOP), most=st.sampled_from([1, 40, 700, 100 * HOP]))
def test_blocks_give_what_the_whole_gives(kind: str, samples: int, most: int) -> None:
    codec = CODECS[kind]
    samples = min(samples, 300 * most)
    clip = noise(samples, seed=samples)
    whole = codec.encode(clip)
    encoded, (speech,) = run(codec.stream(), list(clip.split(cuts(samples, most, samples))))
    assert encoded.num_samples.tolist() == [samples] and encoded.num_frames.tolist() == [-(-samples // HOP)]
    assert differing_frames(codec, clip, whole.codes[0], encoded.codes[0]) <= 1
    expected = codec.decode(encoded).waveform[0]
    assert len(speech) == samples
    torch.testing.assert_close(speech, expected, atol=1e-5, rtol=1e-5)
    steps = (speech.diff() - expected.diff()).abs()
    assert not len(steps) or steps.max() <= 2e-5 * max(1.0, float(expected.abs().max())), "no jump at a seam"


@pytest.mark.parametrize("kind", ["content and noise", "look-ahead"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), most=st.sampled_from([1, 37, 10 * HOP, 100 * HOP]))
def test_codes_do_not_depend_on_the_blocks_by_a_single_bit(kind: str, seed: int, most: int) -> None:
    clip = noise(10 * HOP + seed % 40, seed)
    whole, (one,) = run(CODECS[kind].stream(), [clip])
    parts, (other,) = run(CODECS[kind].stream(), list(clip.split(cuts(len(clip), most, seed))))
    assert torch.equal(whole.codes, parts.codes) and torch.equal(one, other)


@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(0, 25 * HOP), min_size=2, max_size=4), most=st.sampled_from([20, 500, 5000]))
def test_ragged_batches(lengths: list[int], most: int) -> None:
    """Recordings of other lengths, in blocks of other lengths, some of which are empty; one may have no samples."""
    codec = CODECS["look-ahead"]
    clips = [noise(n, seed=i + n) for i, n in enumerate(lengths)]
    pieces = [list(clip.split(cuts(n, most, n))) for clip, n in zip(clips, lengths, strict=True)]
    rounds = max(map(len, pieces))
    blocks = [[p[t] if t < len(p) else torch.zeros(0) for p in pieces] for t in range(rounds)]
    encoded, speech = run(codec.stream(batch=len(clips)), blocks or [[torch.zeros(0)] * len(clips)])
    assert encoded.num_samples.tolist() == lengths
    for i, clip in enumerate(clips):
        assert len(speech[i]) == len(clip)
        if len(clip):
            mine = encoded.codes[i, :, : encoded.num_frames[i]]
            assert differing_frames(codec, clip, codec.encode(clip).codes[0], mine) <= 1
            alone = codec.decode(mine[None], num_samples=[len(clip)]).waveform[0]
            torch.testing.assert_close(speech[i], alone, atol=1e-5, rtol=1e-5)


def test_codes_come_as_soon_as_the_look_ahead_is_there() -> None:
    codec = CODECS["look-ahead"]
    stream = codec.stream()
    counts = [int(stream.encode(noise(HOP, t)).num_frames) for t in range(6)]
    assert counts == [0, 0, 0, 1, 1, 1]
    assert not stream.encode(noise(HOP - 1)).num_frames and stream.encode(noise(1)).num_frames == 1


@pytest.mark.parametrize("kind", CODECS)
def test_the_delay_is_that_of_the_codec(kind: str) -> None:
    """Speech before sample t - delay is out before sample t comes in, and not a sample more is known."""
    codec = CODECS[kind]
    delay = codec.delay
    assert delay is not None
    clip = noise(24 * HOP)
    stream = codec.stream()
    heard, nearest = int(stream.decode(stream.encode(clip[: 16 * HOP])).num_samples), len(clip)
    for t in range(16 * HOP, len(clip)):
        heard += int(stream.decode(stream.encode(clip[t : t + 1])).num_samples)
        nearest = min(nearest, heard - (t + 1 - delay))
    assert nearest == 0
    other = clip.clone()
    other[20 * HOP :] += 0.1
    speech = [run(codec.stream(), [one])[1][0] for one in (clip, other)]
    assert first_change(*speech) >= 20 * HOP - delay


def test_layers() -> None:
    codec, clip = CODECS["plain"], noise(9 * HOP)
    encoded, (speech,) = run(codec.stream(layers=slice(0, 1)), [clip])
    assert encoded.layers == slice(0, 1)
    assert torch.equal(encoded.codes, run(codec.stream(), [clip])[0].codes[:, :1])
    torch.testing.assert_close(speech, codec.decode(encoded).waveform[0], atol=1e-5, rtol=1e-5)
    stream = codec.stream(layers=slice(1, 3))
    upper = codec.encode(clip, layers=slice(1, 3))
    heard = [stream.decode(upper.codes[..., :4]), stream.decode(upper.codes[..., 4:]), stream.flush()[1]]
    speech = torch.cat([piece.waveform[0] for piece in heard])
    torch.testing.assert_close(speech, codec.decode(upper).waveform[0], atol=1e-5, rtol=1e-5)


# ---- level ---------------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(samples=st.integers(1, 60 * HOP), most=st.sampled_from([30, 900]))
def test_a_fixed_gain_is_that_of_encode_long(samples: int, most: int) -> None:
    clip = noise(samples, samples)
    encoded, (speech,) = run(LEVELLED.stream(gain=0.5), list(clip.split(cuts(samples, most, samples))))
    whole = LEVELLED.encode_long([clip], gain=0.5)
    assert encoded.gain is not None and encoded.gain.tolist() == [0.5]
    differ = (encoded.codes != whole.codes).any(1).sum()
    assert differ <= 1, "but for near ties"
    torch.testing.assert_close(speech, LEVELLED.decode(encoded).waveform[0], atol=2e-5, rtol=1e-5)


def test_a_running_level_is_followed_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level, "PRIOR_SECONDS", 0.01)  # the frames are short too
    monkeypatch.setattr(level, "MEMORY_SECONDS", 0.5)
    clip = torch.cat([0.1 * noise(150 * HOP), noise(100 * HOP, 1)])
    encoded, (speech,) = run(LEVELLED.stream(), [clip])
    gain = encoded.gain
    assert gain is not None and gain.shape == (1, 250) and (gain[0, 1:] / gain[0, :-1]).log().abs().max() < 0.7
    target = 10 ** (-26 / 20)
    assert gain[0, 149] == pytest.approx(target / (0.1 * 0.2), rel=0.15)
    assert target / 0.2 < gain[0, 249] < gain[0, 149], "slowly"
    for suffix in (".safetensors", ".npz", ".jsonl"):
        encoded.save(tmp_path / f"tokens{suffix}")
        loaded = Encoded.load(tmp_path / f"tokens{suffix}")
        assert loaded.gain is not None and torch.equal(loaded.gain, gain)
    torch.testing.assert_close(speech, LEVELLED.decode(loaded).waveform[0], atol=2e-5, rtol=1e-4)
    together = torch.cat(list(LEVELLED.decode_long(loaded, chunk_frames=37)))
    torch.testing.assert_close(speech, together, atol=2e-5, rtol=1e-4)
    louder, _ = run(LEVELLED.stream(), [2 * clip])
    assert louder.gain is not None
    assert (louder.gain[0, -1] / gain[0, -1]).item() == pytest.approx(0.5, rel=0.05)


def test_a_ragged_batch_keeps_its_gains() -> None:
    clips = [noise(30 * HOP), 0.2 * noise(50 * HOP, 1)]
    encoded, speech = run(LEVELLED.stream(batch=2), clips_in_blocks(clips))
    for i, (clip, mine) in enumerate(zip(clips, encoded.clips(), strict=True)):
        alone, (spoken,) = run(LEVELLED.stream(), [clip])
        torch.testing.assert_close(mine.gain, alone.gain)
        if torch.equal(mine.codes, alone.codes):
            torch.testing.assert_close(speech[i], spoken, atol=2e-5, rtol=1e-4)


def clips_in_blocks(clips: list[torch.Tensor], size: int = 7 * HOP) -> list[list[torch.Tensor]]:
    rounds = -(-max(map(len, clips)) // size)
    return [[clip[t * size : (t + 1) * size] for clip in clips] for t in range(rounds)]


# ---- state ---------------------------------------------------------------------------------------------------------


def test_a_saved_state_continues_in_mid_word(tmp_path: Path) -> None:
    clip = noise(30 * HOP + 5)
    expected, (speech,) = run(LEVELLED.stream(), [clip])
    first = LEVELLED.stream()
    codes = [first.encode(clip[: 10 * HOP + 3])]
    heard = [first.decode(codes[0])]
    first.save(tmp_path / "state.safetensors")
    first.encode(noise(500))
    second = LEVELLED.stream()
    second.load(tmp_path / "state.safetensors")
    codes.append(second.encode(clip[10 * HOP + 3 :]))
    heard.append(second.decode(codes[1]))
    last, rest = second.flush()
    assert torch.equal(Encoded.joined([*codes, last]).codes, expected.codes)
    assert torch.equal(torch.cat([part.waveform[0] for part in (*heard, rest)]), speech)


def test_states_are_flat_dicts_that_are_joined_and_divided() -> None:
    codec = CODECS["content and noise"]
    clips = [noise(8 * HOP + 5), noise(11 * HOP, 1)]
    streams = [codec.stream(), codec.stream()]
    for stream, clip in zip(streams, clips, strict=True):
        stream.encode(clip)
    states = [stream.state() for stream in streams]
    assert all(isinstance(tensor, torch.Tensor) and len(tensor) == 1 for tensor in states[0].values())
    both = codec.stream(batch=2)
    both.restore({name: torch.cat([state[name] for state in states]) for name in states[0]})
    together = both.encode([noise(5 * HOP, 2)] * 2)
    for i, stream in enumerate(streams):
        assert torch.equal(together.clips()[i].codes, stream.encode(noise(5 * HOP, 2)).codes)
    alone = codec.stream()
    alone.restore({name: tensor[1:] for name, tensor in both.state().items()})
    assert torch.equal(alone.encode(noise(99)).codes, streams[1].encode(noise(99)).codes)


def test_a_state_that_was_handed_out_does_not_change() -> None:
    stream = CODECS["plain"].stream()
    stream.decode(stream.encode(noise(5 * HOP)))
    state = stream.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    stream.decode(stream.encode(noise(5 * HOP)))
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_states_that_cannot_be_used(tmp_path: Path) -> None:
    stream = CODECS["plain"].stream()
    path = tmp_path / "state.safetensors"
    stream.save(path)
    with pytest.raises(ValueError, match="a state of the codec"):
        CODECS["look-ahead"].stream().load(path)
    with pytest.raises(ValueError, match="of another kind of stream"):
        CODECS["plain"].stream(batch=2).load(path)
    with pytest.raises(ValueError, match="of another kind of stream"):
        LEVELLED.stream(gain=1.0).restore(LEVELLED.stream().state())
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["vocable"])
    tensors = {name: tensor.clone() for name, tensor in stream.state().items()}
    safetensors.torch.save_file(tensors, path, {"vocable": json.dumps(header | {"version": "9"})})
    with pytest.raises(ValueError, match="unknown version '9'"):
        stream.load(path)
    path.write_bytes(b"no such file")
    for damaged in (path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="not a saved state"):
            stream.load(damaged)


def test_a_stream_begins_anew_after_flush() -> None:
    stream, clip = LEVELLED.stream(), noise(9 * HOP + 7)
    first, (spoken,) = run(stream, [clip])
    again, (same,) = run(stream, list(clip.split(100)))
    assert torch.equal(first.codes, again.codes) and torch.equal(spoken, same)


def test_two_streams_in_two_threads() -> None:
    codec = CODECS["content and noise"]
    clips = [noise(60 * HOP, seed) for seed in range(4)]
    alone = [run(codec.stream(), [clip]) for clip in clips]
    found: dict[int, tuple[Encoded, list[torch.Tensor]]] = {}

    def work(i: int) -> None:
        with torch.inference_mode(i % 2 == 0):
            found[i] = run(codec.stream(), list(clips[i].split(50 + i)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (encoded, (speech,)) in enumerate(alone):
        assert torch.equal(found[i][0].codes, encoded.codes) and torch.equal(found[i][1][0], speech)


# ---- what cannot be used -------------------------------------------------------------------------------------------


def test_codecs_that_cannot_stream(tiny: SpeechTokenizer) -> None:
    for codec in (tiny, make_tiny_paper(bidirectional=False)):
        with pytest.raises(ValueError, match=r"cannot stream, because .* encode_long"):
            codec.stream()


def test_input_that_cannot_be_used() -> None:
    stream = CODECS["plain"].stream()
    with pytest.raises(ValueError, match="batch must be at least 1"):
        CODECS["plain"].stream(batch=0)
    with pytest.raises(ValueError, match="for a codec with a level only"):
        CODECS["plain"].stream(gain=2.0)
    with pytest.raises(AudioError, match="blocks of 2 recordings, but the stream has 1"):
        stream.encode([noise(9), noise(9)])
    with pytest.raises(AudioError, match="NaN"):
        stream.encode(torch.full((9,), torch.nan))
    with pytest.raises(AudioError, match="floats with full scale"):
        stream.encode(np.zeros(9, np.int16))
    with pytest.raises(TokensError, match="codes are an Encoded"):
        stream.decode([1, 2])  # type: ignore[arg-type]
    with pytest.raises(TokensError, match="codes of 2 recordings"):
        stream.decode(torch.zeros(2, 3, 4, dtype=torch.int64))
    with pytest.raises(TokensError, match="load the codec of"):
        stream.decode(CODECS["look-ahead"].encode(noise(99)))
    with pytest.raises(TokensError, match="codes must be 0 to 31"):
        stream.decode(torch.full((1, 3, 4), 32))
    stream.decode(CODECS["plain"].encode(noise(99)))
    with pytest.raises(TokensError, match="after the last frame"):
        stream.decode(CODECS["plain"].encode(noise(99)))


@pytest.mark.parametrize("parts", ["encoder", "decoder"])
def test_a_part_alone(parts: str, tmp_path: Path) -> None:
    LEVELLED.save_pretrained(tmp_path)
    stream = SpeechTokenizer.from_pretrained(tmp_path, parts=parts).stream()
    clip = noise(20 * HOP + 1)
    expected, (speech,) = run(LEVELLED.stream(), [clip])
    if parts == "encoder":
        codes = [stream.encode(clip), stream.flush()[0]]
        assert torch.equal(Encoded.joined(codes).codes, expected.codes)
        with pytest.raises(ValueError, match="without its decoder"):
            stream.decode(expected)
    else:
        heard = [stream.decode(expected), stream.flush()[1]]
        torch.testing.assert_close(torch.cat([piece.waveform[0] for piece in heard]), speech, atol=1e-5, rtol=1e-5)
        with pytest.raises(ValueError, match="without its encoder"):
            stream.encode(clip)


@pytest.mark.parametrize("options", [{"recurrence": "bfloat16"}, {"dtype": torch.bfloat16}])
def test_number_formats(options: dict[str, object], tmp_path: Path) -> None:
    CODECS["look-ahead"].save_pretrained(tmp_path)
    codec, clip = SpeechTokenizer.from_pretrained(tmp_path, **options), noise(30 * HOP)
    encoded, (speech,) = run(codec.stream(), [clip])
    assert (encoded.codes == codec.encode(clip).codes).float().mean() > 0.7 and len(speech) == len(clip)
    codec.stream().restore(codec.stream().state())


# ---- real speech ---------------------------------------------------------------------------------------------------


def test_real_speech(shared: Path) -> None:
    codec = SpeechTokenizer.from_pretrained(ROOT / "models" / "fast-2")
    assert codec.delay == 3 * 320 - 1 + 160, "70 ms"
    row = json.loads((shared / "data" / "eval.jsonl").read_text().splitlines()[0])
    clip = torch.from_numpy(audio.read(shared / "data" / row["path"], 16_000)[0])[8_000:40_123]
    whole = codec.encode_long([clip], gain=2.0)
    encoded, (speech,) = run(codec.stream(gain=2.0), list(clip.split(cuts(len(clip), 4_000, 0))))
    assert (encoded.codes != whole.codes).any(1).sum() <= 1
    torch.testing.assert_close(speech, codec.decode(encoded).waveform[0], atol=1e-5, rtol=0)
