"""Errors as clients see them: a status, and one line in OpenAI's form."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vocable.serve.jobs import Failed, Full, Refused, TooLarge, Unavailable
from vocable.terminal import printable

RETRY_AFTER = {"Retry-After": "1"}
log = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """An error of a request: a status and one line that says what to do."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message)
        self.param, self.code = param, code


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the response of an error: {"error": {"message", "type", "param", "code"}}."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": printable(message), "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)


def add_handlers(app: FastAPI) -> None:
    """Answer every error of the application in this form."""
    for error, handler in _HANDLERS.items():
        app.add_exception_handler(error, handler)


async def _http_error(request: Request, error: Any) -> JSONResponse:
    return _http_error_of(error)


def _http_error_of(error: HTTPException) -> JSONResponse:
    param, code = getattr(error, "param", None), getattr(error, "code", None)
    return error_response(error.status_code, str(error.detail), param=param, code=code, headers=error.headers)


async def _validation_error(request: Request, error: Any) -> JSONResponse:
    return _http_error_of(first_error(error.errors()))


def first_error(errors: Sequence[Any]) -> ApiError:
    """Return the first error of a list of pydantic's, with the name of its field."""
    first = errors[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or None
    return ApiError(422, f"{param or 'body'}: {first['msg']}", param=param)


async def _refused(request: Request, error: Any) -> JSONResponse:
    return error_response(413 if isinstance(error, TooLarge) else 422, str(error))


async def _unavailable(request: Request, error: Any) -> JSONResponse:
    status, code = (429, "queue_full") if isinstance(error, Full) else (503, "unavailable")
    return error_response(status, str(error), code=code, headers=RETRY_AFTER)


async def _failed(request: Request, error: Any) -> JSONResponse:
    return error_response(500, str(error))


async def _unexpected(request: Request, error: Any) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(500, "the service failed; its log says why")


_HANDLERS: dict[type[Exception], Any] = {
    HTTPException: _http_error,
    RequestValidationError: _validation_error,
    Refused: _refused,
    Unavailable: _unavailable,
    Failed: _failed,
    Exception: _unexpected,
}
