from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import REFERENCE, THREE, cluster, constant, request

from scheduler.costs.profiles import Moments
from scheduler.decide import Scheduler
from scheduler.errors import InvalidRequestError, UnknownPolicyError
from scheduler.policies import POLICIES, get_policy
from scheduler.policies.baselines import StaticModel
from scheduler.policies.cascade import CascadeStep, Ladder
from scheduler.preferences import Weights
from scheduler.sequential.planning import plan_of
from scheduler.sequential.steps import Plan
from scheduler.types import ClusterState, Decision

LADDER = Ladder((CascadeStep("fast", -0.3), CascadeStep("accurate")))


def decide(state: ClusterState = THREE, **settings: object) -> Decision:
    return Scheduler().decide(request(state, **settings), state)


def scores(decision: Decision) -> dict[str, float]:
    return {candidate.model: candidate.score for candidate in decision.candidates}


def test_every_policy_is_known_by_its_own_name() -> None:
    names = [
        "weighted",
        "utility",
        "constrained",
        "bandit",
        "cascade",
        "sequential",
        "static",
        "round_robin",
        "random",
        "least_loaded",
    ]
    assert list(POLICIES) == names
    assert [get_policy(name).name for name in names] == names


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(UnknownPolicyError, match="unknown policy 'best', known: weighted, ut") as e:
        decide(policy="best")
    assert e.value.field == "routing.policy"


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_policy_reports_the_stages_and_is_deterministic(name: str) -> None:
    state = replace(THREE, extras={Ladder: LADDER})
    decision = decide(state, policy=name)
    assert decision.policy == name
    assert decision.model == decision.chosen.model
    assert {c.model for c in decision.candidates} == {"accurate", "middle", "fast"}
    assert all(
        c.stages == w.stages
        for c in decision.candidates
        for w in decide().candidates
        if c.model == w.model
    )
    assert tuple(decide(state, policy=name).candidates) == tuple(decision.candidates)


def test_sequential_plans_once_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def counted(*arguments: Any) -> Plan:
        plans.append(plan_of(*arguments))
        return plans[-1]

    monkeypatch.setattr("scheduler.policies.sequential.plan_of", counted)
    decision = decide(policy="sequential")
    assert plans[0] in decision.reports.values()
    assert len(plans) == 1


def test_a_cascade_asks_in_the_order_of_the_ladder() -> None:
    decision = decide(replace(THREE, extras={Ladder: LADDER}), policy="cascade")
    assert scores(decision) == {"fast": 0.0, "accurate": 1.0, "middle": 2.0}
    assert decision.report(Ladder) == LADDER


def test_who_cannot_take_the_request_is_no_step() -> None:
    steps = (CascadeStep("fast", -0.3), CascadeStep("middle", -0.1), CascadeStep("accurate"))
    state = replace(THREE, extras={Ladder: Ladder(steps)})
    decision = decide(state, policy="cascade", models=("fast", "middle"))
    assert decision.report(Ladder) == Ladder((CascadeStep("fast", -0.3), CascadeStep("middle")))
    alone = decide(state, policy="cascade", models=("middle",))
    assert (alone.model, alone.report(Ladder)) == ("middle", None)
    assert decide(state).report(Ladder) is None


def test_without_a_ladder_there_is_no_cascade() -> None:
    with pytest.raises(InvalidRequestError, match="'cascade' needs"):
        decide(policy="cascade")


def test_whom_a_rule_prefers_is_asked_alone() -> None:
    assert LADDER.for_candidates(["accurate", "fast"]) is None


@pytest.mark.parametrize(
    ("weights", "model"),
    [(Weights(1, 0, 0), "accurate"), (Weights(0, 1, 0), "fast"), (Weights(0, 0, 1), "fast")],
)
@pytest.mark.parametrize("policy", ["weighted", "utility"])
def test_a_single_weight_takes_the_best_on_it(policy: str, weights: Weights, model: str) -> None:
    assert decide(policy=policy, weights=weights).model == model


def test_utility_golden_numbers() -> None:
    # accurate: accuracy (0.1-0.3)/0.1 = -2, energy (300-100)/50 = 4, time (8-4)/2 = 2.
    # fast: 1, -1.6, -1.5. middle: -1, 0, 0.
    decision = decide(policy="utility", weights=Weights(accuracy=2, energy=1, time=1))
    assert scores(decision) == pytest.approx(
        {"middle": -0.5, "fast": -0.275, "accurate": 0.5}, abs=1e-12
    )
    assert decision.model == "middle"


def test_utility_does_not_depend_on_the_other_candidates() -> None:
    pair = decide(policy="utility", models=("middle", "fast"))
    everyone = scores(decide(policy="utility"))
    assert scores(pair) == {name: everyone[name] for name in ("middle", "fast")}


def test_utility_leaves_out_a_metric_that_never_varied() -> None:
    flat = replace(REFERENCE, energy_joules=Moments(100.0, 0.0))
    decision = decide(replace(THREE, reference=flat), policy="utility", weights=Weights(2, 1, 1))
    assert scores(decision)["accurate"] == pytest.approx(0.5 * -2 + 0.25 * 2)


def test_utility_with_no_yardstick_at_all_falls_back_to_the_tie_rule() -> None:
    none = Moments(0.0, 0.0)
    flat = replace(REFERENCE, runtime_s=none, energy_joules=none, accuracy_cost=none)
    decision = decide(replace(THREE, reference=flat), policy="utility", weights=Weights(2, 1, 1))
    assert scores(decision) == {"accurate": 0.0, "middle": 0.0, "fast": 0.0}
    assert decision.model == "accurate"


def test_utility_needs_reference_moments() -> None:
    with pytest.raises(InvalidRequestError, match="'utility' needs reference means") as raised:
        decide(replace(THREE, reference=None), policy="utility")
    assert raised.value.field == "routing.policy"


def test_static_takes_the_named_model_or_else_the_first() -> None:
    assert decide(policy="static").model == "accurate"
    fast = replace(THREE, extras={StaticModel: StaticModel("fast")})
    assert decide(fast, policy="static").model == "fast"
    assert decide(fast, policy="static", models=("middle", "accurate")).model == "accurate"


def test_round_robin_takes_turns() -> None:
    turns = [decide(policy="round_robin", sequence=n).model for n in range(5)]
    assert turns == ["accurate", "middle", "fast", "accurate", "middle"]


@given(st.integers(0, 10**9))
def test_round_robin_orders_the_rest_by_their_turn(sequence: int) -> None:
    decision = decide(policy="round_robin", sequence=sequence)
    assert sorted(scores(decision).values()) == [0.0, 1.0, 2.0]


def test_random_follows_the_decision_id_and_takes_all_alike() -> None:
    chosen = Counter(decide(policy="random", decision_id=f"d{n}").model for n in range(600))
    assert set(chosen) == {"accurate", "middle", "fast"}
    # 200 expected, standard deviation 11.5; the ids are fixed, so this never flickers.
    assert all(150 < count < 250 for count in chosen.values())


def test_least_loaded_counts_requests_per_replica() -> None:
    state = cluster(
        constant("busy", 1.0, 1.0, 0.9, ongoing=3),
        constant("wide", 9.0, 9.0, 0.1, ongoing=8, replicas=4),
        constant("asleep", 9.0, 9.0, 0.1, ongoing=2, replicas=0),
    )
    decision = decide(state, policy="least_loaded")
    assert scores(decision) == {"wide": 2.0, "asleep": 2.0, "busy": 3.0}
    assert decision.candidates[-1].model == "busy"
