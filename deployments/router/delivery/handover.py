"""Which other model goes on with an answer that broke, and what it is asked.

From nothing where the client has got nothing; behind the text or the reasoning; or, where a tool
call has begun with nothing but the tool's name, with that call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from deployments.links.frames import Endpoint
from deployments.router.delivery.attempts import Attempt
from deployments.router.delivery.continuation import (
    PLAIN_FORMS,
    continued_payload,
    reopened_payload,
)
from deployments.router.delivery.said import Said
from deployments.router.models import ModelDirectory
from deployments.router.wire.openai import ParsedRequest
from scheduler.capabilities import Feature
from scheduler.types import Candidate, Decision


def capabilities_of(directory: ModelDirectory, model: str) -> Mapping[str, Any]:
    """What a model's replicas say that they take, empty where they say nothing."""
    description = directory[model].description or {}
    return description.get("capabilities") or {}


@dataclass(frozen=True, slots=True)
class Handover:
    """One answer that is to go on elsewhere.

    Attributes:
        payload: The request as the client sent it.
        said: What the client has got.
        generated: Tokens of it.
        tried: Models that have been asked.
    """

    directory: ModelDirectory
    decision: Decision
    parsed: ParsedRequest
    endpoint: Endpoint
    payload: dict[str, Any]
    said: Said
    generated: int
    tried: frozenset[str]

    @property
    def behind(self) -> bool:
        """The next model goes on behind text or reasoning, which is a part of its prompt."""
        return not self.said.nothing and not self.said.calls

    def model(self, spare: int = 0) -> str | None:
        """The best model of the decision that is left and can, `None` where none is.

        Args:
            spare: Replicas that it must have besides the one that is asked.
        """
        links = self.directory.links
        left = [
            candidate.model
            for candidate in self.decision.candidates
            if candidate.model not in self.tried
            and self.directory.why_not(candidate.model) is None
            and (not spare or links.usable(candidate.model) > spare)
            and self._can(candidate)
        ]
        # Where no suspect runs, if there is such a model.
        return min(left, key=self.directory.under_suspicion, default=None)

    def why_none(self) -> str | None:
        """Why no model can, where that is for what the client has got already; else `None`."""
        if self.said.calls and self.said.reopenable is None:
            return "a tool call has begun"
        up = (
            candidate.model
            for candidate in self.decision.candidates
            if candidate.model not in self.tried and self.directory.why_not(candidate.model) is None
        )
        if self.said.nothing or next(up, None) is None:
            return None
        if self.said.calls:
            return "no other model calls a tool by its name"
        if self.endpoint == "completions" and not isinstance(self.payload["prompt"], str):
            return "no other model understands its prompt of token ids"
        what = "reasoning" if self.said.reasoning else "text"
        return f"no other model can go on behind its {what}, or has room for it"

    def request(self, model: str) -> tuple[Attempt, bytes]:
        """The try on a model that `model` gave, and its body."""
        if self.said.nothing:
            return Attempt(model), orjson.dumps(self.payload)
        if tool := self.said.reopenable:
            body = orjson.dumps(reopened_payload(self.payload, tool))
            return Attempt(model, "by tool call", exact=False), body
        return Attempt(model, "by text", exact=False), orjson.dumps(self._continued(model))

    def _can(self, candidate: Candidate) -> bool:
        if self.said.nothing:
            return True
        model = candidate.model
        if self.said.calls:
            takes = Feature.TOOL_CHOICE not in self.directory[model].capabilities.lacks
            return takes and self.said.reopenable is not None
        return self._has_room(candidate) and self._continued(model) is not None

    def _continued(self, model: str) -> dict[str, Any] | None:
        forms = capabilities_of(self.directory, model).get("continues", PLAIN_FORMS)
        return continued_payload(self.payload, self.endpoint, self.said, self.generated, forms)

    def _has_room(self, candidate: Candidate) -> bool:
        """Whether the rest of an answer fits behind its beginning, as far as is known."""
        description = self.directory[candidate.model].description or {}
        limit, prediction = description.get("max_model_len"), candidate.prediction
        if limit is None or not prediction.input_tokens_exact:
            return True
        left = max((self.parsed.max_tokens or 0) - self.generated, 1)
        return bool(prediction.input_tokens + self.generated + left <= limit)
