"""Requests for embeddings and scores in vLLM's own types; private names of vLLM 0.29.0.

tests/integration/test_engine_contract.py holds the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest
from vllm.entrypoints.pooling.scoring.protocol import (
    RerankRequest,
    ScoreDataRequest,
    ScoreQueriesDocumentsRequest,
    ScoreQueriesItemsRequest,
    ScoreTextRequest,
)

from deployments.links.frames import Endpoint
from deployments.replica.engine.requests import as_request

_SCORES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("documents", ScoreQueriesDocumentsRequest),
    ("items", ScoreQueriesItemsRequest),
    ("text_2", ScoreTextRequest),
    ("data_2", ScoreDataRequest),
)
"""The second side of a score -> its form. One form, or an error would name the members of all."""
_SETTINGS = (
    *("dimensions", "top_n", "max_tokens_per_query", "max_tokens_per_doc"),
    *("truncate_prompt_tokens", "padding", "use_activation", "chat_template"),
)


def pooling_request(endpoint: Endpoint, payload: Mapping[str, Any]) -> BaseModel:
    """A body as vLLM has it.

    Args:
        endpoint: One of `POOLING`.
        payload: The body.

    Raises:
        ValidationError: It is none.
        UnreadableError: vLLM's validators break at it.
    """
    kind: type[BaseModel] = EmbeddingCompletionRequest
    if endpoint == "rerank":
        kind = RerankRequest
    elif endpoint == "score":
        kind = next((kind for name, kind in _SCORES if name in payload), ScoreTextRequest)
    return as_request(kind, payload)


def as_http(payload: Mapping[str, Any]) -> Request:
    """What vLLM takes the id of the answer from: here it looks at the header only."""
    headers = [(b"x-request-id", str(payload["request_id"]).encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


def blamed_field(endpoint: Endpoint, payload: Mapping[str, Any], message: str) -> str:
    """The member of a body that an error of vLLM is about, which names few of them itself.

    Args:
        endpoint: One of `POOLING`.
        payload: The body.
        message: Of the error.

    Returns:
        The one that the message has, else that of the texts.
    """
    if endpoint == "embeddings":
        texts = "input"
    elif endpoint == "rerank":
        texts = "documents"
    else:
        texts = next((name for name, _ in _SCORES if name in payload), "text_2")
    return next((name for name in _SETTINGS if name in payload and name in message), texts)
