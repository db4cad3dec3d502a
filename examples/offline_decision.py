"""A decision from Python, without a cluster: which of the shipped models gets a prompt, and why.

    python examples/offline_decision.py [PROMPT]

Costs come from the profiles that ship; with your own, read the file that `python -m profiling run`
writes, or `GET /v1/profiles` of a router.
"""

from __future__ import annotations

import sys
from importlib.resources import files

from scheduler.costs.profiles import ProfileSet
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.prompts.tokens import estimate_tokens
from scheduler.types import ClusterState, ModelState, RoutingRequest

WEIGHTS = {
    "accuracy": Weights(accuracy=1, energy=0, time=0),
    "energy": Weights(accuracy=0, energy=1, time=0),
    "all three": Weights(),
}


def main() -> None:
    prompt = " ".join(sys.argv[1:]) or "What is the capital of France?"
    text = (files("scheduler") / "data" / "default_profiles.json").read_text(encoding="utf-8")
    profiles = ProfileSet.from_json(text)
    models = tuple(ModelState(profile.model, profile=profile) for profile in profiles.profiles)
    state = ClusterState(models, profiles.version, profiles.reference)
    for name, weights in WEIGHTS.items():
        request = RoutingRequest(
            decision_id=f"offline {name}",
            input_tokens={model.model: estimate_tokens(prompt) for model in models},
            max_tokens=200,
            weights=weights,
        )
        decision = Scheduler().decide(request, state)
        print(f"{name}: {decision.model}")
        for candidate in decision.candidates:
            predicted = candidate.prediction
            print(
                f"  {candidate.model:<26} score {candidate.score:+.3f}  "
                f"{predicted.runtime_s:6.2f} s  {predicted.energy_joules:7.1f} J  "
                f"accuracy {candidate.accuracy:.3f}"
            )


if __name__ == "__main__":
    main()
