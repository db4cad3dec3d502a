"""What clients see while requests of others kill replicas, over real links."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from fake_serve import ACCURATE, FRUGAL, Model, ServeDouble, Site, chunk, error_object, observation

from cluster.store.load import ReplicaLoad
from deployments.links.client import Link
from deployments.links.frames import Flag, Frame, ModelRequest, Reply, encode_observation
from deployments.links.server import LinkServer

WORDS = ["one ", "two ", "three ", "four "]
SCHEMA = {"structured_outputs": {"json": {"type": "array", "minItems": 9}}}


class Replica:
    """Generates four words; dies of "deadly" requests and breaks at "bad" ones.

    Attributes:
        gate: Where streams wait after two words, while it is closed.
        requests: Bodies, those of the router's own left out.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.server = LinkServer(self)
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[dict[str, Any]] = []
        self.dead = False

    def die(self) -> None:
        self.dead = True
        for connection in list(self.server.connections):
            connection.abort()
        self.server.close()

    async def _digest(self, request: ModelRequest) -> bool:
        body = json.loads(request.body)
        if request.request_id.startswith("probe-"):
            return True
        self.requests.append(body)
        if "deadly" in str(body):
            # Requests that come in the same moment are to be there too.
            await asyncio.sleep(0.05)
            self.die()
            await asyncio.sleep(60)
        return "bad" not in str(body)

    async def answer(self, request: ModelRequest) -> Reply:
        if not await self._digest(request):
            return 500, error_object(500, "maximum recursion depth exceeded"), b""
        await self.gate.wait()
        return 200, b'{"object": "x"}', encode_observation(observation(self.model))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Frame]:
        if not await self._digest(request):
            yield error_object(500, "maximum recursion depth exceeded"), (), int(Flag.ERROR)
            return
        begin = len(request.resumed_ids)
        for number, word in enumerate(WORDS):
            if number == 2:
                await self.gate.wait()
            if number < begin:
                continue
            if number == 3:
                yield encode_observation(observation(self.model)), (), int(Flag.OBSERVATION)
                yield chunk(word, "stop"), (number,), int(Flag.FINISH)
            else:
                yield chunk(word), (number,), 0
        yield b"data: [DONE]\n\n", (), int(Flag.DONE)

    def stopped(self, request_id: str) -> bytes:
        return b""


Start = Callable[..., list[Replica]]


def loads_of(replicas: list[Replica], ongoing: Iterable[int]) -> list[ReplicaLoad]:
    """What those that live report; so many requests of other routers are there."""
    return [
        ReplicaLoad(r.model, f"r{i}", "n", "test", "cpu", others, link=r.server.address)
        for i, (r, others) in enumerate(zip(replicas, ongoing, strict=True))
        if not r.dead
    ]


@pytest.fixture
def replicas(
    start_site: Callable[..., Site], serve: ServeDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Site, Start]]:
    """A router, and what starts replicas of these models; the first one is asked first."""
    site = start_site(request_timeout_s=20)
    started: list[Replica] = []

    def start(*models: str) -> list[Replica]:
        async def open_links() -> None:
            for model in models:
                started.append(Replica(model))
                await started[-1].server.open()
            links = site.directory.links
            loads = loads_of(started, range(len(started)))
            monkeypatch.setattr(site.shared.loads, "replicas", loads)
            monkeypatch.setattr(site.shared.loads, "take", lambda *_: None)
            links.update(loads, "x")
            async with asyncio.timeout(5):
                while sum(links.open(m) for m in {*models}) < len(models):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            links.update(loads, "x")

        site.runner.run(open_links())
        return started

    yield site, start
    for replica in started:
        site.runner.get_loop().call_soon(replica.server.close)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "auto", "prompt": "Hi", "routing": {"weights": {"energy": 1}}} | fields


async def send(site: Site, **fields: Any) -> httpx.Response:
    return await site.send("POST", "/v1/completions", {"json": body(**fields)})


