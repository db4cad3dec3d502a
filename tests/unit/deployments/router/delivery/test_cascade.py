"""What clients see of a ladder of models: one answer, and what all tries took."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, PROFILES, ServeDouble, Site, chunk, events, observation
from ray.exceptions import ActorDiedError

from deployments.links.frames import Flag, encode_observation

DIE = ActorDiedError()
LADDER = [{"model": FRUGAL, "accept_above": -0.5}, {"model": ACCURATE}]


@pytest.fixture
def ladder(site: Site) -> Site:
    """A router that asks the frugal model first."""
    site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}], cascade=LADDER)
    return site


def seen(model: str, mean_logprob: float | None) -> bytes:
    return encode_observation(replace(observation(model), mean_logprob=mean_logprob))


def answers(serve: ServeDouble, model: str, mean_logprob: float | None) -> None:
    """Has a model answer with its name, and be so sure of it."""
    script = serve.models[model]
    script.reply = (200, b'{"model": "%s"}' % model.encode(), seen(model, mean_logprob))
    script.frames = [
        (chunk(f"{model} "), (1,), Flag.NONE),
        (seen(model, mean_logprob), (), Flag.OBSERVATION),
        (chunk("says", "stop"), (2,), Flag.FINISH),
        (b"data: [DONE]\n\n", (), Flag.DONE),
    ]


def ask(site: Site, *, stream: bool = False, **body: Any) -> tuple[str, dict[str, Any]]:
    """Who answered, and the routing object."""
    response = site.complete(stream=stream, routing={"policy": "cascade"}, **body)
    assert response.status_code == 200, response.text
    if not stream:
        return response.headers["x-routed-model"], response.json()["routing"]
    *pieces, end = events(response)
    assert end == "[DONE]"
    (routing,) = [piece["routing"] for piece in pieces if "routing" in piece]
    text = "".join(c["text"] for piece in pieces for c in piece["choices"])
    # All of it is by one model.
    assert text == f"{routing['model']} says"
    return response.headers["x-routed-model"], routing


@pytest.mark.parametrize("stream", [False, True])
def test_a_sure_answer_is_taken(ladder: Site, serve: ServeDouble, stream: bool) -> None:
    answers(serve, FRUGAL, -0.5)
    model, routing = ask(ladder, stream=stream)
    assert model == routing["model"] == FRUGAL
    (attempt,) = routing["attempts"]
    assert attempt["judged"] == {
        "mean_logprob": -0.5,
        "accept_above": -0.5,
        "accepted": True,
        "runtime_s": 0.25,
        "energy_joules": 1.5,
    }
    assert routing["actual"] == {"output_tokens": 2, "runtime_s": 0.25, "energy_joules": 1.5}
    assert serve.models[FRUGAL].calls[0].request.scored
    assert not serve.models[ACCURATE].calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mean_logprob", [-0.51, None])
def test_an_unsure_one_is_asked_of_the_next_model(
    ladder: Site, serve: ServeDouble, stream: bool, mean_logprob: float | None
) -> None:
    answers(serve, FRUGAL, mean_logprob)
    answers(serve, ACCURATE, None)
    model, routing = ask(ladder, stream=stream)
    assert model == routing["model"] == ACCURATE
    rejected, accepted = routing["attempts"]
    assert (rejected["model"], rejected["judged"]["accepted"]) == (FRUGAL, False)
    assert rejected["output_tokens"] == 2
    assert (accepted["model"], accepted["begins"], accepted["judged"]) == (ACCURATE, "anew", None)
    # Both tries; tokens are those that the client got.
    assert routing["actual"] == {"output_tokens": 2, "runtime_s": 0.5, "energy_joules": 3.0}
    (call,) = serve.models[ACCURATE].calls
    assert not call.request.scored
    assert call.request.body == serve.models[FRUGAL].calls[0].request.body


def test_what_was_rejected_teaches_too(ladder: Site, serve: ServeDouble) -> None:
    answers(serve, FRUGAL, -2.0)
    answers(serve, ACCURATE, None)
    ask(ladder)
    learning = ladder.shared.learning
    assert learning.lessons == 2
    for model in (FRUGAL, ACCURATE):
        profile = PROFILES.find(model)
        assert profile is not None
        correction = learning.corrections.runtime(model, profile.accelerator, profile.fit_id)
        assert correction.observations == 1


def test_joules_that_one_counter_missed_are_unknown_in_all(
    ladder: Site, serve: ServeDouble
) -> None:
    answers(serve, ACCURATE, None)
    unknown = replace(observation(FRUGAL), mean_logprob=-2.0, energy_joules=None)
    serve.models[FRUGAL].reply = (200, b'{"model": "x"}', encode_observation(unknown))
    _, routing = ask(ladder)
    assert routing["actual"]["energy_joules"] is None
    assert routing["actual"]["runtime_s"] == 0.5


def test_nothing_of_a_rejected_stream_reaches_the_client(ladder: Site, serve: ServeDouble) -> None:
    answers(serve, FRUGAL, -2.0)
    answers(serve, ACCURATE, None)
    response = ladder.complete(stream=True, routing={"policy": "cascade"})
    assert FRUGAL not in response.text.split('"attempts"')[0]


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_first_breaks_the_next_one_begins_anew(
    ladder: Site, serve: ServeDouble, stream: bool
) -> None:
    serve.models[FRUGAL].reply = DIE
    serve.models[FRUGAL].frames = [(chunk("half"), (1,), Flag.NONE), DIE]
    answers(serve, ACCURATE, None)
    model, routing = ask(ladder, stream=stream)
    assert model == ACCURATE
    broken, whole = routing["attempts"]
    assert broken["error"]
    assert (whole["begins"], whole["exact"]) == ("anew", True)


@pytest.mark.parametrize("stream", [False, True])
def test_where_no_better_one_comes_the_rejected_answer_is_given(
    ladder: Site, serve: ServeDouble, stream: bool
) -> None:
    answers(serve, FRUGAL, -2.0)
    serve.models[ACCURATE].reply = DIE
    serve.models[ACCURATE].frames = [DIE]
    model, routing = ask(ladder, stream=stream)
    assert model == routing["model"] == FRUGAL
    broken, given = routing["attempts"]
    assert (broken["model"], given["model"]) == (ACCURATE, FRUGAL)
    assert broken["error"]
    assert (given["judged"]["mean_logprob"], given["judged"]["accepted"]) == (-2.0, True)
    assert routing["actual"] == {"output_tokens": 2, "runtime_s": 0.25, "energy_joules": 1.5}


def test_a_stream_that_has_begun_is_not_replaced(ladder: Site, serve: ServeDouble) -> None:
    answers(serve, FRUGAL, -2.0)
    serve.models[ACCURATE].frames = [(chunk("half"), (1,), Flag.NONE), DIE]
    response = ladder.complete(stream=True, routing={"policy": "cascade"})
    first, error = events(response)
    assert first["choices"][0]["text"] == "half"
    assert error["error"]["code"] == "model_failed"
    assert response.headers["x-routed-model"] == ACCURATE


def test_the_last_model_that_is_up_has_the_last_word(ladder: Site, serve: ServeDouble) -> None:
    answers(serve, FRUGAL, -2.0)
    ladder.directory[ACCURATE].unavailable = "gone"
    model, routing = ask(ladder)
    assert model == FRUGAL
    assert routing["attempts"][0]["judged"] is None


def test_a_dry_run_tells_the_ladder(ladder: Site) -> None:
    body = {"model": "auto", "prompt": "x", "routing": {"policy": "cascade"}}
    decision = ladder.request("POST", "/v1/route", json=body).json()
    assert decision["cascade"] == [
        {"model": FRUGAL, "accept_above": -0.5},
        {"model": ACCURATE, "accept_above": None},
    ]
    assert (decision["model"], decision["policy"]) == (FRUGAL, "cascade")
    body["routing"] = {"policy": "weighted"}
    assert ladder.request("POST", "/v1/route", json=body).json()["cascade"] == []


def test_without_a_ladder_it_is_an_error(site: Site) -> None:
    response = site.complete(routing={"policy": "cascade"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "routing.policy"
    assert "`cascade` in the router's user_config" in response.json()["error"]["message"]
