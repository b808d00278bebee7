"""The commands `vocable stream encode`, `decode` and `loop`, from standard input to standard output."""

from __future__ import annotations

import sys
import time

import typer

from vocable.cli.options import parse_layers

app = typer.Typer(
    help="Encode and decode speech while it comes, from standard input to standard output.",
    no_args_is_help=True,
    add_completion=False,
)

_MODEL = typer.Option(None, "-m", "--model", help="A causal codec: a folder or a hub id.")
_LAYERS = typer.Option(None, help="Layers to write: :1 for RVQ-1, 1:4, ... (default: all).")
_GAIN = typer.Option(None, help="The factor before the encoder (default: follow the level of the speech).")
_RATE = typer.Option(None, help="Sample rate of raw PCM in Hz (default: the codec's); a WAV header states its own.")


@app.command()
def encode(
    model: str = _MODEL,
    layers: str = _LAYERS,
    gain: float = _GAIN,
    rate: int = _RATE,
    json: bool = typer.Option(False, "--json", help="Write a line of JSON for each frame, not bytes."),
) -> None:
    """Encode raw PCM (16 bits, mono, little-endian) or WAV to token frames."""
    chosen = parse_layers(layers)

    from vocable.codec.model import SpeechTokenizer
    from vocable.codec.token_frames import frame_bytes, header_bytes, header_of
    from vocable.pcm import read_pcm

    codec = SpeechTokenizer.from_pretrained(model, parts="encoder")
    stream = codec.stream(layers=chosen, gain=gain)
    header = header_of(codec, stream.layers, gain)
    _write(header_bytes(header, json))
    for block in read_pcm(sys.stdin.buffer, codec.sample_rate, rate, codec.hop_length):
        _write(frame_bytes(stream.encode(block), header, json))
    _write(frame_bytes(stream.flush()[0], header, json))


@app.command()
def decode(model: str = _MODEL) -> None:
    """Decode token frames to raw PCM (16 bits, mono, little-endian) at the codec's sample rate."""
    from vocable.codec.model import SpeechTokenizer
    from vocable.codec.token_frames import read_frames
    from vocable.pcm import pcm_bytes

    stream = SpeechTokenizer.from_pretrained(model, parts="decoder").stream()
    for frame in read_frames(sys.stdin.buffer):
        _write(pcm_bytes(stream.decode(frame).waveform[0].numpy()))
    _write(pcm_bytes(stream.flush()[1].waveform[0].numpy()))


@app.command()
def loop(model: str = _MODEL, layers: str = _LAYERS, gain: float = _GAIN, rate: int = _RATE) -> None:
    """Encode and decode PCM at once; print the delay and the load on standard error at the end."""
    chosen = parse_layers(layers)

    from vocable.codec.model import SpeechTokenizer
    from vocable.pcm import pcm_bytes, read_pcm

    codec = SpeechTokenizer.from_pretrained(model)
    stream = codec.stream(layers=chosen, gain=gain)
    samples, busy = 0, 0.0
    for block in read_pcm(sys.stdin.buffer, codec.sample_rate, rate, codec.hop_length):
        begin = time.perf_counter()
        speech = stream.decode(stream.encode(block)).waveform[0].numpy()
        busy, samples = busy + time.perf_counter() - begin, samples + len(block)
        _write(pcm_bytes(speech))
    _write(pcm_bytes(stream.flush()[1].waveform[0].numpy()))
    assert codec.delay is not None
    delay, seconds = 1000 * (codec.delay + 1) / codec.sample_rate, max(1, samples) / codec.sample_rate
    frame = 1000 * busy * codec.hop_length / max(1, samples)
    typer.echo(
        f"delay {delay:.0f} ms, load {100 * busy / seconds:.0f} % of the time: {frame:.2f} ms for each frame of "
        f"{1000 / codec.frame_rate:.0f} ms",
        err=True,
    )


def _write(data: bytes) -> None:
    """Write to standard output at once, because the reader waits for each frame."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
