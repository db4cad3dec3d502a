"""`/v1/models`: the models, `auto` and the aliases, for clients of OpenAI and of Anthropic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cluster.naming import AUTO
from deployments.router.decision.decide import Decider
from deployments.router.wire.respond import JsonResponse


class ModelCards:
    """The two routes.

    Args:
        decider: Knows the models.
        since: When the router started, in Unix time: no client needs to know more.
    """

    def __init__(self, decider: Decider, since: int) -> None:
        self._decider = decider
        self._since = since

    async def list_all(self, _: Request) -> Response:
        """Every name that a request may ask for."""
        models = (entry.model for entry in self._decider.directory.entries())
        names = [AUTO, *models, *self._decider.config.aliases]
        pages = {"has_more": False, "first_id": names[0], "last_id": names[-1]}
        cards = [self._card(name) for name in names]
        return JsonResponse({"object": "list", "data": cards, **pages})

    async def get(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["model"]
        if not self._decider.knows(name) and name not in self._decider.config.aliases:
            raise self._decider.unknown_model(name)
        return JsonResponse(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        model = self._decider.config.aliases.get(name, name)
        card = {
            "id": name,
            "object": "model",
            "created": self._since,
            "owned_by": "dynamic-llm-scheduler",
            "type": "model",
            "display_name": name,
            "created_at": datetime.fromtimestamp(self._since, UTC).isoformat(),
        }
        if model != name:
            card["alias_of"] = model
        if model != AUTO:
            description = self._decider.directory[model].description or {}
            card["max_model_len"] = description.get("max_model_len")
            card["capabilities"] = description.get("capabilities")
        return card
