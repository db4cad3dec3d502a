"""Turns of conversations: what they are, and that they stay where their prefix is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, StoreDouble, observation

from cluster.store.load import ReplicaLoad
from cluster.store.sessions import Placement
from deployments.links.frames import ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer
from deployments.router.decision.advisors.sessions import SessionsAdvisor, Turn, turn_of
from deployments.router.sync.exchange import exchange
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.openai import parse_request

BLOCK = 16
SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Name a river."}
ANSWER = {"role": "assistant", "content": "The Oder."}
SECOND = {"role": "user", "content": "And where does it end?"}


def turn(*messages: dict[str, Any], session: bytes = b"", key: str = "", **more: Any) -> Turn:
    body = json.dumps({"model": "auto", "messages": list(messages), **more}).encode()
    headers = [(b"x-session-id", session)] if session else []
    found = turn_of(parse_request(body, "chat"), headers, key)
    assert found is not None
    return found


def place(asked: Turn, model: str = FRUGAL, replica_id: str = "r0", tokens: int = 100) -> Placement:
    return Placement(asked.said, model, replica_id, tokens)


# What a turn is


def test_the_first_messages_name_a_conversation() -> None:
    first, second = turn(SYSTEM, FIRST), turn(SYSTEM, FIRST, ANSWER, SECOND)
    assert first.key == second.key
    assert first.said_before is None
    assert second.said_before == first.said
    assert turn(SYSTEM, SECOND).id != first.id
    assert turn(FIRST).id != first.id


def test_the_header_wins_and_keys_do_not_mix() -> None:
    named = turn(FIRST, session=b" mine ", key="alice")
    assert (named.key, named.named) == (("alice", "mine"), True)
    assert turn(FIRST, key="alice").key != turn(FIRST, key="bob").key


def test_a_turn_follows_what_it_begins_with() -> None:
    first = turn(SYSTEM, FIRST)
    assert turn(SYSTEM, FIRST, ANSWER, SECOND).follows(place(first))
    assert first.follows(place(first))
    other = {"role": "user", "content": "Name a lake."}
    assert not turn(SYSTEM, other, ANSWER, SECOND).follows(place(first))
    # A history that the client has shortened begins elsewhere.
    long = turn(SYSTEM, FIRST, ANSWER, SECOND)
    assert not turn(SYSTEM, SECOND, ANSWER, FIRST).follows(place(long))
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert not turn(SYSTEM, FIRST, ANSWER, SECOND, tools=tools).follows(place(first))


def test_what_a_tool_said_belongs_to_the_next_turn() -> None:
    call: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    said = {"role": "tool", "content": "42"}
    assert turn(FIRST, call, said).follows(place(turn(FIRST)))


def test_plain_completions_are_no_conversation() -> None:
    parsed = parse_request(b'{"model": "auto", "prompt": "x"}', "completions")
    assert turn_of(parsed, [(b"x-session-id", b"mine")], "") is None


def test_nor_is_what_is_nested_too_deep_to_be_hashed() -> None:
    content: Any = []
    for _ in range(600):
        content = [content]
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": content}]})
    assert turn_of(parse_request(body.encode(), "chat"), [], "") is None


def test_a_long_id_is_refused() -> None:
    with pytest.raises(ApiError, match="x-session-id: must have at most 256"):
        turn(FIRST, session=b"x" * 257)


# What it costs, and where it goes


class Replica:
    """Answers at once; says what was in its cache.

    Attributes:
        cached: Of the input tokens of each answer.
    """

    def __init__(self, name: str) -> None:
        self.name, self.cached, self.requests = name, 0, 0

    async def answer(self, request: ModelRequest) -> Reply:
        self.requests += 1
        seen = replace(
            observation(FRUGAL),
            replica_id=self.name,
            input_tokens=200,
            output_tokens=40,
            cached_input_tokens=self.cached,
        )
        return 200, b'{"object": "chat.completion"}', encode_observation(seen)

    def stream(self, request: ModelRequest) -> Any:
        raise NotImplementedError

    def stopped(self, request_id: str) -> bytes:
        raise NotImplementedError


@pytest.fixture
def replicas(
    site: Site, serve: ServeDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[Replica]]]:
    """Has the frugal model served by these, with so many requests on each."""
    servers: list[LinkServer] = []
    scripts: list[Replica] = []

    def start(*ongoing: int) -> list[Replica]:
        async def serve_them() -> None:
            for number in range(len(servers), len(ongoing)):
                scripts.append(Replica(f"r{number}"))
                servers.append(LinkServer(scripts[-1]))
                await servers[-1].open()
            loads = [
                ReplicaLoad(FRUGAL, f"r{i}", "n", "test", "cpu", busy, link=server.address)
                for i, (busy, server) in enumerate(zip(ongoing, servers, strict=True))
            ]
            monkeypatch.setattr(site.shared.loads, "replicas", loads)
            monkeypatch.setattr(site.shared.loads, "take", lambda *_: None)
            links = site.directory.links
            links.update(loads, "x")
            async with asyncio.timeout(5):
                while links.open(FRUGAL) < len(servers):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            links.update(loads, "x")

        site.runner.run(serve_them())
        return list(scripts)

    described = site.directory[FRUGAL].description
    assert described is not None
    described["prefix_block_tokens"] = BLOCK
    yield start
    for server in servers:
        site.runner.get_loop().call_soon(server.close)


# Far above what the estimate for these messages gives, so that the prompt is the bound.
LONG = {"role": "user", "content": "word " * 400}


def chat(site: Site, *messages: dict[str, Any], **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    path = more.pop("path", "/v1/chat/completions")
    body = {"model": "auto", "messages": list(messages), "max_tokens": 8} | more
    response = site.request("POST", path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response


STAYED = {"model": FRUGAL, "cached_tokens": 240, "stayed": True, "reason": None}
FRUGALLY = {"weights": {"energy": 1}}


def test_the_next_turn_stays_on_the_replica_and_costs_less(
    site: Site, replicas: Callable[..., list[Replica]]
) -> None:
    first, second = replicas(0, 3)
    opening = chat(site, LONG, routing=FRUGALLY).json()["routing"]["session"]
    assert (opening["model"], opening["cached_tokens"], opening["stayed"]) == (None, 0, False)
    # The other one is less busy now, but not by much.
    replicas(3, 0)
    first.cached = 192
    told = chat(site, LONG, ANSWER, SECOND, routing=FRUGALLY).json()["routing"]["session"]
    assert told == {"id": opening["id"], "model": FRUGAL, "cached_tokens": 240, "stayed": True} | {
        "reason": None
    }
    assert (first.requests, second.requests) == (2, 0)
    decision = site.get("/v1/decisions?limit=1")["data"][0]
    assert decision["session"] == told
    candidates = {c["model"]: c for c in decision["candidates"]}
    frugal = candidates[FRUGAL]
    assert (candidates[ACCURATE]["cached_input_tokens"], frugal["cached_input_tokens"]) == (0, 240)
    # 20 + 0.01 in + 0.1 out
    joules = 20 + 0.01 * (frugal["input_tokens"] - 240) + 0.1 * 8
    assert frugal["energy_joules"] == pytest.approx(joules * frugal["energy_factor"])


def test_a_replica_that_is_much_busier_is_left(
    site: Site, replicas: Callable[..., list[Replica]]
) -> None:
    first, second = replicas(0, 3)
    chat(site, LONG, routing=FRUGALLY)
    replicas(5, 0)
    told = chat(site, LONG, ANSWER, SECOND, routing=FRUGALLY).json()["routing"]["session"]
    assert (told["model"], told["cached_tokens"], told["stayed"]) == (FRUGAL, 0, True)
    assert (first.requests, second.requests) == (1, 1)


def test_a_replica_that_is_gone_is_no_reason_to_stay(
    site: Site,
    serve: ServeDouble,
    store: StoreDouble,
    replicas: Callable[..., list[Replica]],
) -> None:
    first, second = replicas(0, 3)
    chat(site, LONG, routing=FRUGALLY)
    entry = site.directory[FRUGAL]
    serve.models[FRUGAL].replicas = 2
    store.state.set_trials(FRUGAL, ["r0"])
    site.wait_until(lambda _: entry.replicas == 2 and entry.under_trial == ("r0",))
    told = chat(site, LONG, ANSWER, SECOND, routing=FRUGALLY).json()["routing"]["session"]
    assert (told["cached_tokens"], told["stayed"]) == (0, True)
    assert (first.requests, second.requests) == (1, 1)


def test_it_moves_where_that_gains_more(site: Site, replicas: Callable[..., list[Replica]]) -> None:
    replicas(0)
    chat(site, LONG, routing=FRUGALLY)
    routing = {"weights": {"accuracy": 1}}
    told = chat(site, LONG, ANSWER, SECOND, routing=routing).json()["routing"]
    assert told["model"] == ACCURATE
    assert told["session"]["model"] == FRUGAL
    assert not told["session"]["stayed"]
    # It is at home there now.
    again = chat(site, LONG, ANSWER, SECOND, ANSWER, SECOND, routing=routing).json()["routing"]
    assert (again["session"]["model"], again["session"]["stayed"]) == (ACCURATE, True)


def test_a_dry_run_tells_of_it_and_changes_nothing(
    site: Site, replicas: Callable[..., list[Replica]]
) -> None:
    replicas(0)
    headers = {"x-session-id": "mine"}
    dry: dict[str, Any] = {"path": "/v1/route", "headers": headers, "routing": FRUGALLY}
    assert chat(site, LONG, **dry).json()["session"]["model"] is None
    chat(site, LONG, headers=headers, routing=FRUGALLY)
    for _ in range(2):
        told = chat(site, LONG, ANSWER, SECOND, **dry).json()["session"]
        assert told == {"id": "mine", "model": FRUGAL, "cached_tokens": 240, "stayed": True} | {
            "reason": None
        }
    # Another conversation under the same name shares nothing but that.
    told = chat(site, SECOND, **dry).json()["session"]
    assert (told["model"], told["cached_tokens"]) == (FRUGAL, 0)


def test_one_question_asked_by_many_is_no_conversation(
    site: Site, replicas: Callable[..., list[Replica]]
) -> None:
    replicas(0)
    for _ in range(2):
        told = chat(site, LONG, routing=FRUGALLY).json()["routing"]["session"]
        assert (told["model"], told["stayed"]) == (None, False)


def test_what_was_not_in_the_cache_is_expected_less_next_time(
    site: Site, replicas: Callable[..., list[Replica]]
) -> None:
    replicas(0)
    messages = [LONG]
    told = []
    for _ in range(4):
        chat(site, *messages, routing=FRUGALLY)
        messages += [ANSWER, SECOND]
        dry = chat(site, *messages, routing=FRUGALLY, path="/v1/route").json()
        told.append(dry["session"]["cached_tokens"])
    assert told == [240, 216, 194, 174]


def test_off_nothing_is_remembered(site: Site, replicas: Callable[..., list[Replica]]) -> None:
    replicas(0)
    site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}], sessions={"enabled": False})
    chat(site, LONG, routing=FRUGALLY)
    assert chat(site, LONG, ANSWER, SECOND).json()["routing"]["session"] is None
    assert len(site.advisor(SessionsAdvisor)) == 0


def test_routers_tell_each_other(
    site: Site, store: StoreDouble, replicas: Callable[..., list[Replica]]
) -> None:
    replicas(0)
    sessions = site.advisor(SessionsAdvisor)
    first = turn(LONG)
    store.state.exchange_sessions(0, [(first.key, place(first, tokens=64))])
    site.runner.run(share(sessions, store, routers=1))
    assert len(sessions) == 0
    chat(site, FIRST, routing=FRUGALLY)
    site.runner.run(share(sessions, store, routers=2))
    told = chat(site, LONG, ANSWER, SECOND, routing=FRUGALLY).json()["routing"]["session"]
    assert (told["model"], told["cached_tokens"]) == (FRUGAL, 64)
    _, news = store.state.exchange_sessions(0, [])
    assert [key for key, _ in news] == [first.key, turn(FIRST).key]


def test_what_the_store_did_not_get_is_told_again(
    site: Site, store: StoreDouble, replicas: Callable[..., list[Replica]]
) -> None:
    replicas(0)
    chat(site, LONG, routing=FRUGALLY)
    sessions = site.advisor(SessionsAdvisor)
    fault, store.fault = store.fault, TimeoutError("away")
    with pytest.raises(TimeoutError):
        site.runner.run(share(sessions, store, routers=2))
    store.fault = fault
    site.runner.run(share(sessions, store, routers=2))
    _, news = store.state.exchange_sessions(0, [])
    assert [key for key, _ in news] == [turn(LONG).key]


async def share(sessions: Any, store: StoreDouble, routers: int) -> None:
    sessions.routers = routers
    await exchange(sessions, store)


# Tool loops

TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for name in ("c1", "c2")
    ],
}
RESULTS = [{"role": "tool", "tool_call_id": name, "content": "42"} for name in ("c1", "c2")]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([FIRST], ""),
        ([FIRST, ANSWER, SECOND], ""),
        ([FIRST, CALL, *RESULTS], "the last message is a tool's result"),
        ([FIRST, CALL, RESULTS[1]], "the last message is a tool's result"),
        ([FIRST, CALL, RESULTS[1], SECOND], "tool call 'c1' has no result yet"),
        ([FIRST, CALL], "tool call 'c1' has no result yet"),
        ([FIRST, CALL, *RESULTS, ANSWER, SECOND], ""),
        ([{"role": "assistant", "tool_calls": [None, {"id": 7}, "x"]}, SECOND], ""),
        ([{"role": "assistant", "tool_calls": 7}, SECOND], ""),
        ([SECOND, {"role": ["tool"], "tool_call_id": {}}], ""),
    ],
)
def test_a_loop_is_open_while_a_result_is_missing_or_unread(messages: Any, reason: str) -> None:
    assert turn(*messages, tools=TOOLS).keep == reason


def test_a_tool_loop_stays_with_its_model_and_says_why(site: Site) -> None:
    opening = chat(site, FIRST, tools=TOOLS, model=ACCURATE).json()["routing"]
    assert opening["session"]["reason"] is None
    dry: dict[str, Any] = {"path": "/v1/route", "routing": FRUGALLY, "tools": TOOLS}
    loop = (FIRST, CALL, *RESULTS)
    told = chat(site, *loop, **dry).json()
    assert (told["model"], told["session"]["stayed"]) == (ACCURATE, True)
    assert told["session"]["reason"] == "kept: the last message is a tool's result"
    # Every turn of it, and none of the conversation afterwards.
    answer = chat(site, *loop, tools=TOOLS, routing=FRUGALLY)
    assert answer.headers["x-routed-model"] == ACCURATE
    told = chat(site, *loop, CALL, *RESULTS, **dry).json()
    assert told["model"] == ACCURATE
    assert chat(site, *loop, ANSWER, SECOND, **dry).json()["model"] == FRUGAL


def test_a_tool_loop_moves_where_its_model_is_down(site: Site, serve: ServeDouble) -> None:
    chat(site, FIRST, tools=TOOLS, model=ACCURATE)
    serve.models[ACCURATE].replicas = 0
    site.wait_until(lambda health: not health["models"][ACCURATE]["available"])
    answer = chat(site, FIRST, CALL, *RESULTS, tools=TOOLS)
    assert answer.headers["x-routed-model"] == FRUGAL
    told = answer.json()["routing"]["session"]["reason"]
    assert told.startswith(f"moved although the last message is a tool's result: {ACCURATE}: ")


def test_the_same_text_as_parts_and_as_a_string_is_one_conversation() -> None:
    content = [{"type": "text", "text": FIRST["content"]}]
    parts = {"content": content, "role": "user", "name": None}
    as_string, as_parts = turn(SYSTEM, FIRST), turn(SYSTEM, parts)
    assert as_string == as_parts
    follows = turn(SYSTEM, FIRST, ANSWER, SECOND)
    assert (follows.key, follows.said_before) == (as_parts.key, as_parts.said)
    two = {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]}
    assert turn(two).id == turn({"role": "user", "content": "a\nb"}).id
    image = {"role": "user", "content": [*content, {"type": "image_url"}]}
    assert turn(image).id != turn(FIRST).id


def test_the_choice_of_a_tool_makes_it_no_other_conversation() -> None:
    first = turn(FIRST, tools=TOOLS, tool_choice="required")
    assert turn(FIRST, CALL, *RESULTS, tools=TOOLS).follows(place(first))
