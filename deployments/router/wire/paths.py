"""Paths that more than one part of the router knows."""

from __future__ import annotations

from deployments.links.frames import Endpoint

ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
}
"""Path -> wire format."""
CHAT = "/v1/chat/completions"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
RESPONSES = "/v1/responses"
CHARGED = frozenset({*ENDPOINTS, MESSAGES, RESPONSES})
"""Paths that use up an API key's budget."""
HEALTH, LIVE, READY = "/health", "/health/live", "/health/ready"
HEALTH_PATHS = frozenset({HEALTH, LIVE, READY})
INDEX_PATH = "/"
FILES_PATH = "/page"


def is_page(path: str) -> bool:
    """Whether a path is one of the page's own, which needs no key."""
    return path == INDEX_PATH or path.startswith(f"{FILES_PATH}/")
