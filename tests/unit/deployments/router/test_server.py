"""Answers: who gives them, what the router adds to them, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fake_serve import (
    ACCURATE,
    FRUGAL,
    HANG,
    ServeDouble,
    Site,
    StoreDouble,
    chunk,
    error_object,
    events,
    whole_stream,
)
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import RayServeException

from deployments.links.frames import Flag

ONLY_ENERGY = {"weights": {"energy": 1}}


def last_decision(site: Site) -> Any:
    return site.get("/v1/decisions?limit=1")["data"][0]


@pytest.mark.parametrize(
    ("weights", "model"),
    [
        ({"accuracy": 1}, ACCURATE),
        ({"accuracy": 1, "energy": 0, "time": 0}, ACCURATE),
        ({"energy": 0.2}, FRUGAL),
        ({"time": 5}, FRUGAL),
    ],
)
def test_weights_decide_and_those_not_given_are_0(
    site: Site, serve: ServeDouble, weights: dict[str, float], model: str
) -> None:
    response = site.complete(routing={"weights": weights})
    assert response.status_code == 200
    assert response.json()["model"] == model
    decided = last_decision(site)["weights"]
    given = sum(weights.values())
    assert decided == {m: weights.get(m, 0) / given for m in ("accuracy", "energy", "time")}
    assert [len(m.calls) for m in serve.models.values()] == [model == ACCURATE, model == FRUGAL]


@pytest.mark.parametrize("routing", [None, {}, {"weights": None, "policy": None, "models": None}])
def test_no_routing_means_the_configured_weights(site: Site, routing: Any) -> None:
    models = [{"id": ACCURATE}, {"id": FRUGAL}]
    for weights, expected in (({"accuracy": 1, "energy": 0, "time": 0}, ACCURATE),
                              ({"accuracy": 0, "energy": 1, "time": 0}, FRUGAL)):  # fmt: skip
        site.configure(models=models, default_weights=weights)
        assert site.complete(routing=routing).json()["model"] == expected


def test_the_model_gets_the_body_as_it_came(site: Site, serve: ServeDouble) -> None:
    body = b'{"model": "auto",  "prompt": "x", "logprobs": 3, "routing": {"weights": {"energy":1}}}'
    response = site.request("POST", "/v1/completions", content=body)
    (call,) = serve.models[FRUGAL].calls
    assert (call.request.endpoint, call.request.body, call.avoid) == ("completions", body, ())
    assert call.request.request_id == response.headers["x-decision-id"]


def test_chat_goes_to_chat(site: Site, serve: ServeDouble) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    body = {"model": FRUGAL, "messages": messages}
    assert site.request("POST", "/v1/chat/completions", json=body).status_code == 200
    assert serve.models[FRUGAL].calls[0].request.endpoint == "chat"


def test_an_answer_carries_the_routing_object_and_headers(site: Site) -> None:
    response = site.complete(routing=ONLY_ENERGY)
    routing = response.json()["routing"]
    assert response.headers["x-routed-model"] == routing["model"] == FRUGAL
    assert response.headers["x-decision-id"] == routing["decision_id"]
    assert response.headers["content-type"] == "application/json"
    assert routing["policy"] == "weighted"
    assert routing["score"] == pytest.approx(-1)
    # 5 bytes are 2 tokens; a plain completion that names no bound gets 16.
    told = routing["predicted"]
    assert (told["output_tokens"], told["accuracy"], told["concurrency"]) == (16, 0.6, 1)
    assert told["runtime_s"] == pytest.approx(1.0 + 0.002 + 0.16)
    assert told["energy_joules"] == pytest.approx(20.0 + 0.02 + 1.6)
    for name in ("runtime_interval_s", "energy_interval_joules"):
        low, high = told[name]
        assert low <= told[name.replace("interval_", "")] <= high
    assert routing["actual"] == {"output_tokens": 2, "runtime_s": 0.25, "energy_joules": 1.5}
    assert routing["energy_source"] == "nvml"


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_carries_it_in_the_usage_chunk_or_with_the_finish_reason(
    site: Site, serve: ServeDouble, usage: bool
) -> None:
    serve.models[FRUGAL].frames = whole_stream(FRUGAL, usage=usage)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    response = site.complete(routing=ONLY_ENERGY, stream=True, **options)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-routed-model"] == FRUGAL
    *pieces, end = events(response)
    assert end == "[DONE]"
    assert [bool(piece.get("routing")) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert ("usage" in pieces[-1]) is usage
    assert pieces[-1]["routing"]["decision_id"] == response.headers["x-decision-id"]
    assert pieces[-1]["routing"]["actual"]["energy_joules"] == 1.5
    decision = last_decision(site)
    assert (decision["error"], decision["observation"]["output_tokens"]) == (None, 2)


def test_a_pinned_model_without_a_profile_answers_without_a_prediction(
    site: Site, serve: ServeDouble
) -> None:
    serve.models["new"] = type(serve.models[FRUGAL])("new")
    site.configure(models=[{"id": ACCURATE}, {"id": "new"}])
    site.wait_until(lambda health: health["models"]["new"]["available"])
    assert site.get("/health")["models"]["new"]["profile"] is None
    routing = site.complete(model="new").json()["routing"]
    assert (routing["policy"], routing["score"], routing["predicted"]) == ("pinned", None, None)
    assert routing["actual"]["runtime_s"] == 0.25
    chosen = site.request("POST", "/v1/route", json={"model": "auto", "prompt": "x"}).json()
    assert [e["model"] for e in chosen["excluded"]] == ["new"]
    assert "only requests that name it" in chosen["excluded"][0]["reason"]


def test_a_prompt_too_long_for_all_gets_the_routers_own_answer(
    site: Site, serve: ServeDouble
) -> None:
    response = site.complete(prompt=[1] * 3000, routing=ONLY_ENERGY)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert f"{ACCURATE}: a prompt of 3000 tokens leaves no room" in error["message"]
    assert not any(model.calls for model in serve.models.values())


def test_an_estimate_too_long_for_all_goes_to_the_longest_context(
    site: Site, serve: ServeDouble
) -> None:
    serve.models[ACCURATE].reply = (400, error_object(400, "maximum context length is"), b"")
    serve.models[ACCURATE].max_model_len = 2000
    serve.models[ACCURATE].status = "DEPLOYING"
    site.wait_until(lambda _: site.get(f"/v1/models/{ACCURATE}")["max_model_len"] == 2000)
    response = site.complete(prompt="words " * 1500, routing=ONLY_ENERGY)
    assert response.status_code == 400
    assert "maximum context" in response.json()["error"]["message"]
    assert [len(m.calls) for m in serve.models.values()] == [1, 0]


@pytest.mark.parametrize("site", [{"request_timeout_s": 1.0}], indirect=True)
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ([ActorDiedError()], "ActorDiedError"),
        ([RayServeException("replica is gone")], "replica is gone"),
        ([(error_object(500, "engine died"), (), Flag.ERROR)], "failed on this request"),
        ([], "without a finish reason"),
        ([(b"data: [DONE]\n\n", (), Flag.DONE)], "without a finish reason"),
        ([HANG], "did not finish within 1 s"),
        ([(b"no observation", (), Flag.OBSERVATION)], "internal error: JSONDecodeError"),
    ],
)  # fmt: skip
def test_a_broken_stream_ends_with_an_error_event_and_nothing_else(
    site: Site, serve: ServeDouble, broken: list[Any], told: str
) -> None:
    serve.models[FRUGAL].frames = [(chunk("Hel"), (1,), Flag.NONE), *broken]
    response = site.complete(model=FRUGAL, stream=True)
    assert response.status_code == 200
    piece, end = events(response)
    assert piece["choices"][0] == {"index": 0, "text": "Hel", "finish_reason": None}
    assert told in end["error"]["message"]
    assert "choices" not in end
    assert told in last_decision(site)["error"]
    assert site.get("/health")["models"][FRUGAL]["ongoing"] == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, (400, "rejected_by_engine", "prompt")),
        (404, (500, "engine_error", None)),
        (500, (500, "engine_error", None)),
        (501, (400, "unsupported", "prompt")),
    ],
)
def test_a_refusal_before_the_first_byte_has_a_status(
    site: Site, serve: ServeDouble, stream: bool, status: int, told: tuple[int, str, str | None]
) -> None:
    serve.models[FRUGAL].reply = (status, error_object(status), b"")
    serve.models[FRUGAL].frames = [(error_object(status), (), Flag.ERROR)]
    serve.models[ACCURATE].reply = serve.models[FRUGAL].reply
    serve.models[ACCURATE].frames = serve.models[FRUGAL].frames
    response = site.complete(model=FRUGAL, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == told
    assert last_decision(site)["error"] == error["message"]


@pytest.mark.parametrize("site", [{"request_timeout_s": 1.0}], indirect=True)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [(HANG, (504, "timeout")), (ActorDiedError(), (503, "model_failed"))],
)
def test_a_model_that_hangs_or_dies(
    site: Site, serve: ServeDouble, stream: bool, fault: Any, expected: tuple[int, str]
) -> None:
    serve.models[FRUGAL].reply, serve.models[FRUGAL].frames = fault, [fault]
    response = site.complete(model=FRUGAL, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == expected
    assert ("retry-after" in response.headers) is (response.status_code == 503)
    assert serve.models[FRUGAL].calls[0].response.cancelled
    assert site.get("/health")["models"][FRUGAL]["ongoing"] == 0
    assert FRUGAL in last_decision(site)["error"]


@pytest.mark.parametrize(
    ("stream", "stuck_at"),
    [
        (False, None),
        (True, None),
        # A client that does not read either.
        (True, "http.response.start"),
        (True, "http.response.body"),
    ],
)
def test_a_client_that_goes_away_stops_the_model(
    site: Site, serve: ServeDouble, stream: bool, stuck_at: str | None
) -> None:
    serve.models[FRUGAL].reply = HANG
    serve.models[FRUGAL].frames = [(chunk("Hel"), (1,), Flag.NONE), HANG]
    body = json.dumps({"model": FRUGAL, "prompt": "x", "stream": stream}).encode()

    async def hang_up() -> None:
        sent: list[str] = []
        received = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in received:
                return message
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message["type"])
            if message["type"] == stuck_at:
                await asyncio.Event().wait()

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [],
                 "query_string": b"", "root_path": "", "http_version": "1.1",
                 "asgi": {"version": "3.0"}}  # fmt: skip
        # As Serve does when the client disconnects.
        task = asyncio.ensure_future(site.app(scope, receive, send))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not stream or sent[-1] == (stuck_at or "http.response.body")
        task.cancel()
        await asyncio.wait([task])
        # At once, not when garbage is collected.
        assert serve.models[FRUGAL].calls[0].response.cancelled

    site.runner.run(hang_up())
    assert site.get("/health")["models"][FRUGAL]["ongoing"] == 0
    if stuck_at != "http.response.start":
        assert last_decision(site)["error"] == "the client went away"


def test_a_replica_under_trial_is_avoided_and_its_model_no_candidate(
    site: Site, serve: ServeDouble, store: StoreDouble
) -> None:
    serve.models[FRUGAL].replicas = 2
    site.wait_until(lambda health: health["models"][FRUGAL]["replicas"] == 2)
    store.state.set_trials(FRUGAL, ["r2"])
    store.state.set_trials(ACCURATE, ["r1"])
    assert site.runner.run(site.router.refresh()) == store.archive.state.versions().profiles
    response = site.complete(routing={"weights": {"accuracy": 1}})
    assert response.json()["model"] == FRUGAL
    assert serve.models[FRUGAL].calls[0].avoid == ("r2",)
    refused = site.complete(model=ACCURATE)
    assert refused.status_code == 503
    assert "being profiled" in refused.json()["error"]["message"]


def test_round_robin_takes_turns_and_a_dry_run_takes_none(site: Site) -> None:
    routing = {"policy": "round_robin"}
    models = []
    for _ in range(3):
        models.append(site.complete(routing=routing).json()["model"])
        dry: httpx.Response = site.request(
            "POST", "/v1/route", json={"model": "auto", "prompt": "x", "routing": routing}
        )
        assert dry.json()["policy"] == "round_robin"
    assert models in ([ACCURATE, FRUGAL, ACCURATE], [FRUGAL, ACCURATE, FRUGAL])
