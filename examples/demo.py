"""Reconstruct a clip at four bitrates, and draw what the codec does: python demo.py AUDIO OUT_FOLDER"""

import sys
import time
from pathlib import Path

import matplotlib
import numpy as np

from vocable import SpeechTokenizer, audio

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STOPS = (1, 2, 4, 8)


def main(source: str, out: Path) -> None:
    tokenizer = SpeechTokenizer.from_pretrained()
    waveform, rate = audio.read(source, tokenizer.sample_rate)
    seconds = len(waveform) / rate

    started = time.perf_counter()
    encoded = tokenizer.encode(waveform)
    encode_time = time.perf_counter() - started
    print(f"model   {tokenizer.id}")
    print(f"audio   {seconds:.2f} s -> codes {list(encoded.codes.shape)}: [clips, layers, frames]")
    print(f"encode  RTF {encode_time / seconds:.4f} ({seconds / encode_time:.0f} x real time)")

    decoded = {}
    for stop in STOPS:
        started = time.perf_counter()
        decoded[stop] = tokenizer.decode(encoded, layers=slice(0, stop)).waveform[0]
        took = time.perf_counter() - started
        path = out / f"layers-{stop}.wav"
        audio.write(path, decoded[stop], rate)
        bits = tokenizer.bitrate(slice(0, stop))
        print(f"decode  :{stop}  {bits:4.0f} bit/s  RTF {took / seconds:.4f} ({seconds / took:.0f} x)  {path}")
    audio.write(out / "original.wav", waveform, rate)

    draw(waveform, decoded, encoded.codes[0], rate, seconds, out / "demo.png")
    print(f"drawn   {out / 'demo.png'}")
    print("page    .venv/bin/pip install -e '.[serve,tts]' && .venv/bin/vocable page")
    print("        opens a page in the browser: record, see and hear tokens, convert voices, speak texts")


def draw(waveform, decoded, codes, rate, seconds, path) -> None:  # type: ignore[no-untyped-def]
    """Spectrograms of the original and of each reconstruction, and the codes."""
    rows = {"original": waveform} | {f":{stop}": w.numpy() for stop, w in decoded.items()}
    figure, axes = plt.subplots(len(rows) + 1, 1, figsize=(11, 2 * len(rows) + 3), sharex=True, layout="constrained")
    for axis, (name, samples) in zip(axes, rows.items(), strict=False):
        # Faint noise, because the logarithm of digital silence is minus infinity.
        noise = np.random.default_rng(0).normal(0, 1e-5, len(samples))
        axis.specgram(samples + noise, NFFT=512, Fs=rate, noverlap=384, vmin=-110, vmax=-20, cmap="magma")
        axis.set_ylabel(f"{name}\nHz")
    axes[-1].imshow(
        codes, aspect="auto", interpolation="nearest", extent=(0, seconds, len(codes) + 0.5, 0.5), cmap="viridis"
    )
    axes[-1].set_ylabel("codes\nlayer")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
