"""Reasoning and tool calls whose replica breaks in the middle: they go on, or end honestly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, events, observation
from ray.exceptions import ActorDiedError

from cluster.store.load import ReplicaLoad
from deployments.links.frames import Flag, Frame, ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer

DIE = ActorDiedError()
USER = {"role": "user", "content": "Hello"}
TOOLS = [{"type": "function", "function": {"name": "find"}}]
STRICT = [{"type": "function", "function": {"name": "find", "strict": True}}]
THINKS = {
    "continues": {
        "answer": {"content": "{content}", "reasoning": "{reasoning}"},
        "reasoning": {"content": "<think>\n{reasoning}"},
    }
}


def delta(finish: str | None = None, **members: Any) -> bytes:
    choice = {"index": 0, "delta": members, "finish_reason": finish}
    return b"data: " + json.dumps({"created": 7, "choices": [choice]}).encode() + b"\n\n"


def call(**members: Any) -> dict[str, Any]:
    name, arguments = members.pop("name", None), members.pop("arguments", None)
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    return {"tool_calls": [{"index": 0, **members, "function": function}]}


ROLE = delta(role="assistant", content="")
OPENED = delta(**call(id="c1", type="function", name="find", arguments=""))


def frames(*chunks: bytes, model: str = FRUGAL, ends: bool = True) -> list[Any]:
    """As a replica streams them, one token each; the last one with the finish reason."""
    made: list[Any] = [(ROLE, (), 0)]
    made += [(chunk, (number,), 0) for number, chunk in enumerate(chunks)]
    if not ends:
        return [*made, DIE]
    last, ids, _ = made.pop()
    seen = encode_observation(observation(model))
    return [*made, (seen, (), Flag.OBSERVATION), (last, ids, Flag.FINISH),
            (b"data: [DONE]\n\n", (), Flag.DONE)]  # fmt: skip


@pytest.fixture
def ask(serve: ServeDouble, start_site: Callable[..., Site]) -> Callable[..., list[Any]]:
    """The events of a stream that the frugal model begins and the accurate one takes over."""

    def ask(begun: list[Any], then: list[Any], **body: Any) -> list[Any]:
        serve.models[FRUGAL].frames = begun
        serve.models[ACCURATE].frames = then
        site = start_site(request_timeout_s=5)
        asked = {"model": "auto", "messages": [USER], "stream": True, "max_tokens": 50}
        routing = {"routing": {"weights": {"energy": 1}}}
        response = site.request("POST", "/v1/chat/completions", json=asked | routing | body)
        assert response.status_code == 200, response.text
        return events(response)

    return ask


def asked_of(serve: ServeDouble, model: str = ACCURATE) -> Any:
    (one,) = serve.models[model].calls
    return json.loads(one.request.body)


def deltas(told: list[Any], member: str) -> list[Any]:
    return [
        choice["delta"][member]
        for event in told
        if event != "[DONE]"
        for choice in event.get("choices", ())
        if choice["delta"].get(member)
    ]


def ended_with(told: list[Any], reason: str) -> None:
    assert told[-1] != "[DONE]"
    assert told[-1]["error"]["code"] == "stream_broken"
    assert reason in told[-1]["error"]["message"]


# Reasoning


def test_reasoning_goes_on_as_reasoning(serve: ServeDouble, ask: Callable[..., list[Any]]) -> None:
    serve.models[ACCURATE].capabilities = THINKS
    told = ask(
        frames(delta(reasoning="\nIt thinks"), ends=False),
        frames(delta(reasoning=" on."), delta("stop", content="So."), model=ACCURATE),
    )
    asked = asked_of(serve)
    assert asked["messages"][-1] == {"role": "assistant", "content": "<think>\nIt thinks"}
    assert asked["continue_final_message"] is True
    assert asked["max_tokens"] == 49
    assert "".join(deltas(told, "reasoning")) == "\nIt thinks on."
    assert deltas(told, "content") == ["So."]
    assert told[-1] == "[DONE]"


@pytest.mark.parametrize("continues", [{}, {"answer": {"content": "{content}"}}])
def test_or_the_stream_ends_with_the_reason(
    serve: ServeDouble, ask: Callable[..., list[Any]], continues: dict[str, Any]
) -> None:
    serve.models[ACCURATE].capabilities = {"continues": continues}
    told = ask(frames(delta(reasoning="It thinks"), ends=False), frames(delta("stop", content="!")))
    ended_with(told, "no other model can go on behind its reasoning")
    assert not serve.models[ACCURATE].calls


def test_behind_the_reasoning_the_answer_goes_on_as_an_answer(
    serve: ServeDouble, ask: Callable[..., list[Any]]
) -> None:
    serve.models[ACCURATE].capabilities = THINKS
    told = ask(
        frames(delta(reasoning="Hm."), delta(content="It {says}"), ends=False),
        frames(delta("stop", content=" so.")),
    )
    said = {"role": "assistant", "content": "It {says}", "reasoning": "Hm."}
    assert asked_of(serve)["messages"][-1] == said
    assert "".join(deltas(told, "content")) == "It {says} so."
    assert told[-1] == "[DONE]"


def test_a_model_that_cannot_continue_is_passed_over(
    serve: ServeDouble, ask: Callable[..., list[Any]]
) -> None:
    serve.models[ACCURATE].capabilities = {"lacks": {"continuation": "no"}, "continues": {}}
    told = ask(frames(delta(content="It says"), ends=False), frames(delta("stop", content="!")))
    ended_with(told, "no other model can go on behind its text")


# Tools


def test_a_call_without_an_argument_is_made_again_by_the_same_tool(
    serve: ServeDouble, ask: Callable[..., list[Any]]
) -> None:
    begins = delta(**call(id="c2", type="function", name="find", arguments='{"where": '))
    told = ask(
        frames(OPENED, ends=False),
        frames(begins, delta("stop", **call(arguments='"here"}'))),
        tools=TOOLS,
    )
    asked = asked_of(serve)
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "find"}}
    assert asked["messages"] == [USER]
    pieces = [piece for calls in deltas(told, "tool_calls") for piece in calls]
    # One id and one name, whoever made the arguments.
    assert [piece.get("id") for piece in pieces] == ["c1", None, None]
    assert [piece["function"].get("name") for piece in pieces] == ["find", None, None]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"where": "here"}'
    reasons = [c["finish_reason"] for e in told[:-1] for c in e["choices"] if c["finish_reason"]]
    assert reasons == ["tool_calls"]
    assert told[-1] == "[DONE]"


@pytest.mark.parametrize(
    "sent",
    [
        [OPENED, delta(**call(arguments="{"))],
        [delta(content="I look."), OPENED],
        [OPENED, delta(tool_calls=[{"index": 1, "function": {"name": "find"}}])],
    ],
)
def test_a_call_in_progress_ends_honestly(
    serve: ServeDouble, ask: Callable[..., list[Any]], sent: list[bytes]
) -> None:
    told = ask(frames(*sent, ends=False), frames(delta("stop", content="!")), tools=TOOLS)
    ended_with(told, "a tool call has begun")
    assert not serve.models[ACCURATE].calls


def test_a_model_that_calls_no_tool_by_name_is_passed_over(
    serve: ServeDouble, ask: Callable[..., list[Any]]
) -> None:
    serve.models[ACCURATE].capabilities = {"lacks": {"tool_choice": "no parser"}}
    told = ask(frames(OPENED, ends=False), frames(delta("stop", content="!")), tools=TOOLS)
    ended_with(told, "no other model calls a tool by its name")


def test_text_goes_on_with_the_tools_at_hand(
    serve: ServeDouble, ask: Callable[..., list[Any]]
) -> None:
    told = ask(
        frames(delta(content="I look"), ends=False),
        frames(delta(content=" it up."), delta("tool_calls", **call(id="c", name="find"))),
        tools=TOOLS,
    )
    assert asked_of(serve)["tools"] == TOOLS
    assert "".join(deltas(told, "content")) == "I look it up."
    assert told[-1] == "[DONE]"


@pytest.mark.parametrize(
    "body",
    [{"logprobs": True}, {"response_format": {"type": "json_object"}}, {"tools": TOOLS}],
)
def test_behind_an_opening_it_begins_again_whatever_was_asked(
    serve: ServeDouble, ask: Callable[..., list[Any]], body: dict[str, Any]
) -> None:
    told = ask(frames(delta(), ends=False), frames(delta("stop", content="Yes.")), **body)
    assert asked_of(serve)["messages"] == [USER]
    assert deltas(told, "role") == ["assistant"]
    assert deltas(told, "content") == ["Yes."]
    assert told[-1] == "[DONE]"


# On another replica of the same model


class Chatting:
    """A replica with a parser: resumed, it gives the beginning again as it reads it.

    Attributes:
        chunks: Of its whole answer, one token each.
        lives: Chunks until it breaks, `None` for ever.
        reads: What it reads the beginning as, where that is something else.
    """

    def __init__(
        self, *chunks: bytes, lives: int | None = None, reads: list[bytes] | None = None
    ) -> None:
        self.chunks, self.lives, self.reads = list(chunks), lives, reads
        self.requests: list[ModelRequest] = []

    async def answer(self, request: ModelRequest) -> Reply:
        raise NotImplementedError

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        self.requests.append(request)
        opening, *whole = frames(*self.chunks)
        yield opening
        resumed = len(request.resumed_ids)
        for chunk in (self.reads or self.chunks)[:resumed]:
            yield chunk, (), Flag.REPLAYED
        for number, frame in enumerate(whole[resumed:]):
            if number == self.lives:
                raise RuntimeError("out of memory")
            yield frame

    def stopped(self, request_id: str) -> bytes:
        return b""


CALLED = [
    delta(reasoning="Hm."),
    OPENED,
    delta(**call(arguments='{"where": ')),
    delta("tool_calls", **call(arguments='"here"}')),
]


@pytest.fixture
def linked(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has the frugal model served by these replicas; the first one is asked first."""
    servers: list[LinkServer] = []

    def start(*scripts: Chatting) -> None:
        async def open_links() -> None:
            for script in scripts:
                servers.append(LinkServer(script))
                await servers[-1].open()
            links = site.directory.links
            loads = [
                ReplicaLoad(FRUGAL, f"r{i}", "n", "test", "cpu", i, link=server.address)
                for i, server in enumerate(servers)
            ]
            monkeypatch.setattr(site.shared.loads, "replicas", loads)
            monkeypatch.setattr(site.shared.loads, "take", lambda *_: None)
            links.update(loads, "x")
            async with asyncio.timeout(5):
                while links.open(FRUGAL) < len(scripts):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            links.update(loads, "x")

        site.runner.run(open_links())

    yield start
    for server in servers:
        site.runner.get_loop().call_soon(server.close)


