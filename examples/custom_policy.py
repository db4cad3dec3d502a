"""A policy of one's own, tried offline on the shipped profiles.

    python examples/custom_policy.py

To serve it, put the class into a file of its own in `scheduler/policies/` and add its line to
`scheduler/policies/__init__.py`: docs/how-to/add-a-policy.md.
"""

from __future__ import annotations

from importlib.resources import files
from typing import ClassVar

from scheduler.choice.comparison import Comparison
from scheduler.costs.profiles import ProfileSet
from scheduler.decide import Scheduler
from scheduler.policies import POLICIES
from scheduler.policies.base import Policy
from scheduler.preferences import Metric
from scheduler.types import ClusterState, ModelState, RoutingRequest

GOOD_ENOUGH = 0.7


class GoodEnoughPolicy(Policy):
    """The least energy among the models whose accuracy is good enough; else the most accurate."""

    name: ClassVar[str] = "good_enough"

    def scores(
        self, request: RoutingRequest, state: ClusterState, comparison: Comparison
    ) -> list[float]:
        """Joules; models that are not good enough come last, the least accurate one at the end."""
        joules = comparison.costs[Metric.ENERGY]
        most = max(joules)
        return [
            cost if accuracy >= GOOD_ENOUGH else most + 1.0 - accuracy
            for cost, accuracy in zip(joules, comparison.accuracies, strict=True)
        ]


def main() -> None:
    POLICIES[GoodEnoughPolicy.name] = GoodEnoughPolicy
    text = (files("scheduler") / "data" / "default_profiles.json").read_text(encoding="utf-8")
    profiles = ProfileSet.from_json(text)
    models = tuple(ModelState(profile.model, profile=profile) for profile in profiles.profiles)
    state = ClusterState(models, profiles.version, profiles.reference)
    for policy in (GoodEnoughPolicy.name, "weighted"):
        request = RoutingRequest(
            decision_id="example",
            input_tokens=dict.fromkeys((model.model for model in models), 100),
            max_tokens=200,
            policy=policy,
        )
        ranked = [candidate.model for candidate in Scheduler().decide(request, state).candidates]
        print(f"{policy}: {', then '.join(ranked)}")


if __name__ == "__main__":
    main()
