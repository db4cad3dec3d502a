"""What Prometheus gets to know of requests; Ray's instruments are exchanged for recording ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from fake_metrics import Library, labels
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, error_object, observation
from ray.exceptions import ActorDiedError

from deployments.router.delivery.attempts import Attempt
from deployments.router.observe.metrics import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    Durations,
    RequestMetrics,
)
from deployments.router.wire.api_error import ApiError
from scheduler.types import Correction, ModelState

PERIOD_S = 0.02


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr("deployments.router.server.RequestMetrics", lambda: RequestMetrics(library))
    monkeypatch.setattr("deployments.router.server.METRICS_PERIOD_S", PERIOD_S)
    return library


def flushed(site: Site) -> None:
    """Time for what the router does every so often."""
    site.runner.run(asyncio.sleep(2 * PERIOD_S))


def test_an_answer(told: Library, start_site: Callable[..., Site]) -> None:
    site = start_site()
    answer = site.complete(
        prompt="Translate into German: good morning", routing={"weights": {"energy": 1}}
    ).json()
    flushed(site)
    assert answer["model"] == FRUGAL
    seen, which = observation(FRUGAL), labels(model=FRUGAL, task="translation")
    assert told["requests"] == {(*which[:1], ("status", "200"), *which[1:]): [1]}
    assert told["input_tokens"] == {which: [seen.input_tokens]}
    assert told["output_tokens"] == {which: [seen.output_tokens]}
    assert told["energy_joules"] == {which: [seen.energy_joules]}
    assert told["request_energy_joules"] == {which: [seen.energy_joules]}
    assert told["time_to_first_token_seconds"] == {which: [seen.ttft_s]}
    assert told["time_per_output_token_seconds"] == {which: [seen.tpot_s]}
    assert told["queue_time_seconds"] == {which: [seen.queue_time_s]}
    assert told["attempts"] == {labels(model=FRUGAL, begins="anew", outcome="ended"): [1]}
    predicted = answer["routing"]["predicted"]
    assert told["prediction_ratio"] == {
        (("cost", "runtime"), *which): [seen.runtime_s / predicted["runtime_s"]],
        (("cost", "energy"), *which): [seen.energy_joules / predicted["energy_joules"]],
    }
    assert 0 < told["decision_seconds"][()][0] < told["request_duration_seconds"][which][0]
    assert told["rejections"] == {}


def test_equal_requests_are_added_up_before_ray_hears_of_them() -> None:
    metrics = RequestMetrics(library := Library())
    for _ in range(3):
        metrics.refused(ApiError(429, "later", code="budget_exceeded"))
    assert library["rejections"] == {}
    metrics.flush()
    metrics.flush()
    assert library["rejections"] == {labels(reason="budget_exceeded", status="429"): [3]}


def test_tasks_that_clients_make_up_share_a_label(
    told: Library, start_site: Callable[..., Site]
) -> None:
    site = start_site()
    for number in range(3):
        site.complete(routing={"task": f"made-up-{number}"})
    flushed(site)
    assert {dict(which)["task"] for which in told["requests"]} == {"other"}


def test_refusals_by_reason(told: Library, start_site: Callable[..., Site]) -> None:
    site = start_site()
    site.complete(model="unheard-of")
    site.request("POST", "/v1/completions", content=b"{")
    site.complete(routing={"constraints": {"min_accuracy": 1}})
    site.complete(prompt="x" * 20_000)
    flushed(site)
    assert {dict(k)["reason"]: dict(k)["status"] for k in told["rejections"]} == {
        "model_not_found": "404",
        "invalid_json": "400",
        "constraints_not_met": "422",
        "body_too_large": "413",
    }
    assert told["requests"] == {}


def test_refusals_at_the_door_count_too(
    told: Library, start_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMIC_LLM_SCHEDULER_API_KEYS", "secret")
    site = start_site()
    assert site.complete().status_code == 401
    flushed(site)
    assert told["rejections"] == {labels(reason="invalid_api_key", status="401"): [1]}


def test_what_a_model_refuses_is_no_error_of_prediction(
    told: Library, start_site: Callable[..., Site], serve: ServeDouble
) -> None:
    site = start_site()
    serve.models[FRUGAL].reply = (400, error_object(400), b"")
    site.complete(model=FRUGAL)
    flushed(site)
    ((which, _),) = told["requests"].items()
    assert dict(which) == {"model": FRUGAL, "task": "chat", "status": "400"}
    assert told["prediction_ratio"] == told["input_tokens"] == {}


def test_attempts_say_who_broke_and_nothing_is_learnt_of_such_an_answer(
    told: Library, start_site: Callable[..., Site], serve: ServeDouble
) -> None:
    site = start_site()
    serve.models[FRUGAL].reply = ActorDiedError()
    site.complete(routing={"weights": {"energy": 1}})
    flushed(site)
    assert told["attempts"] == {
        labels(model=FRUGAL, begins="anew", outcome="broke"): [1],
        labels(model=ACCURATE, begins="anew", outcome="ended"): [1],
    }
    assert {dict(which)["model"] for which in told["requests"]} == {ACCURATE}
    assert told["prediction_ratio"] == {}


def test_rejected_answers_cost_their_own_model_and_say_nothing_of_predictions() -> None:
    metrics = RequestMetrics(library := Library())
    decision = SimpleNamespace(model=FRUGAL, task="chat", candidates=(1,))
    answers = [observation(FRUGAL), observation(ACCURATE)]
    attempts = [Attempt(FRUGAL), Attempt(ACCURATE)]
    metrics.finished(decision, answers, attempts, Durations(0.001, 1.0), 200)  # type: ignore[arg-type]
    metrics.flush()
    by_model = {labels(model=m, task="chat"): [1.5] for m in (FRUGAL, ACCURATE)}
    assert library["energy_joules"] == by_model
    assert {dict(which)["model"] for which in library["requests"]} == {ACCURATE}
    assert library["prediction_ratio"] == {}


def test_the_state_of_the_models() -> None:
    metrics = RequestMetrics(library := Library())
    drifting = Correction(factor=1.5, observations=9)
    metrics.look(
        [
            ModelState("up", ongoing=3, replicas=2, runtime_correction=drifting),
            ModelState("down", replicas=0, unavailable="not deployed"),
        ]
    )
    assert library["ongoing_requests"][labels(model="up")] == [3]
    assert library["replicas"] == {labels(model="up"): [2], labels(model="down"): [0]}
    assert library["available"] == {labels(model="up"): [1], labels(model="down"): [0]}
    assert library["correction_factor"][labels(model="up", cost="runtime")] == [1.5]
    assert library["correction_factor"][labels(model="up", cost="energy")] == [1.0]


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name in (*COUNTERS, *HISTOGRAMS, *GAUGES):
        assert name == name.lower()
        # Ray appends it to counters itself.
        assert not name.endswith("_total")
    for name in HISTOGRAMS:
        assert name.endswith(("_seconds", "_joules", "_ratio"))
    for _, boundaries, _ in HISTOGRAMS.values():
        assert list(boundaries) == sorted(set(boundaries))
