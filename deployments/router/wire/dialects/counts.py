"""How many messages and tools a request in another dialect may have, before it is translated.

What the translation makes of them is checked again, as a chat completion: pieces of one turn become
one message there.
"""

from __future__ import annotations

from typing import Any

from deployments.config.limits import Limits
from deployments.router.wire.dialects.members import Members
from deployments.router.wire.members import too_much


def check_messages(data: Members, limits: Limits) -> None:
    """Check a body of `/v1/messages` or `/v1/messages/count_tokens`.

    Raises:
        ApiError: 400 with the field, its number and the limit.
    """
    _check("messages", _length(data.get("messages")), limits.messages)
    _check("tools", _length(data.get("tools")), limits.tools)


def check_responses(data: Members, limits: Limits) -> None:
    """Check a body of `/v1/responses`; tools in namespaces count like the others.

    Raises:
        ApiError: 400 with the field, its number and the limit.
    """
    _check("input", _length(data.get("input")), limits.messages)
    tools = data.get("tools")
    _check("tools", _length(tools), limits.tools)
    if isinstance(tools, list):
        inner = (_length(tool["tools"]) for tool in tools if _is_namespace(tool))
        plain = sum(not _is_namespace(tool) for tool in tools)
        _check("tools", plain + sum(inner), limits.tools)
    chosen = data.get("tool_choice")
    if isinstance(chosen, dict):
        _check("tool_choice.tools", _length(chosen.get("tools")), limits.tools)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _is_namespace(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("tools"), list)


def _check(field: str, number: int, most: int) -> None:
    if number > most:
        raise too_much(field, number, most)
