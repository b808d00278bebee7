"""The tab *Tokens*: a recording as codes, and the speech that its first layers decode to."""

from __future__ import annotations

import asyncio

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from vocable.serve.page import figures
from vocable.serve.page.backend import Backend, Recording
from vocable.serve.page.parts import EVENT, facts, note, playable, player, recorder

PCM_BITS = 16  #: of a sample of uncompressed audio, which the tokens are compared with


def add_tab(backend: Backend) -> gr.Slider:
    """Add the tab. Returns its slider of layers; its maximum is the number of the codec's layers."""
    with gr.Tab("Tokens", id="tokens"):
        note(
            "Speech becomes a matrix of codes: one column for each frame, one row for each layer. The first layer "
            "holds most of the content; each further layer adds voice and detail."
        )
        recording = gr.State()
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                source = recorder("Your speech", "tokens-source")
                layers = gr.Slider(1, 8, value=8, step=1, label="Layers that are decoded", elem_id="tokens-layers")
                decoded = player("Decoded speech", "tokens-decoded")
                download = gr.DownloadButton("Download tokens", interactive=False, elem_id="tokens-download")
            with gr.Column(scale=7, min_width=320):
                shown = gr.HTML(_EMPTY, elem_id="tokens-figure")
                sizes = gr.HTML(elem_id="tokens-facts")

    async def encode(path: str | None) -> Recording | None:
        return await backend.encode(path) if path else None

    async def show(speech: Recording | None, count: int) -> tuple[object, object, object, object]:
        if speech is None:
            return _EMPTY, "", None, gr.DownloadButton(value=None, interactive=False)
        encoded = speech.first_layers(count)
        sound, bits = await asyncio.gather(backend.decode(encoded), backend.bitrate(count))
        picture = await asyncio.to_thread(
            figures.tokens, speech.waveform, sound.waveform, speech.sample_rate, speech.codes, layers=count
        )
        data = encoded.to_bytes()
        values = {
            "speech": f"{len(speech.waveform) / speech.sample_rate:.1f} s",
            "codes": f"{count} x {speech.codes.shape[1]}",
            "bit/s": f"{bits:.0f}",
            "of 16-bit audio": f"1/{speech.sample_rate * PCM_BITS / bits:.0f}",
            "token file": f"{len(data) / 1000:.1f} kB",
        }
        file = await asyncio.to_thread(save_bytes_to_cache, data, "tokens.safetensors", download.GRADIO_CACHE)
        return picture, facts(values), playable(sound), gr.DownloadButton(value=file, interactive=True)

    outputs = [shown, sizes, decoded, download]
    source.change(encode, source, recording, show_progress_on=[shown], **EVENT).success(
        show, [recording, layers], outputs, show_progress_on=[shown], **EVENT
    )
    layers.change(show, [recording, layers], outputs, trigger_mode="always_last", show_progress_on=[shown], **EVENT)
    return layers


_EMPTY = '<div class="placeholder">Record a sentence, or upload a recording: its tokens are shown here.</div>'
