"""Metrics for Prometheus, in a registry of each application."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vocable.serve.engine import Engine
from vocable.serve.streams import Streams

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What the service counts and measures."""

    def __init__(self, engine: Engine, streams: Streams) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vocable_requests", "Requests that were answered", ["route", "method", "status"], registry=self.registry
        )
        self.first_byte = self._histogram("vocable_first_byte_seconds", "Time to the first byte of a response")
        self.latency = self._histogram("vocable_request_seconds", "Time to the end of a response")
        self.audio = Counter(
            "vocable_audio_seconds", "Seconds of audio that went in or out", ["kind"], registry=self.registry
        )
        self._gauge("vocable_waiting_jobs", "Jobs that wait for a worker").set_function(lambda: len(engine.waiting))
        self._gauge("vocable_workers", "Workers that have their models").set_function(lambda: len(engine.process_ids))
        self._gauge("vocable_worker_restarts", "Workers that died").set_function(lambda: engine.restarts)
        batches = Histogram("vocable_batch_jobs", "Jobs in a batch", buckets=(1, 2, 4, 8, 16), registry=self.registry)
        engine.on_batch = batches.observe
        self._gauge("vocable_streams", "Streams that are open").set_function(lambda: len(streams))
        self._gauge("vocable_stream_restarts", "Workers of streams that died").set_function(lambda: streams.restarts)
        sizes = (1, 2, 4, 8, 16, 32)
        steps = Histogram("vocable_stream_batch", "Streams in a step", buckets=sizes, registry=self.registry)
        streams.on_step = steps.observe

    def _histogram(self, name: str, description: str) -> Histogram:
        return Histogram(name, description, ["route"], buckets=_SECONDS, registry=self.registry)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that measures each request and each WebSocket, whose status is its close code."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application and measure its response."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        begun, first, status = time.monotonic(), None, 500

        async def heard() -> Message:
            nonlocal status
            message = await receive()
            if message["type"] == "websocket.disconnect":
                status = message["code"]
            return message

        async def measured(message: Message) -> None:
            nonlocal first, status
            if message["type"].endswith("http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.close":
                status = message.get("code", 1000)
            elif first is None and message["type"] != "websocket.accept":
                first = time.monotonic()
            await send(message)

        try:
            await self.app(scope, heard, measured)
        finally:
            # The route's template, because addresses are unlimited in number.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, scope.get("method", "WEBSOCKET"), status).inc()
            self.metrics.latency.labels(route).observe(time.monotonic() - begun)
            if first is not None:
                self.metrics.first_byte.labels(route).observe(first - begun)
