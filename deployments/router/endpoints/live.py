"""`GET /v1/live`: what goes on at this moment, in one small answer for those who look often.

Reads what the router has anyway: models, drift, the replicas' load reports, finished decisions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cluster.store.load import ReplicaLoad
from deployments.router.access.budgets import Account
from deployments.router.decision.decide import Decider
from deployments.router.sync.decision_log import DecisionLog
from deployments.router.sync.profiles import ProfileSource
from deployments.router.sync.shared import SharedState
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.respond import JsonResponse
from scheduler.types import ModelState

MOST_DECISIONS = 500
"""The latest ones; who looks every few seconds misses none at a hundred a second."""

REPLICA_FIELDS = (
    "model",
    "replica_id",
    "node_id",
    "accelerator",
    "device",
    "ongoing",
    "tokens_in_flight",
    "tokens_per_s",
    "power_watts",
    "meter_fault",
)
"""What of a load report is for everybody; where a replica listens is not."""


def live_view(
    decider: Decider, profiles: ProfileSource, shared: SharedState, log: DecisionLog
) -> Callable[[Request], Awaitable[Response]]:
    """The handler, over the parts of a router."""

    async def live(request: Request) -> Response:
        since = _since(request)
        # Taken before the decisions: what finishes meanwhile comes with the next answer.
        now = time.time()
        records = []
        if _may_see_decisions(request):
            records = await log.latest(profiles.store, MOST_DECISIONS, since=since)
        replicas = shared.loads.replicas if shared.loads.fresh else ()
        view = {
            "now": now,
            "profile_version": profiles.current.version,
            "routers": shared.loads.routers,
            "models": [model_row(state) for state in decider.state().models],
            "replicas": [replica_row(load) for load in replicas],
            "decisions_shown": _may_see_decisions(request),
            "decisions": [decision_row(record) for record in records],
        }
        return JsonResponse(view)

    return live


def model_row(state: ModelState) -> dict[str, Any]:
    """One model: whether it can answer, how busy it is, how far its profile is off now."""
    return {
        "model": state.model,
        "available": state.unavailable is None,
        "reason": state.unavailable,
        "replicas": state.replicas,
        "ongoing": state.ongoing,
        "slots": state.slots,
        "drift": {
            "runtime": asdict(state.runtime_correction),
            "energy": asdict(state.energy_correction),
        },
    }


def replica_row(load: ReplicaLoad) -> dict[str, Any]:
    """One replica as it last reported itself."""
    return {name: getattr(load, name) for name in REPLICA_FIELDS}


def decision_row(record: dict[str, Any]) -> dict[str, Any]:
    """One line of the decision log, in brief."""
    candidates = record["candidates"]
    attempts = record.get("attempts") or [record]
    # After a fault another model than the chosen one may have answered.
    model = attempts[-1]["model"]
    answering = next((c for c in candidates if c["model"] == model), None)
    observation = record["observation"]
    largest, saved = _against_the_largest(candidates, answering, observation)
    rejected = [a["judged"] for a in attempts if a.get("judged") and not a["judged"]["accepted"]]
    actual = observation and _costs(observation)
    if actual and rejected:
        wasted = _sum(one["energy_joules"] for one in rejected)
        actual["runtime_s"] += _sum(one["runtime_s"] for one in rejected) or 0.0
        actual["energy_joules"] = _sum((actual["energy_joules"], wasted))
        saved = None if saved is None or wasted is None else saved - wasted
    return {
        "decision_id": record["decision_id"],
        "finished_at": record["finished_at"],
        "model": model,
        "attempts": len(attempts),
        "policy": record["policy"],
        "weights": record["weights"],
        "scores": {c["model"]: c["score"] for c in candidates},
        "predicted": answering and _costs(answering),
        "actual": actual,
        "energy_source": observation and observation["energy_source"],
        "largest_model": largest,
        "energy_saved_joules": saved,
        "error": record["error"],
    }


def _costs(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("output_tokens", "runtime_s", "energy_joules")}


def _sum(values: Iterable[float | None]) -> float | None:
    """Of all, `None` where one is unknown."""
    known = list(values)
    return None if None in known else math.fsum(value for value in known if value is not None)


def _against_the_largest(
    candidates: list[dict[str, Any]],
    answering: dict[str, Any] | None,
    observation: dict[str, Any] | None,
) -> tuple[str | None, float | None]:
    """The candidate that was predicted to take the most energy, and the joules saved against it.

    What it would have taken was not measured. Its prediction is scaled by how far that of
    the model that answered was off, so that a surprise that both share (a longer answer, a busy
    machine) is no saving: an answer of the largest model itself saves exactly 0.
    """
    if not candidates:
        return None, None
    largest = max(candidates, key=lambda c: (c["energy_joules"], c is answering))
    taken = observation and observation["energy_joules"]
    if taken is None or answering is None or not answering["energy_joules"] > 0:
        return largest["model"], None
    return largest["model"], taken * (largest["energy_joules"] / answering["energy_joules"] - 1)


def _may_see_decisions(request: Request) -> bool:
    """As for `/v1/decisions`: where there are keys, those of administrators may."""
    account: Account | None = request.scope.get("account")
    return account is None or account.key.admin


def _since(request: Request) -> float:
    text = request.query_params.get("since", "0")
    try:
        since = float(text)
    except ValueError:
        since = math.nan
    if not 0 <= since < math.inf:
        raise ApiError(400, f"since: must be a Unix time in seconds, got {text!r}", param="since")
    return since
