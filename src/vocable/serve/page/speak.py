"""The tab *Speak*: a text as speech, sentence by sentence; the words are lit as they are spoken."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from vocable.lm.synthesis import TAKES
from vocable.serve.encoders import MEDIA_TYPES, encode_file
from vocable.serve.jobs import Sound, Voice
from vocable.serve.page.backend import Backend
from vocable.serve.page.parts import EVENT, busy, messages, note, playable, player, recorder

INVENTED, RECORDED = "invented by the model", "of my recording"
_EXAMPLE = "The quick brown fox jumps over the lazy dog. Every word is written as codes, and then spoken."
_NOTHING: dict[str, Any] = {"sentences": [], "done": True}  #: value of the component that `speech.js` runs
_SCRIPT = Path(__file__).with_name("speech.js")


def add_tab(backend: Backend) -> gr.Dropdown:
    """Add the tab. Returns its list of voices; `voice_choices` returns the choices."""
    most = backend.settings.limits.takes
    with gr.Tab("Speak", id="speak"):
        note("A language model writes the codes of a text, in the voice that you choose, and the codec decodes them.")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                text = gr.Textbox(_EXAMPLE, label="Text", lines=4, elem_id="speak-text")
                with gr.Row():
                    start = gr.Button("Speak", variant="primary", elem_id="speak-start")
                    stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="speak-stop")
                status = gr.HTML(elem_id="speak-status")
                speech = gr.HTML(
                    _NOTHING,
                    html_template=_TEMPLATE,
                    js_on_load=_SCRIPT.read_text(encoding="utf-8"),
                    elem_id="speak-speech",
                )
                whole = player("The whole speech", "speak-whole")
            with gr.Column(scale=2, min_width=280):
                voice = gr.Dropdown([INVENTED, RECORDED], value=INVENTED, label="Voice", elem_id="speak-voice")
                recording = recorder("Recording of the voice", "speak-recording")
                with gr.Accordion("Options", open=False):
                    takes = gr.Slider(
                        1, most, value=min(TAKES, most), step=1, label="Takes", info="The clearest one is spoken."
                    )
                    seed = gr.Number(0, minimum=0, precision=0, label="Seed", info="The same seed, the same speech.")

    async def chosen_voice(choice: str, path: str | None) -> Voice | None:
        if choice == RECORDED:
            if path is None:
                raise gr.Error("record or upload the voice first, or choose another voice", print_exception=False)
            return await backend.recorded_voice(path)
        return None if choice == INVENTED else await backend.prepared_voice(choice)

    async def speak(
        words: str, choice: str, path: str | None, number: int, first: int
    ) -> AsyncIterator[tuple[object, ...]]:
        if not words.strip():
            raise gr.Error("write a text first", print_exception=False)
        prepared = await chosen_voice(choice, path)
        yield gr.Button(interactive=False), gr.Button(interactive=True), busy("Speaking"), _NOTHING, None
        sounds: list[Sound] = []
        sentences: list[dict[str, Any]] = []
        async for sound in backend.speak(words, prepared, takes=int(number), seed=int(first or 0)):
            before = sum(one.seconds for one in sounds)
            sounds.append(sound)
            sentences.append(await asyncio.to_thread(_sentence, sound, before))
            done = sum(len(s.text) for s in sounds) / len(words)
            message = busy(f"Speaking: {min(done, 1):.0%} of the text")
            yield gr.skip(), gr.skip(), message, {"sentences": sentences.copy(), "done": False}, gr.skip()
        warnings = tuple(f"{s.text}: {warning}" for s in sounds for warning in s.warnings)
        joined = Sound(np.concatenate([s.waveform for s in sounds]), sounds[0].sample_rate)
        ended = {"sentences": sentences, "done": True}
        yield gr.Button(interactive=True), gr.Button(interactive=False), messages(warnings), ended, playable(joined)

    def idle() -> tuple[object, ...]:
        return gr.Button(interactive=True), gr.Button(interactive=False), ""

    recording.input(lambda path, choice: RECORDED if path else choice, [recording, voice], voice, **EVENT)
    outputs = [start, stop, status, speech, whole]
    run = start.click(speak, [text, voice, recording, takes, seed], outputs, show_progress="hidden", **EVENT)
    run.failure(idle, None, [start, stop, status], **EVENT)
    stop.click(idle, None, [start, stop, status], cancels=[run], **EVENT)
    return voice


async def voice_choices(backend: Backend) -> list[str]:
    """Return the choices of the list of voices."""
    return [INVENTED, RECORDED, *await backend.voice_names()]


def _sentence(sound: Sound, before: float) -> dict[str, Any]:
    """Return a sentence for `speech.js`: its text, its audio, and [word, start, end] in seconds, or None.

    before: seconds of the speech before the sentence.
    """
    file = encode_file(sound.waveform, sound.sample_rate, "flac")
    audio = f"data:{MEDIA_TYPES['flac']};base64,{base64.b64encode(file).decode()}"
    words = (
        None if sound.words is None else [[word.text, word.start - before, word.end - before] for word in sound.words]
    )
    return {"text": sound.text, "audio": audio, "words": words}


_TEMPLATE = """
<div class="speech">
  <button type="button" class="play" aria-label="play or pause" disabled></button>
  <div class="words" aria-live="polite"></div>
</div>
"""
