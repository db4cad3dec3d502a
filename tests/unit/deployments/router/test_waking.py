"""Models at 0 replicas, and the requests that bring them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, ServeDouble, Site

from deployments.router.models import SCALED_TO_ZERO


@pytest.fixture
def asleep(serve: ServeDouble, start_site: Callable[..., Site]) -> Site:
    """Both models at 0; the accurate one may be woken."""
    return put_to_sleep(start_site(request_timeout_s=60), serve)


def put_to_sleep(site: Site, serve: ServeDouble) -> Site:
    site.configure(models=[{"id": FRUGAL}, {"id": ACCURATE, "wake": True}])
    for model in serve.models.values():
        model.replicas = 0
    serve.models[ACCURATE].wakes = True
    site.wait_until(lambda health: reasons(health) == {SCALED_TO_ZERO})
    return site


def reasons(health: Any) -> set[str | None]:
    return {model["reason"] for model in health["models"].values()}


def test_a_request_that_names_it_waits_and_is_answered(asleep: Site) -> None:
    response = asleep.complete(model=ACCURATE)
    assert (response.status_code, response.json()["model"]) == (200, ACCURATE)


def test_a_request_for_any_wakes_one_where_none_is_up(asleep: Site) -> None:
    assert asleep.complete(model="auto").json()["model"] == ACCURATE


def test_a_request_for_any_goes_to_a_model_that_is_up(asleep: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].replicas = 1
    asleep.wait_until(lambda health: health["models"][FRUGAL]["available"])
    before = serve.models[ACCURATE].asked
    answer = asleep.complete(model="auto", routing={"weights": {"accuracy": 1}})
    assert answer.json()["model"] == FRUGAL
    assert serve.models[ACCURATE].asked == before


def test_what_may_not_be_woken_is_refused_at_once(asleep: Site, serve: ServeDouble) -> None:
    before = serve.models[FRUGAL].asked
    response = asleep.complete(model=FRUGAL)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_model_available")
    assert serve.models[FRUGAL].asked == before


def test_looking_wakes_nothing(asleep: Site, serve: ServeDouble) -> None:
    before = serve.models[ACCURATE].asked
    body = {"model": ACCURATE, "prompt": "x"}
    assert asleep.request("POST", "/v1/route", json=body).status_code == 503
    assert serve.models[ACCURATE].asked == before


def test_requests_that_come_meanwhile_wait_for_the_same(asleep: Site, serve: ServeDouble) -> None:
    before = serve.models[ACCURATE].asked

    async def both() -> list[Any]:
        body = {"model": ACCURATE, "prompt": "x"}
        one = asleep._request("POST", "/v1/completions", {"json": body})
        return await asyncio.gather(one, asleep._request("POST", "/v1/completions", {"json": body}))

    assert [answer.status_code for answer in asleep.runner.run(both())] == [200, 200]
    # Once to wake it, and once when it is seen to run.
    assert serve.models[ACCURATE].asked <= before + 2


def test_one_that_does_not_come_in_time_is_504(
    start_site: Callable[..., Site], serve: ServeDouble
) -> None:
    asleep = put_to_sleep(start_site(), serve)
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [HANG]
    response = asleep.complete(model=ACCURATE)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    assert "did not wake within" in response.json()["error"]["message"]


def test_one_that_breaks_on_its_way_is_503_and_can_be_woken_again(
    asleep: Site, serve: ServeDouble
) -> None:
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [RuntimeError("no GPU")]
    assert asleep.complete(model=ACCURATE).status_code == 503
    serve.models[ACCURATE].wakes = True
    assert asleep.complete(model=ACCURATE).status_code == 200
