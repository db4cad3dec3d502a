"""An advisor of one's own, tried offline: requests with the header `x-eco` get little energy.

    python examples/custom_advisor.py

To serve it, put the classes into a file of their own in `deployments/router/decision/advisors/`
and add the advisor's line to that folder's `__init__.py`: docs/how-to/add-an-advisor.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import ClassVar

from deployments.router.access.caller import Caller
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.wire.openai import parse_request
from scheduler.costs.profiles import ProfileSet
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.serialization import decision_to_dict
from scheduler.types import ClusterState, ModelState, RoutingRequest


@dataclass(frozen=True, slots=True)
class Eco:
    """The client asked for little energy."""

    name: ClassVar[str] = "eco"

    def to_json(self) -> bool:
        """The field `eco` of the decision."""
        return True


class EcoAdvisor(Advisor):
    """Replaces the weights of requests with the header `x-eco: on`."""

    name: ClassVar[str] = "eco"

    def __init__(self, directory: ModelDirectory) -> None:
        pass

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """All weight on energy."""
        if query.caller is None or (b"x-eco", b"on") not in query.caller.headers:
            return request
        return replace(
            request,
            weights=Weights(accuracy=0, energy=1, time=0),
            reports={**request.reports, Eco.name: Eco()},
        )


def main() -> None:
    text = (files("scheduler") / "data" / "default_profiles.json").read_text(encoding="utf-8")
    profiles = ProfileSet.from_json(text)
    models = tuple(ModelState(profile.model, profile=profile) for profile in profiles.profiles)
    state = ClusterState(models, profiles.version, profiles.reference)
    body = {"model": "auto", "prompt": "Hello", "routing": {"weights": {"accuracy": 1}}}
    parsed = parse_request(json.dumps(body).encode(), "completions")
    advisor = EcoAdvisor(ModelDirectory())
    for headers in ([], [(b"x-eco", b"on")]):
        # What the router does for every request, with all of its advisors.
        request = RoutingRequest(
            decision_id="example",
            input_tokens=dict.fromkeys((model.model for model in models), 2),
            max_tokens=100,
            weights=parsed.weights or Weights(),
        )
        request = advisor.advise(Query(parsed, Caller(headers)), request, state)
        decision = decision_to_dict(Scheduler().decide(request, state))
        print(f"headers {headers}: {decision['model']}, eco {decision.get('eco', False)}")


if __name__ == "__main__":
    main()