def chat(site: Site, **body: Any) -> list[Any]:
    asked = {"model": FRUGAL, "messages": [USER], "stream": True, "tools": TOOLS}
    response = site.request("POST", "/v1/chat/completions", json=asked | body)
    assert response.status_code == 200, response.text
    return events(response)


@pytest.mark.parametrize("lives", [1, 2, 3])
def test_reasoning_and_calls_go_on_by_token_ids(
    site: Site, linked: Callable[..., None], lives: int
) -> None:
    broken, whole = Chatting(*CALLED, lives=lives), Chatting(*CALLED)
    linked(broken, whole)
    told = chat(site)
    assert told[-1] == "[DONE]"
    assert whole.requests[0].resumed_ids == tuple(range(lives))
    assert deltas(told, "role") == ["assistant"]
    assert deltas(told, "reasoning") == ["Hm."]
    pieces = [piece for calls in deltas(told, "tool_calls") for piece in calls]
    assert "".join(piece["function"].get("name", "") for piece in pieces) == "find"
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert arguments == '{"where": "here"}'
    begins = [attempt["begins"] for attempt in told[-2]["routing"]["attempts"]]
    assert begins == ["anew", "by token ids"]


def test_a_replica_that_reads_the_beginning_otherwise_does_not_go_on(
    site: Site, linked: Callable[..., None]
) -> None:
    linked(Chatting(*CALLED, lives=2), Chatting(*CALLED, reads=[delta(content="Hm."), OPENED]))
    told = chat(site)
    ended_with(told, "reads the beginning of its answer otherwise")


@pytest.mark.parametrize(
    ("capabilities", "body", "resumes"),
    [
        ({"reasoning_parser": "r", "constrains_tools": False}, {}, True),
        ({"reasoning_parser": "r", "constrains_tools": False}, {"tool_choice": "required"}, False),
        ({"reasoning_parser": "r", "constrains_tools": True}, {}, True),
        ({"reasoning_parser": "r", "constrains_tools": True}, {"tools": STRICT}, False),
        (
            {"reasoning_parser": "r", "constrains_tools": True},
            {"tools": STRICT, "tool_choice": "none"},
            True,
        ),
        ({"reasoning_parser": None, "constrains_tools": True}, {}, True),
        ({}, {"tool_choice": "required"}, True),
    ],
)
def test_a_grammar_that_begins_behind_reasoning_is_not_taken_up(
    site: Site,
    linked: Callable[..., None],
    capabilities: dict[str, Any],
    body: dict[str, Any],
    resumes: bool,
) -> None:
    description = site.directory[FRUGAL].description
    assert description is not None
    description["capabilities"] = capabilities
    linked(Chatting(*CALLED, lives=3), Chatting(*CALLED))
    told = chat(site, **body)
    assert (told[-1] == "[DONE]") is resumes
