from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.costs.observations import Observation
from scheduler.errors import InvalidRequestError
from scheduler.preferences import Constraints, Metric, Weights


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_weight_that_cannot_be_names_its_field(metric: Metric, bad: float) -> None:
    with pytest.raises(InvalidRequestError, match="must be a finite number >= 0") as raised:
        Weights(**{metric.value: bad})
    assert raised.value.field == f"routing.weights.{metric}"


def test_one_weight_must_be_above_0() -> None:
    with pytest.raises(InvalidRequestError, match="at least one weight must be above 0"):
        Weights(0, 0, 0)


def test_weights_with_a_sum_of_1_stay_as_the_user_wrote_them() -> None:
    assert Weights(0.7, 0.2, 0.1).normalized() == Weights(0.7, 0.2, 0.1)


@given(*[st.floats(0, 1.7e308)] * 3)
def test_normalized_weights_sum_to_1(accuracy: float, energy: float, time: float) -> None:
    if not accuracy == energy == time == 0:
        scaled = Weights(accuracy, energy, time).normalized()
        assert math.fsum(scaled[metric] for metric in Metric) == pytest.approx(1)
        largest = max((accuracy, Metric.ACCURACY), (energy, Metric.ENERGY), (time, Metric.TIME))[1]
        assert scaled[largest] == max(scaled[metric] for metric in Metric)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("max_latency_s", 0.0),
        ("max_latency_s", math.nan),
        ("max_energy_joules", -1.0),
        ("max_energy_joules", math.inf),
        ("min_accuracy", 1.1),
        ("min_accuracy", math.nan),
    ],
)
def test_a_constraint_that_cannot_be_names_its_field(name: str, bad: float) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        Constraints(**{name: bad})
    assert raised.value.field == f"routing.constraints.{name}"


@pytest.mark.parametrize(
    ("ttft_s", "output_tokens", "tpot_s"), [(0.5, 11, 0.15), (None, 11, None), (0.5, 1, None)]
)
def test_time_per_output_token(
    ttft_s: float | None, output_tokens: int, tpot_s: float | None
) -> None:
    observation = Observation(
        "m", "cpu", "r", 10, output_tokens, 0, 0.0, ttft_s, 2.0, 5.0, "cpu_time"
    )
    assert (observation.concurrency, observation.cut) == (1, False)
    assert observation.tpot_s == (tpot_s if tpot_s is None else pytest.approx(tpot_s))
