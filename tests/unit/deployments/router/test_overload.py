"""More requests than the models take: who is told so, by whom, and what becomes of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, error_object, events
from ray.exceptions import ActorDiedError

from deployments.links.frames import Flag, ModelRequest
from deployments.replica.admission import Door, ReplicaLimits
from scheduler.priority import Priority

DOOR = Door(most=3)
FULL = DOOR.refusal(ModelRequest("completions", b"{}", "r"), 3)
ENERGY = {"weights": {"energy": 1}}


@pytest.fixture
def site(start_site: Callable[..., Site]) -> Site:
    """With the usual time-out: a short one would be no time to wait."""
    return start_site(request_timeout_s=600)


def fill(site: Site, model: str, requests: int, priority: Priority = Priority.NORMAL) -> None:
    site.directory[model].by_priority[priority] = requests


def refuse(serve: ServeDouble, *models: str) -> None:
    for model in models:
        serve.models[model].reply = (429, FULL, b"")
        serve.models[model].frames = [(FULL, (), Flag.ERROR)]


def error(response: httpx.Response) -> tuple[int, str, int | None]:
    """Status, code and Retry-After."""
    retry_after = response.headers.get("retry-after")
    code = response.json()["error"]["code"]
    return response.status_code, code, retry_after and int(retry_after)


def turned_away(site: Site) -> Any:
    return site.get("/health")["requests"]["turned_away"]


def test_where_every_queue_is_full_it_says_so_at_once(site: Site, serve: ServeDouble) -> None:
    for model in (ACCURATE, FRUGAL):
        fill(site, model, 80)
    # 65 have to end before it begins, 16 at a time; the frugal model takes 1 s and 10 ms a token.
    status, code, retry_after_s = error(site.complete(max_tokens=50, ignore_eos=True))
    assert (status, code) == (429, "queue_full")
    assert retry_after_s == 7
    assert error(site.complete(model=FRUGAL))[:2] == (429, "queue_full")
    assert not any(model.calls for model in serve.models.values())
    assert turned_away(site) == {"queue_full": 2, "deadline": 0}
    fill(site, ACCURATE, 79)
    assert site.complete().headers["x-routed-model"] == ACCURATE


@pytest.mark.parametrize("model", ["auto", FRUGAL])
def test_who_would_be_late_is_told_when_to_come_again(site: Site, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "max_tokens": 50, "ignore_eos": True}
    asked["routing"] = {"models": [FRUGAL], "constraints": {"max_latency_s": 3}}
    assert site.complete(**asked).status_code == 200
    fill(site, FRUGAL, 16 + 40)
    assert error(site.complete(**asked)) == (429, "deadline", 3)
    assert turned_away(site) == {"queue_full": 0, "deadline": 1}
    asked["routing"]["constraints"]["max_latency_s"] = 30
    assert site.complete(**asked).status_code == 200


def test_the_time_out_is_a_deadline_too(site: Site) -> None:
    site.decider.timeout_s = 4.0
    asked = {"max_tokens": 50, "ignore_eos": True, "routing": {"models": [FRUGAL]}}
    assert site.complete(**asked).status_code == 200
    fill(site, FRUGAL, 16 + 40)
    assert error(site.complete(**asked)) == (429, "deadline", 2)


def test_a_priority_has_a_queue_of_its_own(site: Site, serve: ServeDouble) -> None:
    fill(site, FRUGAL, 80)
    routing: dict[str, Any] = {"models": [FRUGAL]}
    assert site.complete(routing=routing).status_code == 429
    for priority in ("high", "low"):
        assert site.complete(routing=routing | {"priority": priority}).status_code == 200
    sent = [call.request.priority for call in serve.models[FRUGAL].calls]
    assert sent == [Priority.HIGH, Priority.LOW]
    fill(site, FRUGAL, 80, Priority.HIGH)
    assert site.complete(routing=routing | {"priority": "high"}).status_code == 429
    # Those that were answered are counted no more.
    assert site.directory[FRUGAL].by_priority[Priority.LOW] == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"routing": {"priority": "urgent"}}, "routing.priority"),
        ({"routing": {"priority": 1}}, "routing.priority"),
        # vLLM's own would go ahead of everybody.
        ({"priority": -5}, "priority"),
    ],
)
def test_priorities_that_are_none(site: Site, fields: Any, param: str) -> None:
    response = site.complete(**fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("stream", [True, False])
def test_a_replica_that_refuses_is_no_break(site: Site, serve: ServeDouble, stream: bool) -> None:
    refuse(serve, FRUGAL)
    response = site.complete(stream=stream, routing=ENERGY)
    assert response.status_code == 200
    assert response.headers["x-routed-model"] == ACCURATE
    told = events(response)[-2] if stream else response.json()
    attempts = told["routing"]["attempts"]
    assert [(a["model"], a["refused"]) for a in attempts] == [(FRUGAL, True), (ACCURATE, False)]
    assert "queue is full" in attempts[0]["error"]
    # It was not admitted anywhere, so the next one may refuse it as well.
    assert serve.models[ACCURATE].calls[0].request.waited_s == 0
    assert turned_away(site) == {"queue_full": 0, "deadline": 0}


@pytest.mark.parametrize("stream", [True, False])
def test_where_all_replicas_refuse_it_is_429(site: Site, serve: ServeDouble, stream: bool) -> None:
    refuse(serve, FRUGAL, ACCURATE)
    fill(site, FRUGAL, 16 + 8)
    fill(site, ACCURATE, 16 + 8)
    response = site.complete(
        stream=stream, routing=ENERGY, max_tokens=50, ignore_eos=True, model=FRUGAL
    )
    # 9 have to end first, 16 at a time, in 1.5 s each.
    assert error(response) == (429, "queue_full", 1)
    response = site.complete(stream=stream, routing=ENERGY)
    assert error(response)[:2] == (429, "queue_full")
    assert turned_away(site) == {"queue_full": 2, "deadline": 0}
    record = site.get("/v1/decisions?limit=1")["data"][0]
    assert "queue is full" in record["error"]


def test_refusals_are_no_attempts(start_site: Callable[..., Site], serve: ServeDouble) -> None:
    refuse(serve, FRUGAL)
    site = start_site(request_timeout_s=600, max_attempts=1)
    assert site.complete(routing=ENERGY).headers["x-routed-model"] == ACCURATE


def test_what_was_admitted_once_is_not_turned_away(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = ActorDiedError()
    assert site.complete(routing=ENERGY).status_code == 200
    (call,) = serve.models[ACCURATE].calls
    assert call.request.waited_s > 0
    assert DOOR.refusal(call.request, 1000) is None


def test_a_429_of_the_model_itself_is_its_answer(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = (429, error_object(429, "of vLLM"), b"")
    assert site.complete(routing=ENERGY).status_code == 429
    assert not serve.models[ACCURATE].calls
    assert turned_away(site) == {"queue_full": 1, "deadline": 0}


@pytest.mark.parametrize("priority", Priority)
def test_the_door_of_a_replica(priority: Priority) -> None:
    request = ModelRequest("chat", b"{}", "r", priority=priority)
    assert DOOR.refusal(request, 2) is None
    refusal = DOOR.refusal(request, 3)
    assert refusal is not None
    told = json.loads(refusal)["error"]
    assert (told["code"], told["type"]) == (429, "queue_full")
    assert priority.name.lower() in told["message"]


def test_the_door_leaves_places_to_other_keys() -> None:
    door = Door(most=20, slots=4)
    boss = ModelRequest("chat", b"{}", "r", caller="boss", sequences=5)
    # Two places each: half of the slots.
    with ExitStack() as stack:
        for _ in range(7):
            assert door.refusal(boss, 12) is None
            stack.enter_context(door.held(boss))
        refusal = door.refusal(boss, 12)
        assert refusal is not None
        assert "14 requests of this API key" in json.loads(refusal)["error"]["message"]
        for other in (
            ModelRequest("chat", b"{}", "r", caller="ann"),
            ModelRequest("chat", b"", ""),
        ):
            assert door.refusal(other, 15) is None
    assert door.refusal(boss, 12) is None


def test_the_door_leaves_places_to_requests_of_one_answer() -> None:
    door = Door(most=20, slots=4)
    several = ModelRequest("chat", b"{}", "r", sequences=64)
    assert door.refusal(several, 13) is None
    assert door.refusal(several, 14) is not None
    assert door.refusal(ModelRequest("chat", b"{}", "r"), 19) is None


def test_how_long_a_queue_is() -> None:
    assert ReplicaLimits().queue(16) == 64
    assert ReplicaLimits(max_queued_requests=0).queue(16) == 0
