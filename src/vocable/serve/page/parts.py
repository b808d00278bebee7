"""Components that several tabs use, and the conversion of speech to what they show."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
import numpy as np

from vocable.serve.jobs import Sound

_WAVEFORM = gr.WaveformOptions(waveform_color="#94a3b8", waveform_progress_color="#6d5bd0")


def recorder(label: str, elem_id: str) -> gr.Audio:
    """Return a component that records or uploads speech; its value is the path of an audio file."""
    return gr.Audio(
        sources=["microphone", "upload"],
        type="filepath",
        label=label,
        elem_id=elem_id,
        buttons=[],
        waveform_options=_WAVEFORM,
    )


def player(label: str, elem_id: str) -> gr.Audio:
    """Return a component that plays speech; its value is what `playable` returns."""
    return gr.Audio(
        label=label, elem_id=elem_id, interactive=False, buttons=["download"], waveform_options=_WAVEFORM, format="wav"
    )


def playable(sound: Sound) -> tuple[int, np.ndarray]:
    """Return speech as a value of `player`: Hz, and int16 [L]."""
    return sound.sample_rate, (np.clip(sound.waveform, -1, 1) * 32767).round().astype(np.int16)


def note(text: str) -> gr.Markdown:
    """Return a paragraph that explains a tab."""
    return gr.Markdown(text, elem_classes="note")


def facts(values: dict[str, str]) -> str:
    """Return HTML that shows figures with their names."""
    cells = (f"<div><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>" for k, v in values.items())
    return f'<div class="facts">{"".join(cells)}</div>'


def messages(warnings: tuple[str, ...]) -> str:
    """Return HTML that shows the warnings of a job."""
    return "".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in warnings)


def busy(text: str) -> str:
    """Return HTML that says what is being done."""
    return f'<p class="busy">{html.escape(text)}</p>'


#: Options of every event: the page is for people, and the service has an HTTP interface of its own for programs.
EVENT: dict[str, Any] = {"api_visibility": "private"}
