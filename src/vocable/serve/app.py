"""The application: its routes and its engine, which lives as long as the server runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from vocable import __version__
from vocable.serve.engine import Engine
from vocable.serve.settings import Settings


def build(settings: Settings) -> FastAPI:
    """Return the application. `app.state.engine` is its engine, and `app.state.settings` its settings."""
    engine = Engine(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    app = FastAPI(title="vocable", version=__version__, lifespan=lifespan)
    app.state.engine, app.state.settings = engine, settings
    return app
