"""Decisions between two models, one small and one large."""

from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.types import ClusterState, Decision, ModelState, RoutingRequest


def profile(
    model: str, slope: float, accuracy: float | None, accelerator: str = "cpu"
) -> ModelProfile:
    return ModelProfile(
        model=model,
        accelerator=accelerator,
        runtime=LinearModel("linear", (0.1, 0.0, slope), ratio_low=0.8, ratio_high=1.25),
        energy=LinearModel("linear", (5.0, 0.1, 40 * slope), ratio_low=0.9, ratio_high=1.2),
        energy_source="cpu_time",
        input_tokens_range=(1, 500),
        output_tokens_range=(1, 200),
        accuracy=accuracy,
    )


PROFILES = ProfileSet((profile("small", 0.02, 0.4), profile("large", 0.3, 0.7)))


def decide(number: int, policy: str = "weighted") -> Decision:
    models = tuple(ModelState(p.model, profile=p) for p in PROFILES.profiles)
    request = RoutingRequest(
        decision_id=f"d-{number}",
        input_tokens={"small": 10, "large": 12},
        weights=Weights(accuracy=number % 3, energy=1, time=1),
        policy=policy,
    )
    return Scheduler().decide(request, ClusterState(models, PROFILES.version))
