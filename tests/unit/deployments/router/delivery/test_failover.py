"""What clients see when replicas and models break; over real links where there are replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, chunk, error_object, events, observation
from ray.exceptions import ActorDiedError

from cluster.store.load import ReplicaLoad
from deployments.links.frames import Flag, Frame, ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer

WORDS = ["one ", "two ", "three ", "four "]
DIE = ActorDiedError()


def word_frames(begin: int = 0, model: str = FRUGAL) -> list[Any]:
    """What an engine streams behind `begin` tokens; a word is a token, its id its place."""
    frames: list[Frame] = [(chunk(w), (i,), 0) for i, w in enumerate(WORDS) if i >= begin]
    seen = encode_observation(observation(model))
    last, ids, _ = frames.pop()
    finish = chunk(json.loads(last[6:])["choices"][0]["text"], "stop")
    return [*frames, (seen, (), Flag.OBSERVATION), (finish, ids, Flag.FINISH),
            (b"data: [DONE]\n\n", (), Flag.DONE)]  # fmt: skip


class Replica:
    """Generates the words; breaks where it is told to.

    Attributes:
        lives: Frames until it breaks, `None` for ever.
        server: Where it listens.
    """

    def __init__(self, lives: int | None = None) -> None:
        self.lives = lives
        self.server = LinkServer(self)
        self.requests: list[ModelRequest] = []

    async def answer(self, request: ModelRequest) -> Reply:
        self.requests.append(request)
        if self.lives is not None:
            raise RuntimeError("out of memory")
        return 200, b'{"object": "text_completion"}', encode_observation(observation(FRUGAL))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        self.requests.append(request)
        for number, frame in enumerate(word_frames(len(request.resumed_ids))):
            if number == self.lives:
                raise RuntimeError("out of memory")
            yield frame

    def stopped(self, request_id: str) -> bytes:
        return b""


Replicas = Callable[..., list[Replica]]


@pytest.fixture
def replicas(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicas]:
    """Has the frugal model served by these replicas; the first one is asked first."""
    servers: list[LinkServer] = []

    def start(*scripts: Replica) -> list[Replica]:
        async def open_links() -> None:
            for script in scripts:
                servers.append(script.server)
                await servers[-1].open()
            links = site.directory.links
            loads = [
                ReplicaLoad(FRUGAL, f"r{i}", "n", "test", "cpu", i, link=server.address)
                for i, server in enumerate(servers)
            ]
            # The store knows nothing of them.
            monkeypatch.setattr(site.shared.loads, "replicas", loads)
            monkeypatch.setattr(site.shared.loads, "take", lambda *_: None)
            links.update(loads, "x")
            async with asyncio.timeout(5):
                while links.open(FRUGAL) < len(scripts):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            # Now that they are connected, who is how busy.
            links.update(loads, "x")

        site.runner.run(open_links())
        return list(scripts)

    yield start
    for server in servers:
        site.runner.get_loop().call_soon(server.close)


def ask(site: Site, **body: Any) -> httpx.Response:
    return site.complete(stream=True, routing={"weights": {"energy": 1}}, **body)


def text(pieces: list[Any]) -> str:
    return "".join(c["text"] for piece in pieces for c in piece.get("choices", ()))


def attempts(pieces: list[Any]) -> list[tuple[str, str, int | None]]:
    (routing,) = [piece["routing"] for piece in pieces if "routing" in piece]
    return [(a["model"], a["begins"], a["output_tokens"]) for a in routing["attempts"]]


@pytest.mark.parametrize("lives", [0, 1, 2, 3])
def test_on_another_replica_a_stream_goes_on_by_token_ids(
    site: Site, replicas: Replicas, lives: int
) -> None:
    broken, whole = replicas(Replica(lives), Replica())
    response = ask(site)
    *pieces, end = events(response)
    assert (end, text(pieces)) == ("[DONE]", "".join(WORDS))
    assert response.headers["x-routed-model"] == FRUGAL
    assert whole.requests[0].resumed_ids == tuple(range(lives))
    assert whole.requests[0].body == broken.requests[0].body
    begins = "by token ids" if lives else "anew"
    assert attempts(pieces) == [(FRUGAL, "anew", lives), (FRUGAL, begins, None)]
    record = site.get("/v1/decisions?limit=1")["data"][0]
    assert record["error"] is None
    assert [a["replica_id"] for a in record["attempts"]] == ["r0", "r1"]
    assert "out of memory" in record["attempts"][0]["error"]


def test_what_two_engines_break_at_is_tried_on_no_third(
    site: Site, replicas: Replicas, serve: ServeDouble
) -> None:
    *_, third = replicas(Replica(1), Replica(1), Replica())
    *pieces, end = events(ask(site))
    assert text(pieces) == "one two "
    assert end["error"]["code"] == "request_breaks_engine"
    assert "out of memory" in end["error"]["message"]
    assert not third.requests
    assert not serve.models[ACCURATE].calls


@pytest.mark.parametrize("died", [1, 2])
def test_with_no_other_replica_the_next_best_model_goes_on_by_text(
    site: Site, serve: ServeDouble, died: int
) -> None:
    serve.models[FRUGAL].frames = [*word_frames()[:died], DIE]
    serve.models[ACCURATE].frames = word_frames(died, ACCURATE)
    *pieces, end = events(ask(site, prompt="Count: ", max_tokens=10))
    assert (end, text(pieces)) == ("[DONE]", "".join(WORDS))
    asked = json.loads(serve.models[ACCURATE].calls[0].request.body)
    assert asked["prompt"] == "Count: " + "".join(WORDS[:died])
    assert asked["max_tokens"] == 10 - died
    assert attempts(pieces) == [(FRUGAL, "anew", died), (ACCURATE, "by text", None)]
    routing = pieces[-1]["routing"]
    assert routing["model"] == ACCURATE
    assert not routing["attempts"][1]["exact"]
    assert routing["actual"]["output_tokens"] == 2 + died


def test_usage_has_the_totals_of_the_whole_answer(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].frames = [*word_frames()[:2], DIE]
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    told = b"data: " + json.dumps({"choices": [], "created": 5, "usage": usage}).encode() + b"\n\n"
    rest = word_frames(2, ACCURATE)
    serve.models[ACCURATE].frames = [*rest[:-1], (told, (), Flag.USAGE), rest[-1]]
    *pieces, _ = events(ask(site, stream_options={"include_usage": True}))
    assert pieces[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
    }


def test_a_chat_has_one_role_marker(site: Site, serve: ServeDouble) -> None:
    def delta(**fields: Any) -> bytes:
        choice = {"index": 0, "delta": fields, "finish_reason": None}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    role = (delta(role="assistant", content=""), (), 0)
    seen = (encode_observation(observation(ACCURATE)), (), Flag.OBSERVATION)
    serve.models[FRUGAL].frames = [role, (delta(content="Hel"), (1,), 0), DIE]
    serve.models[ACCURATE].frames = [
        role,
        seen,
        (delta(content="lo"), (2,), Flag.FINISH),
        (b"data: [DONE]\n\n", (), Flag.DONE),
    ]
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "routing": {"weights": {"energy": 1}},
    }
    response = site.request("POST", "/v1/chat/completions", json=body)
    *pieces, end = events(response)
    assert end == "[DONE]"
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}]
    asked = json.loads(serve.models[ACCURATE].calls[0].request.body)
    assert asked["messages"][-1] == {"role": "assistant", "content": "Hel"}


@pytest.mark.parametrize("usage", [True, False])
def test_an_answer_that_is_whole_is_ended_for_the_engine_that_died(
    site: Site, serve: ServeDouble, usage: bool
) -> None:
    serve.models[FRUGAL].frames = [*word_frames()[:-1], DIE]
    options = {"stream_options": {"include_usage": True}} if usage else {}
    *pieces, end = events(ask(site, **options))
    assert (end, text(pieces)) == ("[DONE]", "".join(WORDS))
    assert len(attempts(pieces)) == 1
    if usage:
        assert pieces[-1]["usage"]["completion_tokens"] == 2
    assert not serve.models[ACCURATE].calls


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"logprobs": 1}, "log probabilities"),
        ({"n": 2}, "several choices"),
        ({"prompt": [1, 2, 3]}, "prompt of token ids"),
    ],
)
def test_a_stream_that_cannot_go_on_ends_with_an_error(
    site: Site, serve: ServeDouble, fields: dict[str, Any], told: str
) -> None:
    serve.models[FRUGAL].frames = [*word_frames()[:2], DIE]
    *pieces, end = events(ask(site, **fields))
    assert text(pieces) == "one two "
    assert told in end["error"]["message"]
    assert end["error"]["code"] == "stream_broken"
    assert not serve.models[ACCURATE].calls


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [DIE, 500])
def test_before_the_first_byte_it_starts_again_elsewhere(
    site: Site, serve: ServeDouble, stream: bool, fault: Any
) -> None:
    broken = serve.models[FRUGAL]
    broken.reply = (500, error_object(500, "engine died"), b"") if fault == 500 else fault
    broken.frames = [(error_object(500, "engine died"), (), Flag.ERROR) if fault == 500 else fault]
    response = site.complete(stream=stream, routing={"weights": {"energy": 1}})
    assert response.status_code == 200
    assert response.headers["x-routed-model"] == ACCURATE
    told = events(response)[-2] if stream else response.json()
    assert [a["model"] for a in told["routing"]["attempts"]] == [FRUGAL, ACCURATE]
    # Nothing is learnt of an answer that went wrong first.
    assert site.shared.learning.lessons == 0


def test_a_whole_answer_comes_from_another_replica(site: Site, replicas: Replicas) -> None:
    broken, whole = replicas(Replica(0), Replica())
    response = site.complete(model=FRUGAL)
    assert response.status_code == 200
    assert [a["replica_id"] for a in response.json()["routing"]["attempts"]] == ["r0", "r1"]
    assert (len(broken.requests), len(whole.requests)) == (1, 1)


def test_embeddings_come_from_another_replica(site: Site, replicas: Replicas) -> None:
    broken, whole = replicas(Replica(0), Replica())
    response = site.request("POST", "/v1/embeddings", json={"model": FRUGAL, "input": ["a", "b"]})
    assert response.status_code == 200, response.text
    assert [a["replica_id"] for a in response.json()["routing"]["attempts"]] == ["r0", "r1"]
    assert [request.endpoint for request in broken.requests + whole.requests] == ["embeddings"] * 2


def test_embeddings_come_from_no_other_model(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = DIE
    response = site.request("POST", "/v1/embeddings", json={"model": FRUGAL, "input": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_failed")
    assert not serve.models[ACCURATE].calls


def rejecting(model: Any, message: str, status: int = 400) -> None:
    told = error_object(status, message)
    model.reply, model.frames = (status, told, b""), [(told, (), Flag.ERROR)]


@pytest.mark.parametrize("stream", [True, False])
def test_what_every_engine_rejects_is_answered_with_the_words_of_the_first(
    site: Site, serve: ServeDouble, stream: bool
) -> None:
    rejecting(serve.models[FRUGAL], "temperature must be at least 0")
    rejecting(serve.models[ACCURATE], "no such temperature")
    for _ in range(2):
        response = site.complete(stream=stream, routing={"weights": {"energy": 1}})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("rejected_by_engine", "prompt")
        assert error["message"] == "temperature must be at least 0"
    # Nothing was learnt of it: the client is at fault.
    assert [len(serve.models[name].calls) for name in (FRUGAL, ACCURATE)] == [2, 2]
    record = site.get("/v1/decisions?limit=1")["data"][0]
    assert [(a["model"], a["refused"]) for a in record["attempts"]] == [
        (FRUGAL, True),
        (ACCURATE, True),
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_what_one_engine_rejects_the_next_model_answers_and_the_router_learns(
    site: Site, serve: ServeDouble, stream: bool
) -> None:
    rejecting(serve.models[FRUGAL], "suffix is not currently supported", 501)
    routing = {"weights": {"energy": 1}}
    for prompt in ("Hello", "World"):
        response = site.complete(prompt=prompt, suffix="!", stream=stream, routing=routing)
        assert response.status_code == 200
        assert response.headers["x-routed-model"] == ACCURATE
    # The second one did not ask the model that rejects its kind.
    assert [len(serve.models[name].calls) for name in (FRUGAL, ACCURATE)] == [1, 2]
    body = {"model": "auto", "prompt": "again", "suffix": "?", "routing": routing}
    (excluded,) = site.request("POST", "/v1/route", json=body).json()["excluded"]
    assert (excluded["model"], excluded["kind"]) == (FRUGAL, "capability")
    assert "rejected such a request: suffix is not currently" in excluded["reason"]
    # Requests of other kinds are not concerned, and where no other model is left neither is this.
    assert site.request("POST", "/v1/route", json=body | {"echo": True}).json()["model"] == FRUGAL
    only = {"routing": {"models": [FRUGAL]}}
    assert site.request("POST", "/v1/route", json=body | only).json()["model"] == FRUGAL
    # Nobody is to blame for anything.
    assert site.complete(prompt="Hello", suffix="!", routing=routing).status_code == 200


def test_who_names_a_model_gets_its_engines_word(site: Site, serve: ServeDouble) -> None:
    rejecting(serve.models[FRUGAL], "no")
    assert site.complete(model=FRUGAL).status_code == 400
    assert not serve.models[ACCURATE].calls


def test_a_constraint_that_was_tried_is_not_tried_on_the_next_model(
    site: Site, serve: ServeDouble
) -> None:
    error = {"message": "too much", "type": "constraint_rejected", "param": "tools", "code": 400}
    serve.models[FRUGAL].reply = (400, json.dumps({"error": error}).encode(), b"")
    response = site.complete(routing={"weights": {"energy": 1}})
    assert response.json()["error"]["code"] == "constraint_rejected"
    assert not serve.models[ACCURATE].calls


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_what_the_next_model_says_of_the_request_is_no_answer_to_a_break(
    site: Site, serve: ServeDouble, stream: bool, begun: bool
) -> None:
    broken, refusing = serve.models[FRUGAL], serve.models[ACCURATE]
    broken.reply = DIE
    broken.frames = [*word_frames()[: 2 * begun], DIE]
    told = error_object(400, "System role not supported")
    refusing.reply = (400, told, b"")
    refusing.frames = [(told, (), Flag.ERROR)]
    response = site.complete(stream=stream, routing={"weights": {"energy": 1}})
    assert response.status_code == (200 if stream and begun else 503)
    *_, last = events(response) if stream and begun else [response.json()]
    error = last["error"]
    assert error["type"] == "server_error"
    assert error["code"] == ("stream_broken" if stream and begun else "model_failed")
    assert "ActorDiedError" in error["message"]
    assert f"model '{ACCURATE}' answered 400: System role not supported" in error["message"]
    record = site.get("/v1/decisions?limit=1")["data"][0]
    assert [a["model"] for a in record["attempts"]] == [FRUGAL, ACCURATE]
    assert [a["refused"] for a in record["attempts"]] == [False, True]


def test_usage_is_never_negative(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].frames = [*word_frames()[:3], DIE]
    # Its tokenizer needs one token for what the first model needed three for.
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    told = b"data: " + json.dumps({"choices": [], "created": 5, "usage": usage}).encode() + b"\n\n"
    rest = word_frames(3, ACCURATE)
    serve.models[ACCURATE].frames = [*rest[:-1], (told, (), Flag.USAGE), rest[-1]]
    *pieces, _ = events(ask(site, stream_options={"include_usage": True}))
    assert pieces[-1]["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 4,
        "total_tokens": 5,
    }
    record = site.get("/v1/decisions?limit=1")["data"][0]
    assert record["observation"]["input_tokens"] >= 1


def test_a_named_model_is_replaced_by_no_other(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = DIE
    response = site.complete(model=FRUGAL)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_failed")
    assert not serve.models[ACCURATE].calls


def test_the_constraints_hold_for_the_next_model_too(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = DIE
    routing = {"weights": {"energy": 1}, "constraints": {"max_energy_joules": 100}}
    assert site.complete(routing=routing).status_code == 503
    assert not serve.models[ACCURATE].calls


def test_nobody_waits_for_a_model_whose_last_replica_has_just_died(
    site: Site, replicas: Replicas, serve: ServeDouble
) -> None:
    (replica,) = replicas(Replica())
    links = site.directory.links

    async def kill() -> None:
        # As a process that is killed has its sockets closed.
        for connection in list(replica.server.connections):
            connection.abort()
        async with asyncio.timeout(5):
            while links.open(FRUGAL):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        links.update([], "x")

    site.runner.run(kill())
    # Serve says that it runs, and its handle would wait for the next one.
    assert serve.models[FRUGAL].replicas == 1
    assert events(ask(site))[-1] == "[DONE]"
    assert [len(m.calls) for m in serve.models.values()] == [1, 0]
    refused = site.complete(model=FRUGAL)
    assert refused.status_code == 503
    assert "have died" in refused.json()["error"]["message"]
