"""Every `code` of an OpenAI error object that this service gives, and what it means.

The reference lists the same (docs/reference/http.md); a test compares the two. Imports nothing of
the service: the edge of Serve's proxies uses it too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import orjson

MAX_MESSAGE = 2_000
"""Characters of an error's message, which may quote what the client sent."""


class Meaning(NamedTuple):
    """What a code stands for.

    Attributes:
        status: HTTP status that it comes with.
        when: In which case, for readers.
    """

    status: int
    when: str


class ErrorCode(StrEnum):
    """The vocabulary; below 500 the client is to change something, from there on it is not."""

    MALFORMED_REQUEST = "malformed_request"
    BODY_INCOMPLETE = "body_incomplete"
    INVALID_JSON = "invalid_json"
    INVALID_VALUE = "invalid_value"
    LIMIT_EXCEEDED = "limit_exceeded"
    FIELD_NOT_ALLOWED = "field_not_allowed"
    CONSTRAINT_REJECTED = "constraint_rejected"
    REJECTED_BY_ENGINE = "rejected_by_engine"
    UNSUPPORTED = "unsupported"
    NOT_SUPPORTED = "not_supported"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    REQUEST_BREAKS_ENGINE = "request_breaks_engine"
    INVALID_API_KEY = "invalid_api_key"
    NO_API_KEYS = "no_api_keys"
    BARRED_BY_RULES = "barred_by_rules"
    ADMIN_ONLY = "admin_only"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    DECISION_NOT_FOUND = "decision_not_found"
    RESPONSE_NOT_FOUND = "response_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    SLOW_READER = "slow_reader"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    INVALID_ENCODING = "invalid_encoding"
    CONSTRAINTS_NOT_MET = "constraints_not_met"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    ANSWER_NOT_RECORDED = "answer_not_recorded"
    BUDGET_EXCEEDED = "budget_exceeded"
    QUEUE_FULL = "queue_full"
    CONSTRAINT_NOT_TRIED = "constraint_not_tried"
    DEADLINE = "deadline"
    WAKING_FULL = "waking_full"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    ENGINE_ERROR = "engine_error"
    NOT_READY = "not_ready"
    TOO_MANY_STREAMS = "too_many_streams"
    NO_MODEL_AVAILABLE = "no_model_available"
    NO_PROFILE = "no_profile"
    MODEL_FAILED = "model_failed"
    REQUEST_SUSPECTED = "request_suspected"
    WAKE_FAILED = "wake_failed"
    STREAM_BROKEN = "stream_broken"
    STORE_UNAVAILABLE = "store_unavailable"
    UNAVAILABLE = "unavailable"
    VETTING_UNAVAILABLE = "vetting_unavailable"
    TIMEOUT = "timeout"


