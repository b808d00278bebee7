"""The page as a whole: its head, its tabs, and its look. It uses no font, script or style from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from vocable.serve.jobs import Loaded
from vocable.serve.page import compare, convert, layers, speak, tokens
from vocable.serve.page.backend import Backend
from vocable.serve.page.parts import EVENT

_STYLE = Path(__file__).with_name("style.css")
_KEEP_SECONDS = 3600  # that recordings and results are kept on disk
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def mount_blocks(app: FastAPI) -> Callable[[], None]:
    """Mount the page at / of the service; return a function that ends the connections which open pages keep."""
    backend = Backend(app.state.engine, app.state.settings, app.state.voices)
    gr.mount_gradio_app(
        app,
        _blocks(backend),
        path="/",
        server_name=backend.settings.host,
        server_port=backend.settings.port,
        footer_links=[],
        run_history=False,
        max_file_size=backend.settings.limits.bytes,
        show_error=False,  # errors of the program are in the log of the service
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=gr.themes.Soft(primary_hue="violet", neutral_hue="slate", font=_SANS, font_mono=_MONOSPACE),
        css_paths=_STYLE,
    )
    # The page answers the paths that no route of the service has. Mounted, it would also answer requests with a wrong
    # method, which the service refuses with 405.
    mounted = app.router.routes.pop().app  # type: ignore[attr-defined]
    app.router.default = mounted
    return lambda: mounted.stop_event.set()


def _blocks(backend: Backend) -> gr.Blocks:
    """Return the page."""
    page = gr.Blocks(
        title="vocable", analytics_enabled=False, fill_width=True, delete_cache=(_KEEP_SECONDS, _KEEP_SECONDS)
    )
    with page:
        head = gr.HTML(_head("loading the models …"), elem_id="head")
        with gr.Tabs():
            decoded_layers = tokens.add_tab(backend)
            kept_layers = layers.add_tab(backend)
            convert.add_tab(backend)
            voice = speak.add_tab(backend)
            compare.add_tab(backend)

        async def describe() -> tuple[object, object, object, object]:
            """Show what is loaded, and fit the controls to it."""
            loaded = await backend.loaded()
            most = loaded.codec["num_quantizers"]
            return (
                _head(_summary(loaded)),
                gr.Slider(maximum=most, value=most),
                gr.Slider(maximum=most - 1),
                gr.Dropdown(choices=await speak.voice_choices(backend)),
            )

        page.load(describe, None, [head, decoded_layers, kept_layers, voice], show_progress="hidden", **EVENT)
    # Each event waits for the engine, whose queue is the one that limits the work.
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


def _head(line: str) -> str:
    return f"<h1>vocable</h1><p>Speech as tokens</p><small>{html.escape(line)}</small>"


def _summary(loaded: Loaded) -> str:
    """Return one line about the models."""
    codec = loaded.codec
    size = f"{codec['frame_rate']:g} frames per second of {codec['num_quantizers']} codes"
    speech = f"no speech: {loaded.missing}" if loaded.speech is None else f"speaks {loaded.language}"
    return f"{codec['id']} · {codec['sample_rate'] / 1000:g} kHz · {size} · {speech}"
