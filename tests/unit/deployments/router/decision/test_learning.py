from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from fake_serve import FRUGAL, PROFILES, observation

from deployments.router.decision.learning import lesson_of
from deployments.router.wire.openai import ParsedRequest, parse_request
from scheduler.costs.learnt.learning import Lesson
from scheduler.costs.observations import Observation
from scheduler.costs.profiles import ProfileSet
from scheduler.decide import Scheduler
from scheduler.types import (
    CachedPrefix,
    ClusterState,
    Correction,
    Decision,
    ModelState,
    RoutingRequest,
)


def decide(
    profiles: ProfileSet = PROFILES, cached: Mapping[str, CachedPrefix] = {}, **state: Any
) -> Decision:
    model = ModelState(FRUGAL, profile=profiles.find(FRUGAL), **state)
    request = RoutingRequest("d", {FRUGAL: 100}, output_tokens=10, task="code", cached=cached)
    return Scheduler().pin(request, ClusterState((model,), "v"), FRUGAL)


def parsed(known: bool) -> ParsedRequest:
    body = {"model": "auto", "prompt": "x", "max_tokens": 20, "ignore_eos": known}
    return parse_request(json.dumps(body).encode(), "completions")


def teach(decision: Decision, seen: Observation, *, known: bool = False) -> Lesson:
    return lesson_of(decision, seen, parsed(known), PROFILES, 2)


SEEN = replace(observation(FRUGAL), input_tokens=200, output_tokens=20, cut=True)


def test_predictions_are_made_again_for_the_tokens_that_there_were() -> None:
    outcome = teach(decide(), SEEN).outcome
    assert outcome is not None
    # runtime 1 + 0.001 in + 0.01 out, energy 20 + 0.01 in + 0.1 out
    assert outcome.predicted_runtime_s == outcome.told_runtime_s == pytest.approx(1.4)
    assert outcome.predicted_energy_joules == outcome.told_energy_joules == pytest.approx(24)
    assert (outcome.runtime_s, outcome.energy_joules) == (0.25, 1.5)
    used = PROFILES.find(FRUGAL)
    assert used is not None
    assert outcome.fit_id == used.fit_id
    assert (outcome.runtime_factor, outcome.energy_factor) == (1.0, 1.0)


def test_what_was_told_holds_the_corrections_of_then() -> None:
    decision = decide(
        runtime_correction=Correction(2.0), energy_correction=Correction(0.5), slowdown=3.0
    )
    outcome = teach(decision, SEEN).outcome
    assert outcome is not None
    assert outcome.told_runtime_s == pytest.approx(1.4 * 2 * 3)
    assert outcome.told_energy_joules == pytest.approx(12)
    assert (outcome.runtime_factor, outcome.energy_factor) == (2.0, 0.5)
    # The turns on the device are no drift of the model.
    assert outcome.predicted_runtime_s == pytest.approx(1.4 * 3)
    assert outcome.predicted_energy_joules == pytest.approx(24)


def test_the_wait_was_told_and_is_no_drift() -> None:
    outcome = teach(decide(ongoing=3, slots=2), replace(SEEN, queue_time_s=0.125)).outcome
    assert outcome is not None
    # Two of four run, so two have to end on two places: as long again.
    assert outcome.told_runtime_s == pytest.approx(2.8)
    # Half of what it took was the wait: the other half is what the profile is measured by.
    assert outcome.predicted_runtime_s == pytest.approx(1.4 * 2)
    assert outcome.runtime_s / outcome.predicted_runtime_s == pytest.approx(0.125 / 1.4)


def test_a_wait_that_is_all_there_is_says_nothing_of_the_service() -> None:
    outcome = teach(decide(), replace(SEEN, queue_time_s=0.25)).outcome
    assert outcome is not None
    assert outcome.predicted_runtime_s == pytest.approx(1.4)


def test_cached_tokens_cost_nothing_but_nobody_knew() -> None:
    outcome = teach(decide(), replace(SEEN, cached_input_tokens=100)).outcome
    assert outcome is not None
    assert outcome.predicted_runtime_s == pytest.approx(1.3)
    assert outcome.told_runtime_s == pytest.approx(1.4)


def test_cached_tokens_that_a_decision_knew_of_are_in_what_it_told() -> None:
    decision = decide(cached={FRUGAL: CachedPrefix(60, "r1")}, runtime_correction=Correction(2.0))
    outcome = teach(decision, replace(SEEN, cached_input_tokens=100)).outcome
    assert outcome is not None
    assert outcome.predicted_runtime_s == pytest.approx(1.3)
    assert outcome.told_runtime_s == pytest.approx((1.4 - 0.06) * 2)
    assert outcome.told_energy_joules == pytest.approx(24 - 0.6)


def test_lengths_are_learnt_unless_the_request_fixed_them() -> None:
    lesson = teach(decide(), SEEN)
    assert (lesson.model, lesson.task, lesson.output_tokens, lesson.cut) == (
        FRUGAL,
        "code",
        20,
        True,
    )
    assert teach(decide(), SEEN, known=True).output_tokens is None


def test_without_a_prediction_only_the_length_is_learnt() -> None:
    unprofiled = Scheduler().pin(
        RoutingRequest("d", {FRUGAL: 100}, task="code"),
        ClusterState((ModelState(FRUGAL),), "v"),
        FRUGAL,
    )
    assert teach(unprofiled, SEEN) == Lesson(None, FRUGAL, "code", 200, 20, True)
