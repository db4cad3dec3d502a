"""A body as vLLM's own types have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel

Body = TypeVar("Body", bound=BaseModel)

# What Python raises at data of another shape.
_BREAKS = (AttributeError, LookupError, TypeError)
# So that nothing is missing, whatever the type.
_PLAIN: Mapping[str, Any] = {"prompt": "x", "messages": [], "input": "x"}
_SHOWN = 100


class UnreadableError(ValueError):
    """A member of a body is of a shape at which vLLM's validation breaks.

    Attributes:
        field: The member, `None` where no single one is to blame.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def as_request(kind: type[Body], payload: Mapping[str, Any]) -> Body:
    """A body as one of vLLM's types.

    Raises:
        ValidationError: It is none.
        UnreadableError: vLLM's validators, some of which see a body before the types of its members
            are checked, break at it.
    """
    try:
        return kind.model_validate(payload)
    except _BREAKS:
        # One member at a time: a large one is read again once only.
        for field in kind.model_fields:
            if field in payload and _breaks(kind, {**_PLAIN, field: payload[field]}):
                shown = orjson.dumps(payload[field])[:_SHOWN].decode(errors="replace")
                raise UnreadableError(f"{field}: cannot be {shown}", field) from None
        raise UnreadableError("the members of the request do not fit together") from None


def _breaks(kind: type[BaseModel], payload: Mapping[str, Any]) -> bool:
    try:
        kind.model_validate(payload)
    except _BREAKS:
        return True
    except Exception:
        # Whatever else is wrong has a message of its own.
        return False
    return False
