"""`/v1/models`, `/health` and `/metrics`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from vocable.serve.engine import Engine
from vocable.serve.errors import RETRY_AFTER

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the models: the language models that speak and convert, and the codec."""
    engine: Engine = request.app.state.engine
    found: list[dict[str, Any]] = []
    if (loaded := engine.loaded) is not None:
        if loaded.speech is not None:
            found.append({"id": loaded.speech, "kind": "speech", "language": loaded.language})
        found.append(loaded.codec | {"kind": "codec"})
    return {"object": "list", "data": [{"object": "model", "created": 0, "owned_by": "vocable"} | m for m in found]}


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Answer as long as the service runs."""
    return {"status": "live"}


@router.get("/health/ready")
@router.get("/health")
async def ready(request: Request) -> JSONResponse:
    """Answer 200 if a worker has its models, else 503."""
    engine: Engine = request.app.state.engine
    if engine.ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": engine.failure or "the models are being loaded"}, 503, RETRY_AFTER)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return metrics for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
