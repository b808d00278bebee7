"""The tab *Layers*: the first layers of one recording with the layers above of another."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import gradio as gr
import numpy as np

from vocable.codec.tokens import Encoded
from vocable.conversion import swap_codes
from vocable.serve.page.backend import Backend, Recording
from vocable.serve.page.figures import origins
from vocable.serve.page.parts import EVENT, note, playable, player, recorder


def add_tab(backend: Backend) -> gr.Slider:
    """Add the tab. Returns its slider of layers; its maximum is the number of the codec's layers, less 1."""
    with gr.Tab("Layers", id="layers"):
        note(
            "The first layers of recording A with the layers above of recording B. The words stay those of A; part of "
            "the voice comes from B. The codes of B do not fit the words of A, so the speech loses clarity: "
            "*Convert* does this with a model that writes fitting codes."
        )
        with gr.Row():
            first = recorder("A: the words", "layers-a")
            second = recorder("B: the voice", "layers-b")
        with gr.Row(equal_height=True):
            kept = gr.Slider(1, 7, value=1, step=1, label="Layers of A", scale=3, elem_id="layers-kept")
            swap = gr.Button("Swap layers", variant="primary", scale=1, elem_id="layers-swap")
        with gr.Row():
            forward = player("Words of A, layers above of B", "layers-forward")
            backward = player("Words of B, layers above of A", "layers-backward")
        shown = gr.HTML(elem_id="layers-figure")

    async def exchange(one: str | None, other: str | None, count: int) -> tuple[object, object, object]:
        if one is None or other is None:
            raise gr.Error("record or upload both A and B first", print_exception=False)
        a, b = await asyncio.gather(backend.encode(one), backend.encode(other))
        mixed, reverse = mix(a.encoded, b.encoded, count), mix(b.encoded, a.encoded, count)
        sound, opposite = await asyncio.gather(backend.decode(mixed), backend.decode(reverse))
        picture = await asyncio.to_thread(_draw, a, b, count)
        return playable(sound), playable(opposite), picture

    swap.click(exchange, [first, second, kept], [forward, backward, shown], show_progress_on=[forward], **EVENT)
    return kept


def mix(content: Encoded, voice: Encoded, kept: int) -> Encoded:
    """Return the tokens of `content` with the layers above the first `kept` from `voice`, as `swap_codes` does."""
    return replace(content, codes=swap_codes(content.codes, voice.codes, kept))


def _draw(a: Recording, b: Recording, kept: int) -> str:
    """Draw the codes of A, those of B as long as A, and the mixed ones. Codes that are not used are pale."""
    used = np.arange(len(a.codes)) < kept
    rows = {
        "A": (a.codes, used),
        "B": (mix(a.encoded, b.encoded, 0).codes[0].numpy(), ~used),
        "mixed": (mix(a.encoded, b.encoded, kept).codes[0].numpy(), np.ones_like(used)),
    }
    return origins(rows, len(a.waveform) / a.sample_rate)
