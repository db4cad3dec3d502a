"""Models at 0 replicas, and the requests that bring them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fake_serve import ACCURATE, FRUGAL, HANG, Delay, Handle, ServeDouble, Site

from deployments.router.access.keys import hash_of
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


def test_a_request_for_any_wakes_the_one_that_may_be_able_to_take_it(
    asleep: Site, serve: ServeDouble
) -> None:
    serve.models[FRUGAL].replicas = 1
    asleep.wait_until(lambda health: health["models"][FRUGAL]["available"])
    answer = asleep.complete(model="auto", routing={"models": [ACCURATE]})
    assert (answer.status_code, answer.json()["model"]) == (200, ACCURATE)


def test_none_is_woken_for_what_another_one_can_take_later(
    asleep: Site, serve: ServeDouble
) -> None:
    serve.models[FRUGAL].replicas = 1
    asleep.wait_until(lambda health: health["models"][FRUGAL]["available"])
    before = serve.models[ACCURATE].asked
    limit = {"constraints": {"max_energy_joules": 1e-9}}
    assert asleep.complete(model="auto", routing=limit).status_code >= 400
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

    async def both() -> tuple[httpx.Response, httpx.Response]:
        body = {"model": ACCURATE, "prompt": "x"}
        one = asleep.send("POST", "/v1/completions", {"json": body})
        return await asyncio.gather(one, asleep.send("POST", "/v1/completions", {"json": body}))

    assert [answer.status_code for answer in asleep.runner.run(both())] == [200, 200]
    # Once to wake it, and once when it is seen to run.
    assert serve.models[ACCURATE].asked <= before + 2


def test_one_that_does_not_come_in_time_is_504(
    start_site: Callable[..., Site], serve: ServeDouble
) -> None:
    asleep = put_to_sleep(start_site(request_timeout_s=1.0), serve)
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
    response = asleep.complete(model=ACCURATE)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "wake_failed")
    assert "no GPU" in response.json()["error"]["message"]
    assert response.headers["retry-after"] == "30"
    serve.models[ACCURATE].wakes = True
    assert asleep.complete(model=ACCURATE).status_code == 200


def herd(asleep: Site, count: int) -> list[asyncio.Task[httpx.Response]]:
    body = {"model": ACCURATE, "prompt": "x"}
    return [
        asyncio.create_task(asleep.send("POST", "/v1/completions", {"json": body}))
        for _ in range(count)
    ]


def as_serve_does(monkeypatch: pytest.MonkeyPatch) -> ContextVar[list[asyncio.Task[Any]]]:
    """Has questions to models hang on the request that asks, as Serve's do.

    Serve cancels the questions that a request has under way when its client leaves; it knows them
    by the context variable that holds the request.
    """
    asked: ContextVar[list[asyncio.Task[Any]]] = ContextVar("asked")
    original = Handle.remote

    def remote(handle: Handle, *args: Any, **kwargs: Any) -> Any:
        response = original(handle, *args, **kwargs)

        async def ask() -> Any:
            return await response

        if handle.method != "describe":
            return response
        task = asyncio.create_task(ask())
        asked.get([]).append(task)
        return task

    monkeypatch.setattr(Handle, "remote", remote)
    return asked


@pytest.mark.parametrize("leavers", [[0], [0, 3, 6, 9], [9]])
def test_clients_that_leave_do_not_matter_to_those_that_wait(
    start_site: Callable[..., Site],
    serve: ServeDouble,
    monkeypatch: pytest.MonkeyPatch,
    leavers: list[int],
) -> None:
    asleep = put_to_sleep(start_site(request_timeout_s=20), serve)
    asked = as_serve_does(monkeypatch)
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [Delay(0.2)]

    async def one() -> httpx.Response:
        body = {"json": {"model": ACCURATE, "prompt": "x"}}
        questions: list[asyncio.Task[Any]] = []
        asked.set(questions)
        try:
            return await asleep.send("POST", "/v1/completions", body)
        except asyncio.CancelledError:
            for question in questions:
                question.cancel()
            raise

    async def scenario() -> list[httpx.Response]:
        clients = [asyncio.create_task(one()) for _ in range(10)]
        await asyncio.sleep(0.05)
        for leaver in leavers:
            clients[leaver].cancel()
        await asyncio.sleep(0.05)
        serve.models[ACCURATE].replicas = 1
        patient = [client for number, client in enumerate(clients) if number not in leavers]
        return await asyncio.gather(*patient)

    assert {answer.status_code for answer in asleep.runner.run(scenario())} == {200}


def test_a_request_for_any_wakes_another_one_where_the_first_does_not_start(
    asleep: Site, serve: ServeDouble
) -> None:
    asleep.configure(models=[{"id": ACCURATE, "wake": True}, {"id": FRUGAL, "wake": True}])
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [RuntimeError("no GPU")]
    serve.models[FRUGAL].wakes = True
    assert asleep.complete(model="auto").json()["error"]["code"] == "wake_failed"
    assert asleep.complete(model="auto").json()["model"] == FRUGAL


def test_the_waiting_room_is_bounded(asleep: Site, serve: ServeDouble) -> None:
    models = [{"id": FRUGAL}, {"id": ACCURATE, "wake": True}]
    asleep.configure(models=models, max_waking_requests=3)
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [Delay(0.2)]

    async def scenario() -> list[httpx.Response]:
        clients = herd(asleep, 5)
        await asyncio.sleep(0.05)
        serve.models[ACCURATE].replicas = 1
        return await asyncio.gather(*clients)

    answers = asleep.runner.run(scenario())
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429, 429]
    full = next(answer for answer in answers if answer.status_code == 429)
    assert full.json()["error"]["code"] == "waking_full"
    assert full.headers["retry-after"] == "10"


def test_one_api_key_leaves_places_in_the_waiting_room(
    start_site: Callable[..., Site], serve: ServeDouble, tmp_path: Path
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([{"name": n, "sha256": hash_of(n)} for n in ("ann", "ben")]))
    asleep = put_to_sleep(start_site(request_timeout_s=60, keys_file=str(path)), serve)
    models = [{"id": FRUGAL}, {"id": ACCURATE, "wake": True}]
    asleep.configure(models=models, max_waking_requests=4)
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [Delay(0.2)]

    async def ask(key: str) -> httpx.Response:
        content = {
            "json": {"model": ACCURATE, "prompt": "x"},
            "headers": {"Authorization": f"Bearer {key}"},
        }
        return await asleep.send("POST", "/v1/completions", content)

    async def scenario() -> list[httpx.Response]:
        clients = [asyncio.create_task(ask(key)) for key in ["ann"] * 4 + ["ben"] * 2]
        await asyncio.sleep(0.05)
        serve.models[ACCURATE].replicas = 1
        return await asyncio.gather(*clients)

    answers = asleep.runner.run(scenario())
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 200, 429]
    errors = [answers[number].json()["error"] for number in (3, 5)]
    assert {error["code"] for error in errors} == {"waking_full"}
    assert "and 3 requests of this API key wait" in errors[0]["message"]
    assert "and 4 requests wait" in errors[1]["message"]
    # The places are free again.
    assert asleep.runner.run(ask("ann")).status_code == 200


SAID = (
    "A replica failed to start with exception. Retrying 2 more time(s). Error:\n"
    "Traceback (most recent call last):\n  File ...\nValueError: no such checkpoint"
)


def test_a_start_that_fails_is_told_to_all_with_its_cause(asleep: Site, serve: ServeDouble) -> None:
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [HANG]

    hanging: Any = None

    async def scenario() -> tuple[list[httpx.Response], float]:
        nonlocal hanging
        clients = herd(asleep, 4)
        await asyncio.sleep(0.1)
        hanging = serve.models[ACCURATE].questions[-1]
        assert not hanging.cancelled
        serve.models[ACCURATE].message = SAID
        began = time.monotonic()
        return await asyncio.gather(*clients), time.monotonic() - began

    answers, took_s = asleep.runner.run(scenario())
    assert took_s < 3
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "wake_failed")
        assert "does not start" in error["message"]
        assert "ValueError: no such checkpoint" in error["message"]
    # The question that nobody waits for any more starts no replica.
    assert hanging.cancelled
    # It may be woken again.
    serve.models[ACCURATE].message = ""
    serve.models[ACCURATE].wakes = True
    asleep.wait_until(lambda health: health["models"][ACCURATE]["reason"] == SCALED_TO_ZERO)
    assert asleep.complete(model=ACCURATE).status_code == 200


@pytest.mark.parametrize(
    ("status", "message"),
    [("DEPLOY_FAILED", "ValueError: bad"), ("UNHEALTHY", "The deployments ['m'] are UNHEALTHY.")],
)
def test_an_application_that_fails_meanwhile_is_told_too(
    asleep: Site, serve: ServeDouble, status: str, message: str
) -> None:
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [HANG]

    async def scenario() -> list[httpx.Response]:
        clients = herd(asleep, 2)
        await asyncio.sleep(0.1)
        serve.models[ACCURATE].status, serve.models[ACCURATE].message = status, message
        return await asyncio.gather(*clients)

    for answer in asleep.runner.run(scenario()):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "wake_failed")
        assert message in answer.json()["error"]["message"]


def test_what_serve_said_before_the_wake_is_no_failure_of_this_one(
    asleep: Site, serve: ServeDouble
) -> None:
    serve.models[ACCURATE].message = SAID
    asleep.runner.run(asyncio.sleep(0.1))
    assert asleep.complete(model=ACCURATE).status_code == 200


def test_a_replica_that_serve_counts_before_it_has_said_who_it_is_is_waited_for(
    asleep: Site, serve: ServeDouble
) -> None:
    serve.models[ACCURATE].wakes = False
    # The wake's question, and the next looks at the model.
    serve.models[ACCURATE].describes = [Delay(0.5), *[RuntimeError("busy")] * 10]

    async def scenario() -> list[httpx.Response]:
        clients = herd(asleep, 3)
        await asyncio.sleep(0.05)
        serve.models[ACCURATE].message = "Upscaling from 0 to 1 replicas."
        serve.models[ACCURATE].replicas = 1
        return await asyncio.gather(*clients)

    assert {answer.status_code for answer in asleep.runner.run(scenario())} == {200}


def test_what_it_said_before_is_one_after_a_while(
    asleep: Site, serve: ServeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.waking.STALE_FAILURE_S", 0.2)
    serve.models[ACCURATE].message = SAID
    asleep.runner.run(asyncio.sleep(0.1))
    serve.models[ACCURATE].wakes = False
    serve.models[ACCURATE].describes = [HANG]
    assert asleep.complete(model=ACCURATE).json()["error"]["code"] == "wake_failed"
