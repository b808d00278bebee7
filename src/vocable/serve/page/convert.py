"""The tab *Convert*: the words of one recording in the voice of another."""

from __future__ import annotations

from collections.abc import AsyncIterator

import gradio as gr

from vocable.serve.page.backend import Backend
from vocable.serve.page.parts import EVENT, busy, messages, note, playable, player, recorder


def add_tab(backend: Backend) -> None:
    """Add the tab."""
    with gr.Tab("Convert", id="convert"):
        note(
            "A language model keeps the first layer of the source, which holds its words, and writes the layers above "
            "in the voice of the second recording. The text of the source helps, if you know it. Use the voices of "
            "people who have agreed to it."
        )
        with gr.Row(equal_height=False):
            with gr.Column():
                source = recorder("Source: the words", "convert-source")
            with gr.Column():
                reference = recorder("Voice: a second or more of speech", "convert-voice")
        text = gr.Textbox(label="Text of the source (optional)", lines=2, elem_id="convert-text")
        with gr.Row():
            start = gr.Button("Convert", variant="primary", elem_id="convert-start")
            stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="convert-stop")
        status = gr.HTML(elem_id="convert-status")
        converted = player("Converted speech", "convert-result")

    async def convert(
        path: str | None, voice: str | None, words: str
    ) -> AsyncIterator[tuple[object, object, object, object]]:
        if path is None or voice is None:
            raise gr.Error("record or upload a source and a voice first", print_exception=False)
        yield gr.Button(interactive=False), gr.Button(interactive=True), busy("Converting"), None
        sound = await backend.convert(path, await backend.recorded_voice(voice), words.strip() or None)
        yield gr.Button(interactive=True), gr.Button(interactive=False), messages(sound.warnings), playable(sound)

    def idle() -> tuple[object, object, object]:
        return gr.Button(interactive=True), gr.Button(interactive=False), ""

    run = start.click(
        convert, [source, reference, text], [start, stop, status, converted], show_progress_on=[converted], **EVENT
    )
    run.failure(idle, None, [start, stop, status], **EVENT)
    stop.click(idle, None, [start, stop, status], cancels=[run], **EVENT)
