"""`GET /v1/decisions`: what was decided, the latest first, and one of them by its id."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from deployments.router.sync.decision_log import DecisionLog
from deployments.router.sync.profiles import ProfileSource
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.respond import JsonResponse


@dataclass(frozen=True)
class DecisionRecords:
    """The handlers.

    Attributes:
        log: This router's.
        profiles: They know the store, which has those of the other routers.
    """

    log: DecisionLog
    profiles: ProfileSource

    async def list_latest(self, request: Request) -> Response:
        """At most `limit` of them, older than `before`.

        Raises:
            ApiError: 400 where one of the two is not what it must be.
        """
        text = request.query_params.get("limit", "100")
        if not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= 10_000:
            raise ApiError(400, f"limit: must be 1..10000, got {text!r}", param="limit")
        before = _unix_time(request.query_params.get("before"))
        records = await self.log.latest(self.profiles.store, int(text), before)
        return JsonResponse({"object": "list", "data": records})

    async def get(self, request: Request) -> Response:
        """One.

        Raises:
            ApiError: 404 where it is not kept.
        """
        decision_id = request.path_params["decision_id"]
        record = await self.log.find(self.profiles.store, decision_id)
        if record is None:
            raise ApiError(404, f"no decision {decision_id!r} is kept", code="decision_not_found")
        return JsonResponse(record)


def _unix_time(text: str | None) -> float:
    try:
        value = math.inf if text is None else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ApiError(400, f"before: must be a Unix time, got {text!r}", param="before")
    return value
