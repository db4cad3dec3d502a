"""How long one decision takes, and how long it takes to say everything about its candidates.

    python benchmarks/decision.py [--json]

One process, one core. A decision goes from a request and a state to a whole `Decision`, with three
normalized metrics and all their stages. Predictions are made for the same models one by one with
their intervals, as they are for a reader of all candidates. Every model has a regression with
load terms, requests on it, slots, corrections for drift and observed lengths of answers. What
follows from the state of a model alone is worked out once for each state: before every decision the
state of one model is made anew, as the last request's does in a router, or that of all of them.

The operator's rules come before a decision: twenty of them, each with a regular expression, on a
prompt of 2,000 characters that fits none, so that all are searched for.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from scheduler.choice.eligibility import eligible_models
from scheduler.costs.lengths import OutputLength, PromptEffect
from scheduler.costs.predict import predict
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.rules.expressions import Expression
from scheduler.rules.rules import Conditions, Facts, Rule, apply_rules
from scheduler.types import ClusterState, Correction, ModelState, RoutingRequest

COUNTS = (3, 10, 100, 300)
REPEATS = 3000
WARM_UP = 200
MAX_TOKENS = 256

RULES = 20
PROMPT = ("The harvest was good that year, and 12 of the 40 barns were full. " * 40)[:2000]

# What each path may take, in microseconds by the number of models.
DECISION_GOALS = {3: 100.0, 100: 200.0, 300: 600.0}
PREDICTION_GOALS = {3: 60.0}


def build_state(count: int) -> ClusterState:
    """Models with costs that differ, as fits of real ones do, under load and drift."""
    generator = random.Random(count)
    models = []
    for number in range(count):
        speed = generator.uniform(0.01, 0.2)
        watts = generator.uniform(80, 400)
        # 1, tin, tout, ctx, tin*c, tout*c
        runtime = (
            generator.uniform(0.05, 0.5),
            speed / 100,
            speed,
            speed / 1e5,
            speed / 2000,
            speed / 20,
        )
        profile = ModelProfile(
            model=f"model-{number}",
            accelerator="benchmark",
            runtime=LinearModel("context+load", runtime, ratio_low=0.8, ratio_high=1.3),
            energy=LinearModel(
                "context+load", tuple(watts * c for c in runtime), ratio_low=0.8, ratio_high=1.3
            ),
            energy_source="nvml",
            input_tokens_range=(1, 4096),
            output_tokens_range=(1, 1024),
            concurrency_range=(1, 16),
            accuracy=generator.uniform(0.4, 0.9),
        )
        # Half of the quantiles lie above `MAX_TOKENS`, so that the limit has work to do.
        lengths = sorted(generator.lognormvariate(5.5, 0.6) for _ in range(20))
        models.append(
            ModelState(
                profile.model,
                max_model_len=8192,
                profile=profile,
                ongoing=generator.randint(0, 24),
                replicas=2,
                slots=8,
                slowdown=generator.uniform(1.0, 1.5),
                runtime_correction=_correction(generator),
                energy_correction=_correction(generator),
                lengths={"": OutputLength(tuple(lengths), PromptEffect(0.4, 100, 20, 500))},
            )
        )
    return ClusterState(tuple(models), profile_version="benchmark")


def _correction(generator: random.Random) -> Correction:
    return Correction(generator.uniform(0.7, 1.5), low=0.8, high=1.25, observations=200)


def measure(count: int) -> dict[str, float | None]:
    """Microseconds of a decision over `count` models, and of all that is predicted for them."""
    scheduler = Scheduler()
    state = build_state(count)
    request = RoutingRequest(
        decision_id="benchmark",
        input_tokens={model.model: 200 for model in state.models},
        max_tokens=MAX_TOKENS,
        weights=Weights(0.7, 0.2, 0.1),
    )
    contenders, _ = eligible_models(request, state)
    turn = 0

    def renew(models: int) -> None:
        nonlocal state, turn
        turn += 1
        news = {(turn + i) % count for i in range(models)}
        states = [replace(m) if i in news else m for i, m in enumerate(state.models)]
        state = ClusterState(tuple(states), profile_version="benchmark")

    decision = _time(lambda: scheduler.decide(request, state), before=lambda: renew(1))
    fresh = _time(lambda: scheduler.decide(request, state), before=lambda: renew(count))
    predictions = _time(lambda: [predict(contender) for contender in contenders])
    return {
        "models": count,
        "decision_median_us": decision[0],
        "decision_p99_us": decision[1],
        "decision_goal_us": DECISION_GOALS.get(count),
        "all_news_median_us": fresh[0],
        "predictions_median_us": predictions[0],
        "predictions_p99_us": predictions[1],
        "predictions_goal_us": PREDICTION_GOALS.get(count),
    }


def measure_states(count: int) -> dict[str, float]:
    """Microseconds of the states of `count` models: all made, and after one request came."""
    # Slow to import, and only needed here.
    from cluster.store.load import LoadSnapshot, ReplicaLoad  # noqa: PLC0415
    from deployments.router.models import ModelDirectory  # noqa: PLC0415
    from deployments.router.sync.shared import SharedState  # noqa: PLC0415
    from scheduler.costs.profiles import ProfileSet  # noqa: PLC0415
    from scheduler.priority import Priority  # noqa: PLC0415

    state = build_state(count)
    names = [model.model for model in state.models]
    profiles = ProfileSet(tuple(m.profile for m in state.models if m.profile is not None))
    directory, shared = ModelDirectory(), SharedState("benchmark")
    directory.configure(names)
    description = {"accelerator": "benchmark", "max_model_len": 8192, "max_num_seqs": 8}
    for entry in directory.entries():
        entry.replicas, entry.description, entry.unavailable = 1, dict(description), None
    replicas = [ReplicaLoad(n, f"r-{n}", "node", "benchmark", f"gpu-{n}", 3) for n in names]

    def news() -> None:
        shared.loads.take(LoadSnapshot(tuple(replicas), 2), {})

    def states() -> None:
        directory.cluster_state(profiles, shared, {})

    def made() -> None:
        # A snapshot of the load is news of every model.
        shared.loads.taken_at = time.monotonic()
        states()

    turn = 0

    def kept() -> None:
        nonlocal turn
        turn += 1
        directory[names[turn % count]].by_priority[Priority.NORMAL] = turn % 2
        states()

    news()
    made_us, kept_us = _time(made)[0], _time(kept)[0]
    return {"models": count, "states_made_median_us": made_us, "states_kept_median_us": kept_us}


def build_rules() -> list[Rule]:
    """Rules as an operator may have them, none of which fits `PROMPT`."""
    expressions = (
        r"(?i)\b(confidential|secret|internal only) %d\b",
        r"\b\d{3}-\d{2}-%d\d{3}\b",
        r"(?i)translate .* into (german|french) %d",
        r"(?s)```.*```%d",
    )
    return [
        Rule(f"rule {n}", Conditions(text=Expression(expressions[n % len(expressions)] % n)))
        for n in range(RULES)
    ]


def measure_rules() -> dict[str, float]:
    """Microseconds of reading all rules."""
    rules = build_rules()

    def read() -> None:
        facts = Facts(PROMPT, task="chat", input_tokens=500, now=datetime.now(UTC))
        assert not apply_rules(rules, facts).rules

    median, p99 = _time(read)
    return {"rules": RULES, "rules_median_us": median, "rules_p99_us": p99}


def _time(
    call: Callable[[], object], before: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """Median and 99 % quantile of one call, in microseconds; `before` each of them is not timed."""
    samples = []
    for _ in range(WARM_UP + REPEATS):
        before()
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1000)
    percentiles = statistics.quantiles(samples[WARM_UP:], n=100)
    return statistics.median(samples[WARM_UP:]), percentiles[98]


def _row(row: dict[str, float | None]) -> str:
    cells = [
        "-" if value is None else f"{value:.0f}" if value == int(value) else f"{value:.1f}"
        for value in row.values()
    ]
    return f"{cells[0]:>8}" + "".join(f"{cell:>10}" for cell in cells[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Latency of decisions and of predictions for 3 to 300 models."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args().json
    rows = [measure(count) for count in COUNTS]
    states = [measure_states(count) for count in COUNTS]
    rules = measure_rules()
    if as_json:
        print(json.dumps([*rows, *states, rules], indent=2))
        return
    print(f"{'':>8}{'whole decision, us':>40}{'all predictions, us':>30}")
    print(f"{'models':>8}{'median':>10}{'p99':>10}{'goal':>10}{'all new':>10}", end="")
    print(f"{'median':>10}{'p99':>10}{'goal':>10}")
    for row in rows:
        print(_row(row))
    for made in states:
        print(
            f"states of {made['models']} models: {made['states_made_median_us']:.1f} us where all "
            f"are news, {made['states_kept_median_us']:.1f} us where one request came or went"
        )
    median, p99 = rules["rules_median_us"], rules["rules_p99_us"]
    print(f"{RULES} rules on {len(PROMPT)} characters: {median:.1f} us, p99 {p99:.1f}")


if __name__ == "__main__":
    main()
