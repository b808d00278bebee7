"""The HTTP service: `vocable serve`, or `create_app` for any ASGI server.

jobs    `jobs.py` (jobs, results, errors), `waiting.py` (the bounded queue), `engine.py`, `process.py` (processes)
worker  `worker.py` (the process), `work.py` (its models), `batches.py` (encode and decode), `payloads.py` (files)
streams `streams.py` (channels), `stream_worker.py` (their process), `stream_batch.py` (the streams of a direction)
HTTP    `app.py`, `guard.py` (keys, hosts, sizes), `errors.py`, `metrics.py`, `schemas.py`, `routes_*.py`,
        `responses.py` and `encoders.py` (audio that is sent), `voices.py` (prepared voices)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocable.extras import need
from vocable.serve.settings import Limits, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Limits", "Settings", "create_app"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the service as an ASGI application; its models are loaded when the server starts it.

    Raises ImportError if the extra `serve` is not installed.
    """
    need("fastapi", "serve")
    from vocable.serve.app import build  # imported here, because the settings need no FastAPI

    return build(settings or Settings())
