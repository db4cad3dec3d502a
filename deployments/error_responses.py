"""Every error of the router as an OpenAI error object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deployments.openai_api import ApiError, from_scheduler
from scheduler.errors import InvalidRequestError, NoCandidateError


def as_api_error(error: Exception) -> ApiError:
    """The error itself, or a 500 that tells its kind only."""
    if isinstance(error, ApiError):
        return error
    # What it says may be nobody's business; the log has it.
    return ApiError(500, f"internal error: {type(error).__name__}")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    return Response(error.body(), error.status, headers=headers, media_type="application/json")


async def _scheduler_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidRequestError | NoCandidateError)
    return await _api_error(request, from_scheduler(error))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    response = await _api_error(request, ApiError(error.status_code, message))
    # Of a 405: which methods there are.
    response.headers.update(error.headers or {})
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    return await _api_error(request, as_api_error(error))


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    ApiError: _api_error,
    InvalidRequestError: _scheduler_error,
    NoCandidateError: _scheduler_error,
    HTTPException: _http_exception,
    Exception: _unexpected,
}
