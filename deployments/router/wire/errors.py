"""Every error of the router as an OpenAI error object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.no_candidate import from_scheduler
from scheduler.errors import InvalidRequestError, NoCandidateError


def as_api_error(error: Exception) -> ApiError:
    """What the client gets: the error itself, or a 500 that names its kind only."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidRequestError | NoCandidateError):
        return from_scheduler(error)
    # What it says may be confidential; the log has it.
    return ApiError(500, f"internal error: {type(error).__name__}")


async def send_error(error: ApiError, send: Send) -> None:
    """Answer with an error object, on bare ASGI."""
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in error.headers().items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _error(_: Request, error: Exception) -> Response:
    failure = as_api_error(error)
    return Response(
        failure.body(), failure.status, headers=failure.headers(), media_type="application/json"
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = await _error(request, ApiError(error.status_code, message))
    # Of a 405: which methods there are.
    response.headers.update(error.headers or {})
    return response


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    ApiError: _error,
    InvalidRequestError: _error,
    NoCandidateError: _error,
    HTTPException: _http_exception,
    Exception: _error,
}
