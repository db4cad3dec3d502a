"""Keys and budgets over HTTP, from the file to the 429."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, ServeDouble, Site, StoreDouble, bearing
from ray.exceptions import ActorDiedError

from cluster.store.usage import Usage
from deployments.router.access.keys import KeyFileError
from deployments.router.sync.exchange import exchange
from scheduler.priority import Priority


def complete(site: Site, key: str, **body: Any) -> Any:
    json = {"model": FRUGAL, "prompt": "Hello"} | body
    return site.request("POST", "/v1/completions", json=json, **bearing(key))


def test_looking_is_free(keyed: Site) -> None:
    for _ in range(3):
        assert keyed.request("GET", "/v1/live", **bearing("eve")).status_code == 200
    dry = {"model": FRUGAL, "prompt": "Hello"}
    assert keyed.request("POST", "/v1/route", json=dry, **bearing("eve")).status_code == 200
    assert [complete(keyed, "eve").status_code for _ in range(2)] == [200, 429]
    assert keyed.request("GET", "/v1/live", **bearing("eve")).status_code == 200


def test_answers_are_charged_until_the_budget_is_used_up(keyed: Site) -> None:
    # 5 input and 2 output tokens each.
    answers = [complete(keyed, "ann") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    refused = answers[2]
    assert refused.headers["retry-after"] == "30"
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("budget_exceeded", "invalid_request_error")
    assert "tokens_per_minute of 10" in error["message"]
    assert complete(keyed, "boss").status_code == 200


def test_streams_are_charged_too(keyed: Site) -> None:
    answers = [complete(keyed, "ann", stream=True) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_an_answer_that_nobody_saw_anything_of_is_charged_by_its_time(
    keyed: Site, serve: ServeDouble
) -> None:
    serve.models[FRUGAL].reply = HANG
    content = {"json": {"model": FRUGAL, "prompt": "Hello"}, **bearing("ann")}

    async def hang_up() -> None:
        call = asyncio.create_task(keyed.send("POST", "/v1/completions", content))
        async with asyncio.timeout(30):
            while not serve.models[FRUGAL].calls:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait({call})

    keyed.runner.run(hang_up())
    used = keyed.used_by("ann")
    # 16 output tokens are predicted, in 1.2 s.
    assert 0 < used.tokens < 10
    assert 0 < used.joules < 20 / 2


@pytest.mark.parametrize("keyed", [{"request_timeout_s": 0.5}], indirect=True)
def test_an_answer_that_came_too_late_is_charged_likewise(keyed: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = HANG
    assert complete(keyed, "ann").status_code == 504
    assert 0 < keyed.used_by("ann").tokens < 16


def test_what_the_models_broke_costs_nothing(keyed: Site, serve: ServeDouble) -> None:
    reply = serve.models[FRUGAL].reply
    serve.models[FRUGAL].reply = ActorDiedError()
    for _ in range(3):
        assert complete(keyed, "ann").status_code == 503
    serve.models[FRUGAL].reply = reply
    assert complete(keyed, "ann").status_code == 200


def test_decisions_are_the_administrators(keyed: Site) -> None:
    assert keyed.request("GET", "/v1/decisions", **bearing("boss")).status_code == 200
    assert keyed.request("GET", "/v1/decisions", **bearing("ann")).status_code == 403
    assert keyed.request("GET", "/v1/profiles", **bearing("ann")).status_code == 200
    assert keyed.request("GET", "/v1/profiles").status_code == 401


def test_a_key_leaves_places_in_the_queue_to_others(keyed: Site, serve: ServeDouble) -> None:
    entry = keyed.directory[FRUGAL]
    slots, queue = 16, 64
    most = (slots + queue) * 3 // 4
    with entry.taken(Priority.NORMAL, 1, "eve"), ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(entry.taken(Priority.NORMAL, 1, "boss"))
        refused = complete(keyed, "boss")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (429, "queue_full")
        assert "60 requests of this API key of priority normal, 60 at most" in error["message"]
        answer = complete(keyed, "ann")
        assert answer.status_code == 200
        # It does not wait for all of the other's: 8 of them are in the engine, and one of eve's.
        assert entry.held_back("ann") == most - 8
        assert entry.held_back("boss") == 0
        assert serve.models[FRUGAL].calls[-1].request.caller == "ann"
    assert not entry.by_caller
    assert entry.ongoing == 0


def test_what_was_used_is_told_to_the_store(keyed: Site, store: StoreDouble) -> None:
    complete(keyed, "boss")
    keyed.runner.run(exchange(keyed.budgets, store))
    (used,) = (by_key for period, by_key in store.state.spend({}).items() if period.name == "day")
    assert used == {"boss": Usage(requests=1, tokens=7, joules=1.5)}


def test_limits_come_from_the_configuration(site: Site) -> None:
    limits = {"max_tokens": 9, "prompt_tokens": 3, "header_bytes": 400}
    site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}], limits=limits)
    assert site.complete(max_tokens=9).status_code == 200
    refused = site.complete(max_tokens=10).json()["error"]
    assert (refused["param"], refused["code"]) == ("max_tokens", "limit_exceeded")
    body = {"model": "auto", "prompt": "x" * 13, "max_tokens": 1}
    for path in ("/v1/completions", "/v1/route"):
        answer = site.request("POST", path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "prompt: at most 3 input tokens, got 4"
    assert site.request("GET", "/v1/models", headers={"x": "y" * 400}).status_code == 431
    # A probe gets its answer before anything is looked at.
    assert site.request("GET", "/health", headers={"x": "y" * 400}).status_code == 200


def test_a_router_does_not_start_without_the_keys_that_it_was_promised(
    start_site: Callable[..., Site],
) -> None:
    with pytest.raises(KeyFileError, match=r"/nowhere/keys\.yaml"):
        start_site(keys_file="/nowhere/keys.yaml")