def gather(site: Site, *requests: dict[str, Any]) -> list[httpx.Response]:
    async def all_of_them() -> list[httpx.Response]:
        return await asyncio.gather(*(send(site, **fields) for fields in requests))

    return site.runner.run(all_of_them())


def is_whole(response: httpx.Response) -> bool:
    assert response.status_code == 200, response.text
    if "event-stream" not in response.headers["content-type"]:
        return True
    *pieces, end = [line[6:] for line in response.text.split("\n\n") if line]
    text = "".join(c["text"] for p in pieces for c in json.loads(p).get("choices", ()))
    return end == "[DONE]" and text == "".join(WORDS)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_schema_that_kills_costs_one_replica_and_nobody_else_anything(
    replicas: tuple[Site, Start],
) -> None:
    site, start = replicas
    there = start(FRUGAL, FRUGAL, ACCURATE)
    innocent = [body(prompt=f"Say {n}", stream=bool(n % 2)) for n in range(12)]
    poison, *others = gather(site, body(prompt="deadly", **SCHEMA), *innocent)
    assert code(poison) == (503, "request_suspected")
    assert "the only suspect when a replica died: model 'frugal'" in poison.text
    assert all(is_whole(response) for response in others)
    assert [replica.dead for replica in there] == [True, False, False]
    asked = [len(replica.requests) for replica in there]
    # The next one of its kind, whatever it says and whom it asks.
    for fields in ({"prompt": "deadly too"}, {"prompt": "deadly", "model": ACCURATE, "seed": 3}):
        response = site.runner.run(send(site, **SCHEMA, **fields))
        assert code(response) == (503, "request_suspected")
        assert 50 < int(response.headers["retry-after"]) <= 60
        assert "the only suspect when a replica died" in response.json()["error"]["message"]
    assert [len(replica.requests) for replica in there] == asked
    assert is_whole(site.complete(prompt="hello", stream=True))


def test_where_there_are_replicas_to_spare_it_is_tried_on_one_more_and_no_third(
    replicas: tuple[Site, Start],
) -> None:
    site, start = replicas
    there = start(*[FRUGAL] * 4, ACCURATE)
    (poison,) = gather(site, body(prompt="deadly", **SCHEMA))
    assert code(poison) == (400, "request_breaks_engine")
    assert "model 'frugal': the connection to the replica broke" in poison.text
    assert sum(replica.dead for replica in there) == 2
    assert sum(len(replica.requests) for replica in there) == 2
    (again,) = gather(site, body(prompt="deadly still", model=ACCURATE, **SCHEMA))
    assert code(again) == (400, "request_breaks_engine")
    assert sum(len(replica.requests) for replica in there) == 2


def test_a_plain_request_that_kills_is_found_out_by_the_second_death(
    replicas: tuple[Site, Start],
) -> None:
    site, start = replicas
    there = start(FRUGAL, FRUGAL, FRUGAL, ACCURATE)
    for replica in there:
        replica.gate.clear()

    async def scenario() -> list[httpx.Response]:
        innocent = [
            asyncio.create_task(send(site, prompt=f"Say {n}", stream=True)) for n in range(6)
        ]
        await asyncio.sleep(0.05)
        poison = asyncio.create_task(send(site, prompt="deadly"))
        await asyncio.sleep(0.5)
        for replica in there:
            replica.gate.set()
        return await asyncio.gather(poison, *innocent)

    poison, *innocent = site.runner.run(scenario())
    assert code(poison) == (400, "request_breaks_engine")
    assert all(is_whole(response) for response in innocent)
    assert sum(replica.dead for replica in there) == 2
    assert sum("deadly" in str(r) for replica in there for r in replica.requests) == 2