MEANINGS = {
    ErrorCode.MALFORMED_REQUEST: Meaning(400, "no valid HTTP, or a protocol that is not served"),
    ErrorCode.BODY_INCOMPLETE: Meaning(400, "the client disconnected before the end of the body"),
    ErrorCode.INVALID_JSON: Meaning(400, "not JSON, no object, or nested over a thousand deep"),
    ErrorCode.INVALID_ENCODING: Meaning(400, "the body is not what its content-encoding says"),
    ErrorCode.INVALID_VALUE: Meaning(400, "a field, header or parameter has a wrong type or value"),
    ErrorCode.LIMIT_EXCEEDED: Meaning(400, "over one of the configured limits"),
    ErrorCode.FIELD_NOT_ALLOWED: Meaning(400, "a member for the inside of an engine"),
    ErrorCode.CONSTRAINT_REJECTED: Meaning(400, "a schema, pattern or grammar that is too costly"),
    ErrorCode.REJECTED_BY_ENGINE: Meaning(400, "vLLM rejects the request, in its own words"),
    ErrorCode.UNSUPPORTED: Meaning(400, "vLLM does not have what is asked for"),
    ErrorCode.NOT_SUPPORTED: Meaning(400, "no model takes what is asked for"),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Meaning(400, "it fits into no model's context"),
    ErrorCode.REQUEST_BREAKS_ENGINE: Meaning(400, "its like broke two engines that served others"),
    ErrorCode.INVALID_API_KEY: Meaning(401, "no key, or a wrong one"),
    ErrorCode.NO_API_KEYS: Meaning(403, "not on loopback, and no keys set"),
    ErrorCode.BARRED_BY_RULES: Meaning(403, "the operator's rules leave no model"),
    ErrorCode.ADMIN_ONLY: Meaning(403, "the key is not an administrator's"),
    ErrorCode.ORIGIN_NOT_ALLOWED: Meaning(403, "pages of that origin may not call the API"),
    ErrorCode.NOT_FOUND: Meaning(404, "there is no such path"),
    ErrorCode.MODEL_NOT_FOUND: Meaning(404, "no model of that name is configured"),
    ErrorCode.DECISION_NOT_FOUND: Meaning(404, "no decision of that id is kept"),
    ErrorCode.RESPONSE_NOT_FOUND: Meaning(404, "no response of that id is kept"),
    ErrorCode.METHOD_NOT_ALLOWED: Meaning(405, "the path does not have that method"),
    ErrorCode.BODY_TIMEOUT: Meaning(408, "the body did not arrive in time"),
    ErrorCode.SLOW_READER: Meaning(408, "the client does not read its answer"),
    ErrorCode.BODY_TOO_LARGE: Meaning(413, "the body is too large"),
    ErrorCode.UNSUPPORTED_ENCODING: Meaning(415, "a content-encoding but gzip and zstd"),
    ErrorCode.CONSTRAINTS_NOT_MET: Meaning(422, "no model is predicted to meet the constraints"),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Meaning(422, "the key came with another request before"),
    ErrorCode.ANSWER_NOT_RECORDED: Meaning(422, "the answer to compare with was not recorded"),
    ErrorCode.BUDGET_EXCEEDED: Meaning(429, "the API key's budget is used up"),
    ErrorCode.QUEUE_FULL: Meaning(429, "every model that could answer has a full queue"),
    ErrorCode.CONSTRAINT_NOT_TRIED: Meaning(429, "too busy to find out what a constraint costs"),
    ErrorCode.DEADLINE: Meaning(
        429, "the answer would be late because of the requests ahead of it"
    ),
    ErrorCode.WAKING_FULL: Meaning(429, "as many as may wait for a model that starts"),
    ErrorCode.HEADERS_TOO_LARGE: Meaning(431, "the headers are too large"),
    ErrorCode.INTERNAL_ERROR: Meaning(500, "a fault of this service; the log has it"),
    ErrorCode.ENGINE_ERROR: Meaning(500, "the engine failed on this request; the log has it"),
    ErrorCode.NOT_READY: Meaning(503, "no model can answer yet"),
    ErrorCode.TOO_MANY_STREAMS: Meaning(503, "the router has no file descriptor left for it"),
    ErrorCode.NO_MODEL_AVAILABLE: Meaning(503, "no model is up that could take the request"),
    ErrorCode.NO_PROFILE: Meaning(503, "no model is profiled yet"),
    ErrorCode.MODEL_FAILED: Meaning(503, "the model broke, and no other could take over"),
    ErrorCode.REQUEST_SUSPECTED: Meaning(503, "its like was there when a replica died"),
    ErrorCode.WAKE_FAILED: Meaning(503, "the model at 0 replicas does not start"),
    ErrorCode.STREAM_BROKEN: Meaning(503, "the stream broke, and no other replica could resume it"),
    ErrorCode.STORE_UNAVAILABLE: Meaning(503, "the store does not answer"),
    ErrorCode.VETTING_UNAVAILABLE: Meaning(503, "constraints cannot be tried"),
    ErrorCode.UNAVAILABLE: Meaning(503, "no router takes the request"),
    ErrorCode.TIMEOUT: Meaning(504, "the answer was not ready in time"),
}

DEFAULT_CODES = {
    400: ErrorCode.INVALID_VALUE,
    401: ErrorCode.INVALID_API_KEY,
    403: ErrorCode.ADMIN_ONLY,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    408: ErrorCode.BODY_TIMEOUT,
    413: ErrorCode.BODY_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_ENCODING,
    422: ErrorCode.CONSTRAINTS_NOT_MET,
    429: ErrorCode.QUEUE_FULL,
    431: ErrorCode.HEADERS_TOO_LARGE,
    500: ErrorCode.INTERNAL_ERROR,
    503: ErrorCode.UNAVAILABLE,
    504: ErrorCode.TIMEOUT,
}
"""Of an error that names none, by status."""


def default_code(status: int) -> ErrorCode:
    """The code of an error that names none."""
    if status in DEFAULT_CODES:
        return DEFAULT_CODES[status]
    return ErrorCode.MALFORMED_REQUEST if status < 500 else ErrorCode.INTERNAL_ERROR


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> bytes:
    """An OpenAI error object as JSON.

    Args:
        status: HTTP status that it comes with.
        message: Cut at `MAX_MESSAGE`; what is no text in it is replaced.
        param: Offending field, dotted, `None` where no field is to blame.
        code: One of `ErrorCode`; by the status unless given.
    """
    error: dict[str, Any] = {
        "message": message[:MAX_MESSAGE].encode(errors="replace").decode(),
        "type": "invalid_request_error" if status < 500 else "server_error",
        "param": param,
        "code": str(code or default_code(status)),
    }
    return orjson.dumps({"error": error})
