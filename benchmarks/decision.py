"""How long one decision takes, from a request and a state to a whole `Decision`.

    python benchmarks/decision.py [--json]

One process, one core, three normalized metrics with all their stages and intervals; nothing cached
between decisions.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

from scheduler.engine import Scheduler
from scheduler.profiles import LinearModel, ModelProfile
from scheduler.types import ClusterState, ModelState, RoutingRequest, Weights

COUNTS = (3, 10, 100)
REPEATS = 3000
WARM_UP = 200


def build_state(count: int) -> ClusterState:
    """Models with costs that differ, as fits of real ones do."""
    generator = random.Random(count)
    models = []
    for number in range(count):
        speed = generator.uniform(0.01, 0.2)
        watts = generator.uniform(80, 400)
        runtime = (generator.uniform(0.05, 0.5), speed / 100, speed)
        profile = ModelProfile(
            model=f"model-{number}",
            accelerator="benchmark",
            runtime=LinearModel("linear", runtime, ratio_low=0.8, ratio_high=1.3),
            energy=LinearModel(
                "linear", tuple(watts * c for c in runtime), ratio_low=0.8, ratio_high=1.3
            ),
            energy_source="nvml",
            input_tokens_range=(1, 4096),
            output_tokens_range=(1, 1024),
            accuracy=generator.uniform(0.4, 0.9),
        )
        models.append(ModelState(profile.model, max_model_len=8192, profile=profile))
    return ClusterState(tuple(models), profile_version="benchmark")


def measure(count: int) -> dict[str, float]:
    """Microseconds of a decision over `count` models."""
    scheduler = Scheduler()
    state = build_state(count)
    request = RoutingRequest(
        decision_id="benchmark",
        input_tokens={model.model: 200 for model in state.models},
        max_tokens=256,
        weights=Weights(0.7, 0.2, 0.1),
    )
    samples = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter_ns()
        scheduler.decide(request, state)
        samples.append((time.perf_counter_ns() - start) / 1000)
    percentiles = statistics.quantiles(samples[WARM_UP:], n=100)
    return {
        "models": count,
        "median_us": statistics.median(samples[WARM_UP:]),
        "p99_us": percentiles[98],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Decision latency for 3, 10 and 100 models.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args().json
    rows = [measure(count) for count in COUNTS]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'models':>8}{'median us':>12}{'p99 us':>10}")
    for row in rows:
        print(f"{row['models']:>8}{row['median_us']:>12.1f}{row['p99_us']:>10.1f}")


if __name__ == "__main__":
    main()
