"""What a client that leaves is charged, over a real link to a replica that measures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fake_serve import FRUGAL, Site, bearing, chunk, error_object, observation

from cluster.store.load import ReplicaLoad
from cluster.store.usage import Usage
from deployments.links.frames import Flag, Frame, ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer

STOPPED = replace(
    observation(FRUGAL), input_tokens=5, output_tokens=131, energy_joules=46.0, stopped=True
)


class Endless:
    """Generates a token now and then until it is stopped.

    Attributes:
        knows: Whether it says what was generated until then.
        error: Object with which it ends by itself, empty for none.
    """

    def __init__(self) -> None:
        self.knows = True
        self.error = b""
        self.begun = asyncio.Event()

    async def answer(self, request: ModelRequest) -> Reply:
        if self.error:
            return 400, self.error, self.stopped(request.request_id)
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        for token in range(4):
            yield chunk("x"), (token,), 0
        if self.error:
            yield self.stopped(request.request_id), (), int(Flag.OBSERVATION)
            yield self.error, (), int(Flag.ERROR)
            return
        self.begun.set()
        await asyncio.Event().wait()

    def stopped(self, _: str) -> bytes:
        return encode_observation(STOPPED) if self.knows else b""


@pytest.fixture
def endless(keyed: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    replica = Endless()
    server = LinkServer(replica)

    async def link() -> None:
        await server.open()
        load = ReplicaLoad(FRUGAL, "r0", "n", "test", "cpu", 0, link=server.address)
        monkeypatch.setattr(keyed.shared.loads, "replicas", [load])
        monkeypatch.setattr(keyed.shared.loads, "take", lambda *_: None)
        links = keyed.directory.links
        links.update([load], "x")
        async with asyncio.timeout(30):
            while not links.open(FRUGAL):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    keyed.runner.run(link())
    yield replica
    keyed.runner.get_loop().call_soon(server.close)


def leave(site: Site, replica: Endless, **body: Any) -> None:
    """Ask, hang up once the replica is at it, and wait until it has said what it took."""
    content = {"json": {"model": FRUGAL, "prompt": "Hello", "max_tokens": 400} | body}

    async def scenario() -> None:
        call = asyncio.create_task(site.send("POST", "/v1/completions", content | bearing("boss")))
        async with asyncio.timeout(30):
            await replica.begun.wait()
        # What it has sent is on its way to the client, for which the loop needs turns, not time.
        for _ in range(20):
            await asyncio.sleep(0.005)
        call.cancel()
        await asyncio.wait({call})

    site.runner.run(scenario())
    until = time.monotonic() + 30
    while not site.get("/v1/decisions?limit=1", **bearing("boss"))["data"]:
        assert time.monotonic() < until
        site.runner.run(asyncio.sleep(0.005))


def record(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.get("/v1/decisions?limit=1", **bearing("boss"))["data"][0]
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_a_stopped_answer_costs_what_was_generated_and_drawn(
    keyed: Site,
    endless: Endless,
    stream: bool,
) -> None:
    leave(keyed, endless, stream=stream)
    assert keyed.used_by("boss") == Usage(requests=1, tokens=136, joules=46.0)
    kept = record(keyed)
    assert kept["error"] == "the client went away"
    assert kept["observation"]["output_tokens"] == 131
    assert kept["observation"]["stopped"] is True


@pytest.mark.parametrize(("stream", "status"), [(True, 200), (False, 400)])
def test_so_does_one_that_the_engine_ends_for_its_senders_fault(
    keyed: Site, endless: Endless, stream: bool, status: int
) -> None:
    endless.error = error_object(400, "too costly to follow")
    body = {"model": FRUGAL, "prompt": "Hello", "stream": stream}
    answer = keyed.request("POST", "/v1/completions", json=body, **bearing("boss"))
    assert answer.status_code == status
    assert "too costly to follow" in answer.text
    assert keyed.used_by("boss") == Usage(requests=1, tokens=136, joules=46.0)
    assert record(keyed)["observation"]["output_tokens"] == 131


def test_it_teaches_what_tokens_cost_and_not_how_long_answers_are(
    keyed: Site, endless: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons: list[Any] = []
    learn = keyed.shared.learn

    def note_and_learn(lesson: Any) -> None:
        lessons.append(lesson)
        learn(lesson)

    monkeypatch.setattr(keyed.shared, "learn", note_and_learn)
    leave(keyed, endless, stream=True)
    (lesson,) = lessons
    assert lesson.output_tokens is None
    assert lesson.outcome.energy_joules == 46.0
    # For the tokens that there were: 20 J, 0.01 J for each of 5 and 0.1 J for each of 131.
    assert lesson.outcome.predicted_energy_joules == pytest.approx(33.15)


def test_where_the_replica_does_not_say_so_the_tokens_that_were_seen_count(
    keyed: Site,
    endless: Endless,
) -> None:
    endless.knows = False
    leave(keyed, endless, stream=True)
    spent = keyed.used_by("boss")
    # An estimate of 2 for the prompt, and the 4 that came.
    assert 4 < spent.tokens < 10
    # Of some 60 J for 400 tokens.
    assert 0 < spent.joules < 2
    assert record(keyed)["observation"] is None