def test_an_innocent_request_goes_on_as_often_as_it_may(
    replicas: tuple[Site, Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, start = replicas

    def least_busy(links: list[Link], count: int) -> list[Link]:
        return sorted(links, key=lambda link: link.load)[:count]

    monkeypatch.setattr("deployments.links.pool.random.sample", least_busy)
    there = start(*[FRUGAL] * 4)
    for replica in there:
        replica.gate.clear()
    met: list[int] = []

    async def scenario() -> list[httpx.Response]:
        innocent = asyncio.create_task(send(site, prompt="Say it", stream=True))
        poisons = []
        for number in range(2):
            await asyncio.sleep(0.05)
            (place,) = [
                index
                for index, replica in enumerate(there)
                if not replica.dead and "Say it" in str(replica.requests)
            ]
            met.append(place)
            # So that the poison meets it.
            others = (0 if index == place else 1000 for index in range(len(there)))
            site.directory.links.update(loads_of(there, others), "x")
            poisons.append(await send(site, prompt=f"deadly {number}", **_schema(number)))
        await asyncio.sleep(0.05)
        for replica in there:
            replica.gate.set()
        return [await innocent, *poisons]

    innocent, *poisons = site.runner.run(scenario())
    assert is_whole(innocent)
    # The first one found a replica to be tried on once more, and not that of the innocent one.
    assert [poison.status_code for poison in poisons] == [400, 503]
    assert sum(replica.dead for replica in there) == 3
    assert len(set(met)) == 2
    (record,) = [r for r in site.get("/v1/decisions?limit=10")["data"] if r["error"] is None]
    assert len(record["attempts"]) == 3


def _schema(number: int) -> dict[str, Any]:
    return {"structured_outputs": {"regex": f"a{{{number}}}"}}


def test_poison_that_engines_answer_with_500_keeps_no_model_away(
    replicas: tuple[Site, Start],
) -> None:
    site, start = replicas
    there = start(FRUGAL, ACCURATE)
    bad = [body(prompt=f"bad {n}", model=FRUGAL, **SCHEMA) for n in range(20)]
    good = [body(prompt=f"Say {n}", model=FRUGAL) for n in range(20)]
    mixed = [request for pair in zip(bad, good, strict=True) for request in pair]
    for number in range(0, len(mixed), 4):
        responses = gather(site, *mixed[number : number + 4])
        assert all(is_whole(response) for response in responses[1::2])
        assert {response.status_code for response in responses[::2]} <= {400, 500, 503}
    assert site.get("/health")["models"][FRUGAL]["available"]
    assert sum("bad" in str(asked) for asked in there[0].requests) <= 4


def test_poison_of_ever_new_kinds_keeps_no_model_away_either(
    replicas: tuple[Site, Start],
) -> None:
    site, start = replicas
    start(FRUGAL, ACCURATE)
    for number in range(10):
        bad = [body(prompt=f"bad {number} {n}", **_schema(10 * number + n)) for n in range(5)]
        *_, good = gather(site, *bad, body(prompt=f"Say {number}", model=FRUGAL))
        assert is_whole(good)
    assert site.get("/health")["status"] == "ok"


def test_a_bad_request_is_tried_on_two_models_and_the_next_one_on_none(
    site: Site, serve: ServeDouble
) -> None:
    def breaks(model: Model) -> None:
        model.reply = (500, error_object(500, "recursion"), b"")

    for model in serve.models.values():
        breaks(model)
    first = site.complete(**SCHEMA)
    assert code(first) == (400, "request_breaks_engine")
    assert "failed on this request" in first.json()["error"]["message"]
    assert code(site.complete(**SCHEMA, prompt="other")) == (400, "request_breaks_engine")
    assert [len(model.calls) for model in serve.models.values()] == [1, 1]


def test_its_memory_is_configured(site: Site, serve: ServeDouble) -> None:
    site.configure(models=[{"id": ACCURATE}, {"id": FRUGAL}], blame_memory_s=0.05)
    for model in serve.models.values():
        model.reply = (500, error_object(500, "recursion"), b"")
    assert site.complete(**SCHEMA).status_code == 400
    site.runner.run(asyncio.sleep(0.06))
    site.complete(**SCHEMA)
    assert [len(model.calls) for model in serve.models.values()] == [2, 2]
