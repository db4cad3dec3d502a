"""The shortest request that tells whether a replica does its work."""

from __future__ import annotations

import random
import uuid

import orjson

from deployments.links.frames import ModelRequest
from scheduler.priority import Priority

PROMPT_DIGITS = 16
ADMITTED_S = 1e-3
"""It is not turned away where the queue is full."""


def random_prompt(digits: int) -> str:
    """Never twice the same: the prefix cache would answer for the model."""
    return str(random.randrange(10 ** (digits - 1), 10**digits))


def own_request() -> ModelRequest:
    """One token, ahead of what waits."""
    body = orjson.dumps({"prompt": random_prompt(PROMPT_DIGITS), "max_tokens": 1})
    return ModelRequest(
        "completions",
        body,
        f"probe-{uuid.uuid4().hex}",
        priority=Priority.HIGH,
        waited_s=ADMITTED_S,
    )
