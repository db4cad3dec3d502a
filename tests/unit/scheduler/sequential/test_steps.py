"""What the policy `sequential` does after each answer of one request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scheduler.sequential.posterior import prior_model
from scheduler.sequential.steps import Plan, SeenAnswer

MODELS = ("small", "middle", "large")


def plan(*costs: float, **figures: Any) -> Plan:
    answers = replace(prior_model(MODELS), **figures)
    return Plan(MODELS, answers, 0, (0.2, 0.8, 2.0), costs, (100.0, 100.0, 100.0))


def test_agreement_ends_it_and_disagreement_goes_on() -> None:
    made = plan(0.005, 0.03, 0.3)
    first = made.after(())
    assert first.ask in ("small", "middle")
    one = SeenAnswer("small", "42")
    second = made.after([one])
    assert second.ask == "middle"
    alike = made.after([one, SeenAnswer("middle", "42")])
    apart = made.after([one, SeenAnswer("middle", "41")])
    assert (alike.ask, alike.give) == (None, "middle")
    assert apart.ask == "large"
    assert alike.chance_right > 0.85


def test_only_able_models_are_asked() -> None:
    made = plan(0.005, 0.03, 0.3)
    step = made.after([SeenAnswer("small", "42"), SeenAnswer("middle", "41")], able=())
    assert step.ask is None
    assert step.give == "middle"


def test_answers_that_cannot_be_compared_leave_the_log_probability() -> None:
    sure = np.tile(np.array([[-2.0, 0.3], [-0.2, 0.3]]), (3, 1, 1))
    made = plan(0.005, 0.03, 0.3, logprobs=sure)
    steps = [
        made.after([SeenAnswer("small", None, mean_logprob=logprob)]) for logprob in (-0.2, -2.0)
    ]
    assert steps[0].chance_right > 0.95
    assert steps[1].chance_right < 0.1
    assert steps[1].ask is not None


@pytest.mark.parametrize("dear", [0.0, 1.0])
def test_whether_an_answer_has_to_be_held_back(dear: float) -> None:
    made = plan(2.0 * dear + 0.005, 2.0 * dear + 0.03, 2.0 * dear + 0.3)
    assert made.may_go_on([], "small", MODELS) is (dear == 0.0)


def test_a_step_says_why() -> None:
    step = plan(0.005, 0.03, 0.3).after([SeenAnswer("small", "42")])
    told = step.to_dict()
    assert told["action"] == "ask middle"
    assert set(told["worth"]) == {"give", "middle", "large"}
    assert set(told["chances"]) == {"middle", "large"}
