"""Bounds of what a chat is made of: the parts of its messages, and its documents.

An engine tries every kind of part that there is for a part that is of none, which takes it a
thousand times as long as the router takes to read it.
"""

from __future__ import annotations

from typing import Any

from deployments.config.limits import Limits
from deployments.router.wire.members import too_much
from deployments.router.wire.openai import invalid_value


def check_messages(messages: Any, limits: Limits) -> None:
    """Check roles and contents of all messages; whatever else they have is the engine's to check.

    Raises:
        ApiError: 400 with the first that is no text, or the number of parts.
    """
    if not isinstance(messages, list):
        return
    parts = 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        if not isinstance(role := message.get("role"), str):
            raise invalid_value(f"messages.{index}.role", "must be a text", role)
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        field = f"messages.{index}.content"
        if not isinstance(content, list):
            raise invalid_value(field, "must be a text or a list of parts", content)
        parts += len(content)
        if parts > limits.parts:
            raise too_much(field, parts, limits.parts, " parts of all messages")
        for place, part in enumerate(content):
            if not isinstance(part, dict | str):
                raise invalid_value(f"{field}.{place}", "must be an object", part)


def check_documents(documents: Any) -> None:
    """Check that documents for a chat are objects of texts.

    Raises:
        ApiError: 400 with the first value that is none.
    """
    if not isinstance(documents, list):
        return
    for index, document in enumerate(documents):
        if not isinstance(document, dict):
            raise invalid_value(f"documents.{index}", "must be an object", document)
        for name, value in document.items():
            if not isinstance(value, str):
                raise invalid_value(f"documents.{index}.{name}"[:200], "must be a text", value)
