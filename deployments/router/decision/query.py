"""One request on its way to a decision, with what the advisors find out about it."""

from __future__ import annotations

from typing import TypeVar

from deployments.router.access.caller import Caller
from deployments.router.wire.openai import ParsedRequest
from scheduler.extras import of_kind
from scheduler.prompts.features import TextFeatures, extract

T = TypeVar("T")


class Query:
    """A parsed request and its sender.

    Args:
        parsed: The request.
        caller: Its sender; `None` for the router's own requests, which rules, canaries and
            sessions leave alone.

    Attributes:
        parsed: The same.
        caller: The same.
    """

    __slots__ = ("_features", "_notes", "caller", "parsed")

    def __init__(self, parsed: ParsedRequest, caller: Caller | None = None) -> None:
        self.parsed = parsed
        self.caller = caller
        self._features: TextFeatures | None = None
        self._notes: dict[type, object] = {}

    @property
    def key(self) -> str | None:
        """Name of the API key that asks, `None` where there is none."""
        return self.caller.key if self.caller else None

    @property
    def features(self) -> TextFeatures:
        """Of the prompt's text; extracted once, and only where something asks for them."""
        if self._features is None:
            self._features = extract(self.parsed.text)
        return self._features

    def note(self, value: object) -> None:
        """Keep a value until the request is over; one of each type."""
        self._notes[type(value)] = value

    def noted(self, kind: type[T]) -> T | None:
        """The value of one type that was kept, `None` where there is none."""
        return of_kind(self._notes, kind)
