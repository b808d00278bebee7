"""The application: its routes and its engine, which lives as long as the server runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from vocable import __version__
from vocable.serve import routes_codec, routes_service, routes_speech, routes_stream
from vocable.serve.engine import Engine
from vocable.serve.errors import add_handlers
from vocable.serve.guard import Guard
from vocable.serve.jobs import Loaded
from vocable.serve.metrics import Measured, Metrics
from vocable.serve.page import mount
from vocable.serve.settings import Settings
from vocable.serve.streams import Streams
from vocable.serve.voices import VoiceStore


def build(settings: Settings) -> FastAPI:
    """Return the application.

    Its state holds `engine`, `streams`, `settings`, `metrics`, `voices` (None: none are kept) and `close_page`, a
    function that a server calls before it waits for its connections to end, as it does `streams.close_all`.
    """
    engine, streams = Engine(settings), Streams(settings)

    def start_streams(loaded: Loaded) -> None:
        if loaded.codec["delay"] is not None:
            streams.start()

    engine.on_loaded = start_streams

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        try:
            yield
        finally:
            await streams.stop()
            await engine.stop()

    app = FastAPI(title="vocable", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.engine, app.state.streams, app.state.settings = engine, streams, settings
    app.state.metrics = Metrics(engine, streams)
    app.state.voices = VoiceStore(Path(settings.voices), most=settings.limits.voices) if settings.voices else None
    for routes in (routes_speech, routes_codec, routes_stream, routes_service):
        app.include_router(routes.router)
    app.state.close_page = mount(app) if settings.page else lambda: None
    add_handlers(app)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Measured, metrics=app.state.metrics)  # the outermost, so that refusals are counted
    return app
