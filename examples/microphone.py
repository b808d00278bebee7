"""Hear yourself through a causal codec: python microphone.py MODEL [LAYERS]    (pip install 'vocable[microphone]')

Ctrl-C ends it. Use headphones: a loudspeaker's sound would come back through the microphone.
"""

import contextlib
import queue
import sys

import numpy as np
import sounddevice

from vocable import SpeechTokenizer


def main(model: str, layers: int | None) -> None:
    tokenizer = SpeechTokenizer.from_pretrained(model)
    stream = tokenizer.stream(layers=slice(0, layers) if layers else None)
    heard: queue.Queue[np.ndarray] = queue.Queue()
    settings = {"samplerate": tokenizer.sample_rate, "channels": 1, "dtype": "float32"}

    def take(block: np.ndarray, *_: object) -> None:
        heard.put(block[:, 0].copy())  # sounddevice uses the memory again

    assert tokenizer.delay is not None
    print(f"{tokenizer.id}: the codec's delay is {1000 * (tokenizer.delay + 1) / tokenizer.sample_rate:.0f} ms")
    microphone = sounddevice.InputStream(blocksize=tokenizer.hop_length, callback=take, **settings)
    with microphone, sounddevice.OutputStream(**settings) as loudspeaker:
        while True:
            speech = stream.decode(stream.encode(heard.get())).waveform[0]
            if len(speech):
                loudspeaker.write(speech.numpy()[:, None])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
