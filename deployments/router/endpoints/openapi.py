"""The router's own OpenAPI document, from the types of what it reads.

What vLLM takes besides these fields passes through and is not described here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deployments.router.access.caller import LONGEST_SESSION_ID, SESSION_HEADER
from deployments.router.access.idempotency import HEADER
from deployments.router.endpoints.feedback.route import FeedbackFields
from deployments.router.endpoints.openapi_types import (
    AnthropicErrorObject,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    ErrorObject,
    MessagesPrompt,
    MessagesRequest,
    RerankRequest,
    ResponsesRequest,
    ScoreRequest,
    TokenizeChat,
    TokenizeText,
)
from deployments.router.wire.paths import HEALTH_PATHS


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        bodies: Any of them is taken.
        query: JSON schemas by parameter.
        headers: The same of headers.
        errors: Statuses besides 431, which every path may answer, and 401, 403 and 429, which every
            path but those of `health` may.
        error_object: What each of them has.
    """

    method: Literal["get", "post"]
    path: str
    summary: str
    bodies: tuple[type[BaseModel], ...] = ()
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    error_object: type[BaseModel] = ErrorObject


KEY_HEADER = {
    HEADER: {
        "type": "string",
        "pattern": "^[!-~]{1,255}$",
        "description": "The same key and body within a day get the same answer.",
    }
}
CONVERSATION_HEADER = {
    SESSION_HEADER.decode(): {
        "type": "string",
        "maxLength": LONGEST_SESSION_ID,
        "description": "Names the conversation; without it the first messages do.",
    }
}
BODY_ERRORS = (400, 408, 413, 415)
DECIDING_ERRORS = (*BODY_ERRORS, 404, 422, 500, 503)
OPERATIONS = (
    Operation(
        "post",
        "/v1/chat/completions",
        "OpenAI's chat completion, streaming and not",
        (ChatRequest,),
        headers=KEY_HEADER | CONVERSATION_HEADER,
        errors=(*DECIDING_ERRORS, 504),
    ),
    Operation(
        "post",
        "/v1/completions",
        "OpenAI's completion; text or token ids, one or several",
        (CompletionRequest,),
        headers=KEY_HEADER,
        errors=(*DECIDING_ERRORS, 504),
    ),
    Operation(
        "post",
        "/v1/embeddings",
        "OpenAI's embeddings, by the name of a model that makes them",
        (EmbeddingRequest,),
        headers=KEY_HEADER,
        errors=(*DECIDING_ERRORS, 504),
    ),
    Operation(
        "post",
        "/v1/rerank",
        "documents by how well they fit a query, as vLLM and Jina have it",
        (RerankRequest,),
        headers=KEY_HEADER,
        errors=(*DECIDING_ERRORS, 504),
    ),
    Operation(
        "post",
        "/v1/score",
        "how well pairs of texts fit, as vLLM has it",
        (ScoreRequest,),
        headers=KEY_HEADER,
        errors=(*DECIDING_ERRORS, 504),
    ),
    Operation(
        "post",
        "/v1/messages",
        "Anthropic's message, streaming and not",
        (MessagesRequest,),
        headers=KEY_HEADER | CONVERSATION_HEADER,
        errors=(*BODY_ERRORS, 404, 422, 500, 504, 529),
        error_object=AnthropicErrorObject,
    ),
    Operation(
        "post",
        "/v1/messages/count_tokens",
        "input tokens of a message: the most that any model of the request counts",
        (MessagesPrompt,),
        errors=(*BODY_ERRORS, 404, 500),
        error_object=AnthropicErrorObject,
    ),
    Operation(
        "post",
        "/v1/responses",
        "OpenAI's response, streaming and not",
        (ResponsesRequest,),
        headers=KEY_HEADER | CONVERSATION_HEADER,
        errors=(*DECIDING_ERRORS, 504),
    ),
    Operation(
        "post",
        "/tokenize",
        "token ids of a text or a conversation for one model, as vLLM has it",
        (TokenizeText, TokenizeChat),
        errors=DECIDING_ERRORS,
    ),
    Operation(
        "post",
        "/detokenize",
        "the text that token ids of one model stand for",
        (DetokenizeRequest,),
        errors=DECIDING_ERRORS,
    ),
    Operation(
        "post",
        "/v1/route",
        "a dry run: the decision, nothing dispatched",
        (ChatRequest, CompletionRequest),
        headers=CONVERSATION_HEADER,
        errors=DECIDING_ERRORS,
    ),
    Operation(
        "post",
        "/v1/feedback",
        "feedback on an answer; the last one counts",
        (FeedbackFields,),
        errors=DECIDING_ERRORS,
    ),
    Operation("get", "/v1/models", "the models, and `auto`"),
    Operation("get", "/v1/models/{model}", "one of them", errors=(404,)),
    Operation(
        "get",
        "/v1/decisions",
        "the latest decisions, newest first",
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100},
            "before": {"type": "number", "description": "Unix time."},
        },
        errors=(400,),
    ),
    Operation("get", "/v1/decisions/{decision_id}", "one of them", errors=(404,)),
    Operation("get", "/v1/profiles", "the profile set in use"),
    Operation(
        "get",
        "/v1/live",
        "what happens now, and the decisions that finished after a moment",
        query={"since": {"type": "number", "minimum": 0, "description": "Unix time."}},
        errors=(400,),
    ),
    Operation("get", "/health", "state of the models, faults"),
    Operation("get", "/health/live", "200 while the router's event loop goes round"),
    Operation("get", "/health/ready", "200 once a model can answer", errors=(503,)),
    Operation("get", "/openapi.json", "this document"),
)


def document() -> dict[str, Any]:
    """The document, as OpenAPI 3.1 has it."""
    bodies = {body for operation in OPERATIONS for body in operation.bodies}
    errors = {operation.error_object for operation in OPERATIONS}
    models = sorted(bodies | errors, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Dynamic LLM Scheduler", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    guarded = operation.path not in HEALTH_PATHS
    errors = sorted({*operation.errors, *((401, 403, 429) if guarded else ()), 431})
    described: dict[str, Any] = {
        "summary": operation.summary,
        "security": [{"key": []}] if guarded else [],
        "parameters": [
            *(_parameter("path", name, {"type": "string", "minLength": 1}) for name in names),
            *(_parameter("query", name, schema) for name, schema in operation.query.items()),
            *(_parameter("header", name, schema) for name, schema in operation.headers.items()),
        ],
        "responses": {
            "200": {"description": "as docs/reference/http.md says"},
            **{
                str(status): {
                    "description": _phrase(status),
                    "content": _json_of(_reference(operation.error_object)),
                }
                for status in errors
            },
        },
    }
    if operation.bodies:
        schemas = [_reference(body) for body in operation.bodies]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        described["requestBody"] = {"required": True, "content": _json_of(schema)}
    return described


def _phrase(status: int) -> str:
    return "Overloaded" if status == 529 else HTTPStatus(status).phrase


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _parameter(where: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"in": where, "name": name, "required": where == "path", "schema": schema}


def _json_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
