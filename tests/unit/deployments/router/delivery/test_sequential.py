"""What clients see of the policy `sequential`: one answer, its steps, and what all of them took."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_serve import (
    ACCURATE,
    FRUGAL,
    HANG,
    ServeDouble,
    Site,
    StoreDouble,
    chunk,
    events,
    observation,
    profile,
)
from ray.exceptions import ActorDiedError

from cluster.store.load import ReplicaLoad
from deployments.links.frames import Flag, encode_observation
from deployments.router.delivery.said import Said
from deployments.router.delivery.sequential import _streamed_answer, _whole_answer
from scheduler.costs.profiles import ProfileSet

DIE = ActorDiedError()
WEIGHTS = {"accuracy": 0.7, "energy": 0.3, "time": 0.0}
HURRY = {"accuracy": 0.95, "energy": 0.0, "time": 0.05}


def answers(serve: ServeDouble, model: str, text: str, *, cut: bool = False) -> None:
    """Has a model answer with a text."""
    seen = encode_observation(replace(observation(model), mean_logprob=-0.3, cut=cut))
    script = serve.models[model]
    choice = {"index": 0, "text": text, "finish_reason": "length" if cut else "stop"}
    script.reply = (200, json.dumps({"model": model, "choices": [choice]}).encode(), seen)
    script.frames = [
        (chunk(text), (1,), Flag.NONE),
        (seen, (), Flag.OBSERVATION),
        (chunk("", "stop"), (2,), Flag.FINISH),
        (b"data: [DONE]\n\n", (), Flag.DONE),
    ]


def ask(
    site: Site, *, stream: bool = False, weights: dict[str, float] = WEIGHTS, **body: Any
) -> tuple[str, str, dict[str, Any]]:
    """The text, who answered, and the routing object."""
    response = site.complete(
        stream=stream, routing={"policy": "sequential", "weights": weights}, **body
    )
    assert response.status_code == 200, response.text
    if not stream:
        data = response.json()
        text = data["choices"][0]["text"]
        return text, response.headers["x-routed-model"], data["routing"]
    *pieces, end = events(response)
    assert end == "[DONE]"
    (routing,) = [piece["routing"] for piece in pieces if "routing" in piece]
    text = "".join(c["text"] for piece in pieces for c in piece["choices"])
    return text, response.headers["x-routed-model"], routing


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_answer_has_the_next_model_asked(
    site: Site, serve: ServeDouble, stream: bool
) -> None:
    answers(serve, FRUGAL, "I think", cut=True)
    answers(serve, ACCURATE, "42")
    text, model, routing = ask(site, stream=stream)
    assert (text, model, routing["model"]) == ("42", ACCURATE, ACCURATE)
    first, second = routing["attempts"]
    assert first["model"] == FRUGAL
    assert first["judged"]["accepted"] is False
    assert first["judged"]["step"]["action"] == f"ask {ACCURATE}"
    assert second["judged"]["accepted"] is True
    assert second["judged"]["step"]["action"] == f"give {ACCURATE}"
    # Both are paid for.
    assert routing["actual"]["energy_joules"] == 3.0


@pytest.mark.parametrize("stream", [False, True])
def test_where_energy_is_dear_one_answer_is_enough(
    site: Site, serve: ServeDouble, stream: bool
) -> None:
    answers(serve, FRUGAL, "41")
    text, model, routing = ask(site, stream=stream, weights={"accuracy": 0.1, "energy": 0.9})
    assert (text, model) == ("41", FRUGAL)
    (attempt,) = routing["attempts"]
    assert attempt["judged"] is None, "nothing is looked at that would change nothing"
    assert not serve.models[ACCURATE].calls


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_second_breaks_the_first_answer_is_given(
    site: Site, serve: ServeDouble, stream: bool
) -> None:
    answers(serve, FRUGAL, "half an", cut=True)
    serve.models[ACCURATE].reply = DIE
    serve.models[ACCURATE].frames = [(chunk("x"), (1,), Flag.NONE), DIE]
    text, model, routing = ask(site, stream=stream)
    assert (text, model) == ("half an", FRUGAL)
    assert routing["attempts"][-1]["judged"]["accepted"] is True
    assert any(attempt["error"] for attempt in routing["attempts"])


SiteOn = Callable[..., Site]


@pytest.fixture
def site_on(store: StoreDouble, start_site: Callable[..., Site]) -> SiteOn:
    """Starts a router whose models take the same, and run on these devices."""
    alike = (profile(ACCURATE, 8.0, 300.0, 0.6), profile(FRUGAL, 8.0, 300.0, 0.6))
    store.state.publish(ProfileSet(alike).to_json())

    def start(*devices: str, limit_s: float = 5.0) -> Site:
        for model, device in zip((FRUGAL, ACCURATE), devices, strict=True):
            store.state.report_load(ReplicaLoad(model, model, "node", "test", device, 0))
        return start_site(request_timeout_s=limit_s)

    return start


@pytest.mark.parametrize("stream", [False, True])
def test_where_time_counts_two_models_on_two_devices_are_asked_at_once(
    site_on: SiteOn, serve: ServeDouble, stream: bool
) -> None:
    site = site_on("0", "1")
    answers(serve, FRUGAL, "41", cut=True)
    answers(serve, ACCURATE, "42")
    text, model, routing = ask(site, stream=stream, weights=HURRY)
    assert (text, model) == ("42", ACCURATE)
    first, second = routing["attempts"]
    assert [first["model"], second["model"]] == [FRUGAL, ACCURATE]
    assert first["judged"]["step"] == second["judged"]["step"]
    assert second["judged"]["step"]["action"] == f"give {ACCURATE}"
    assert routing["actual"]["energy_joules"] == 3.0


def test_models_that_share_a_device_are_asked_in_turn(site_on: SiteOn, serve: ServeDouble) -> None:
    site = site_on("0", "0")
    answers(serve, FRUGAL, "41", cut=True)
    answers(serve, ACCURATE, "42", cut=True)
    _, _, routing = ask(site, weights=HURRY)
    first, second = (attempt["judged"]["step"]["action"] for attempt in routing["attempts"])
    assert first.startswith("ask ")
    assert second.startswith("give ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("broken", [FRUGAL, ACCURATE])
def test_of_two_that_are_asked_at_once_one_may_break(
    site_on: SiteOn, serve: ServeDouble, stream: bool, broken: str
) -> None:
    site = site_on("0", "1")
    answers(serve, FRUGAL, "42")
    answers(serve, ACCURATE, "42")
    serve.models[broken].reply = DIE
    serve.models[broken].frames = [(chunk("x"), (1,), Flag.NONE), DIE]
    text, model, routing = ask(site, stream=stream, weights=HURRY)
    assert (text, model) == ("42", ACCURATE if broken == FRUGAL else FRUGAL)
    assert routing["attempts"][-1]["error"] is None
    assert any(attempt["error"] for attempt in routing["attempts"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("slow", [FRUGAL, ACCURATE])
def test_a_time_limit_ends_both(
    site_on: SiteOn, serve: ServeDouble, stream: bool, slow: str
) -> None:
    site = site_on("0", "1", limit_s=1.0)
    for model in (FRUGAL, ACCURATE):
        answers(serve, model, "42")
    serve.models[slow].reply = HANG
    serve.models[slow].frames = [(chunk("x"), (1,), Flag.NONE), HANG]
    routing = {"policy": "sequential", "weights": HURRY}
    response = site.complete(stream=stream, routing=routing)
    assert response.status_code == 504
    (call,) = serve.models[slow].calls
    assert call.response.cancelled


@pytest.mark.parametrize(
    "text", ["", "Liebe Anna,\n\nvielen Dank.\n\nBen", "word " * 200_000, "答案是四十二"]
)
def test_answers_that_cannot_be_compared_are_answers(
    site: Site, serve: ServeDouble, text: str
) -> None:
    answers(serve, FRUGAL, text)
    answers(serve, ACCURATE, text)
    given, _, routing = ask(site)
    assert given == text
    assert routing["policy"] == "sequential"


def test_several_answers_to_one_request_are_not_compared(site: Site, serve: ServeDouble) -> None:
    answers(serve, FRUGAL, "I think", cut=True)
    _, model, routing = ask(site, n=2)
    assert model == FRUGAL
    assert routing["attempts"][0]["judged"] is None


def test_tool_calls_are_compared_by_what_they_call() -> None:
    forms = []
    for arguments in ('{"b": 1, "a": 2}', '{"a": 2, "b": 1}'):
        call = {"function": {"name": "f", "arguments": arguments}}
        message = {"content": None, "tool_calls": [call]}
        forms.append(_whole_answer(json.dumps({"choices": [{"message": message}]}).encode()))
        pieces = [
            b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}).encode()
            for piece in (
                {"index": 0, "function": {"name": "f", "arguments": arguments[:5]}},
                {"index": 0, "function": {"arguments": arguments[5:]}},
            )
        ]
        forms.append(_streamed_answer(Said.of(pieces, "chat")))
    assert len(set(forms)) == 1
    assert forms[0] == ('calls:[["f",{"a":2,"b":1}]]', False)


def test_a_dry_run_shows_what_asking_first_is_worth(site: Site) -> None:
    response = site.request(
        "POST",
        "/v1/route",
        json={"model": "auto", "prompt": "2+2?", "routing": {"policy": "sequential"}},
    )
    assert response.status_code == 200
    assert response.json()["plan"]["answers_from"] == "the prior: no outcomes with answers"
