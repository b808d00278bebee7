"""Checks of a request before the application sees it: key, host, origin, size. ASGI middleware."""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vocable.serve.errors import ApiError, error_response
from vocable.serve.settings import Settings

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Refuses requests without the key, from pages of other sites, and over the limit of bytes.

    `/health` and the paths below it need no key. A key comes as `Authorization: Bearer KEY`, or as the password of HTTP
    Basic, which browsers ask for.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or answer it with an error."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_health = scope["path"] == "/health" or scope["path"].startswith("/health/")
        if not is_health and (error := self._refusal(headers)):
            status, message = error
            challenge = {"WWW-Authenticate": 'Basic realm="vocable"'} if status == 401 else None
            await error_response(status, message, headers=challenge)(scope, receive, send)
            return
        if scope["type"] == "websocket":  # whose server limits the bytes of a message
            await self.app(scope, receive, send)
            return
        limit = self.settings.limits.bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            await error_response(413, _too_many_bytes(limit))(scope, receive, send)
            return
        await self.app(scope, _limited(receive, limit), send)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        settings = self.settings
        host = headers.get("host", "")
        # Without this check a page of another site reaches the service under a name of its own (DNS rebinding).
        is_open = settings.api_key is None and not settings.no_auth
        if is_open and _split(f"//{host}").hostname not in LOCAL_NAMES:
            return 403, "this service answers to localhost alone: set an API key to use another name"
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != host:
            return 403, "pages of other sites may not use this service"
        if settings.api_key is not None and not hmac.compare_digest(_key(headers), settings.api_key.encode()):
            return 401, "send the API key of this service: Authorization: Bearer KEY"
        return None


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # brackets without an IPv6 address
        return urlsplit("")


def _key(headers: Headers) -> bytes:
    """Return the key that a request has."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return value.strip().encode() if kind.lower() == "bearer" else b""


def _too_many_bytes(limit: int) -> str:
    return f"the request has more than {limit} bytes, which is the limit: send less"


def _limited(receive: Receive, limit: int) -> Receive:
    """Return `receive`, which raises an ApiError when the body exceeds the limit."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise ApiError(413, _too_many_bytes(limit))
        return message

    return limited
