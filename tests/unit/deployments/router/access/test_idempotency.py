"""Requests that come again, over HTTP and between routers; the store is the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fake_serve import FRUGAL, HANG, Response, ServeDouble, Site, StoreDouble, events
from ray.exceptions import ActorDiedError
from starlette.types import Message, Send

from cluster.store.replies import AnswerBoard
from deployments.router.access.idempotency import Idempotency, RequestKey
from deployments.router.access.keys import hash_of
from deployments.router.sync.exchange import exchange

JSON = {"model": FRUGAL, "prompt": "Hello"}
REPLAYED = "idempotent-replayed"


def complete(site: Site, key: str | None = "k", path: str = "/v1/completions", **body: Any) -> Any:
    return site.request("POST", path, json=JSON | body, headers=headers(key))


def headers(key: str | None, bearer: str | None = None) -> dict[str, str]:
    named = {"Idempotency-Key": key, "Authorization": bearer and f"Bearer {bearer}"}
    return {name: value for name, value in named.items() if value is not None}


def calls(serve: ServeDouble) -> int:
    return len(serve.models[FRUGAL].calls)


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_gets_the_same_answer(
    site: Site, serve: ServeDouble, stream: bool
) -> None:
    first, *again = [complete(site, stream=stream) for _ in range(3)]
    assert calls(serve) == 1
    assert REPLAYED not in first.headers
    for response in again:
        assert response.content == first.content
        assert dict(response.headers) == {**first.headers, REPLAYED: "true"}
    assert len(site.get("/v1/decisions")["data"]) == 1


def test_without_a_key_every_request_is_a_new_one(site: Site, serve: ServeDouble) -> None:
    responses = [complete(site, None) for _ in range(2)]
    assert calls(serve) == 2
    assert not any(REPLAYED in response.headers for response in responses)


def test_another_request_with_the_key_is_refused(site: Site, serve: ServeDouble) -> None:
    complete(site)
    messages = [{"role": "user", "content": "Hello"}]
    for refused in (
        complete(site, max_tokens=3),
        complete(site, path="/v1/chat/completions", messages=messages),
    ):
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert (error["param"], error["code"]) == ("Idempotency-Key", "idempotency_key_reused")
        assert REPLAYED not in refused.headers
    assert calls(serve) == 1
    assert complete(site).status_code == 200


@pytest.mark.parametrize("value", ["", "two words", "k" * 256, "caf\u00e9", "tab\t"])
def test_what_is_no_key_is_refused(site: Site, serve: ServeDouble, value: str) -> None:
    raw = [(b"idempotency-key", value.encode("latin-1"))]
    refused = site.request("POST", "/v1/completions", json=JSON, headers=raw)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert calls(serve) == 0


def test_two_keys_are_refused(site: Site) -> None:
    raw = [(b"idempotency-key", b"a"), (b"idempotency-key", b"a")]
    refused = site.request("POST", "/v1/completions", json=JSON, headers=raw)
    assert refused.status_code == 400
    assert "got 2" in refused.json()["error"]["message"]


def test_the_longest_key_is_taken(site: Site) -> None:
    assert [complete(site, "k" * 255).status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_not_kept(site: Site, serve: ServeDouble, stream: bool) -> None:
    model = serve.models[FRUGAL]
    reply, frames = model.reply, model.frames
    # After a first piece, so that the status is 200.
    model.reply, model.frames = ActorDiedError(), [frames[0], ActorDiedError()]
    body: dict[str, Any] = {"stream": stream, "logprobs": 1}
    broken = complete(site, **body)
    assert "error" in (events(broken)[-1] if stream else broken.json())
    model.reply, model.frames = reply, frames
    whole = complete(site, **body)
    assert whole.status_code == 200
    assert REPLAYED not in whole.headers
    if stream:
        assert events(whole)[-1] == "[DONE]"
    assert complete(site, **body).content == whole.content


def test_a_refusal_is_not_kept(site: Site) -> None:
    models = site.decider.config.models
    site.configure(models=[])
    assert complete(site).status_code == 404
    site.configure(models=models)
    site.wait_until(lambda health: health["models"][FRUGAL]["available"])
    assert complete(site).status_code == 200


def test_clients_that_come_meanwhile_join(site: Site, serve: ServeDouble) -> None:
    async def together() -> list[httpx.Response]:
        content = {"json": JSON | {"stream": True}, "headers": headers("k")}
        asking = (site.send("POST", "/v1/completions", content) for _ in range(5))
        return await asyncio.gather(*asking)

    responses = site.runner.run(together())
    assert calls(serve) == 1
    assert len({response.content for response in responses}) == 1
    assert events(responses[0])[-1] == "[DONE]"
    assert [REPLAYED in response.headers for response in responses].count(False) == 1


class Gate:
    """Holds a model's answer back until it is opened."""

    def __init__(self, frames: list[Any]) -> None:
        self.opened = asyncio.Event()
        self.begun = asyncio.Event()
        self._frames = frames

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
        gate = self

        class Gated(Response):
            async def __anext__(self) -> Any:
                gate.begun.set()
                await gate.opened.wait()
                return await super().__anext__()

        return Gated(self._frames)


def test_a_client_that_hangs_up_stops_nothing(site: Site, serve: ServeDouble) -> None:
    async def hang_up_and_ask_again() -> httpx.Response:
        model = serve.models[FRUGAL]
        gate = Gate(model.frames)
        model.call = gate.call  # type: ignore[method-assign]
        content = {"json": JSON | {"stream": True}, "headers": headers("k")}
        asking = asyncio.create_task(site.send("POST", "/v1/completions", content))
        await gate.begun.wait()
        asking.cancel()
        await asyncio.wait({asking})
        again = asyncio.create_task(site.send("POST", "/v1/completions", content))
        gate.opened.set()
        return await again

    response = site.runner.run(hang_up_and_ask_again())
    assert events(response)[-1] == "[DONE]"
    assert response.headers[REPLAYED] == "true"
    (decision,) = site.get("/v1/decisions")["data"]
    assert decision["error"] is None


def test_an_answer_is_charged_once_and_belongs_to_its_client(
    start_site: Callable[..., Site], serve: ServeDouble, tmp_path: Path
) -> None:
    path = tmp_path / "keys.yaml"
    names = ("ann", "ben")
    keys = [{"name": name, "sha256": hash_of(name), "tokens_per_day": 14} for name in names]
    path.write_text(yaml.safe_dump(keys))
    site = start_site(keys_file=str(path))

    def ask(name: str, **body: Any) -> httpx.Response:
        content = {"json": JSON | body, "headers": headers("k", name)}
        return site.request("POST", "/v1/completions", **content)

    # 7 tokens each: the budget is used up by the second that is generated.
    first = [ask("ann") for _ in range(5)]
    assert {response.status_code for response in first} == {200}
    assert calls(serve) == 1
    other = ask("ben", max_tokens=3)
    assert (other.status_code, calls(serve)) == (200, 2)
    assert REPLAYED not in other.headers


async def settled(site: Site) -> None:
    while site.idempotency.take():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", [ActorDiedError(), HANG], ids=["dead", "silent"])
def test_while_the_store_is_away_a_router_remembers_for_itself(
    start_site: Callable[..., Site],
    serve: ServeDouble,
    store: StoreDouble,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
) -> None:
    monkeypatch.setattr("deployments.router.access.idempotency.STORE_TIMEOUT_S", 0.05)
    site, other = start_site(), start_site()
    store.fault = fault
    first, again = complete(site), complete(site)
    assert first.status_code == 200
    assert again.content == first.content
    assert complete(site, max_tokens=3).status_code == 422
    assert calls(serve) == 1
    # It tells the store when that is back, and so the others.
    site.runner.run(settled(site))
    store.fault = None
    site.runner.run(exchange(site.idempotency, store))
    assert complete(other).content == first.content
    assert calls(serve) == 1


def test_kept_answers_belong_to_their_api_key(
    start_site: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[str] = []
    original = AnswerBoard.keep

    def keep(board: AnswerBoard, answers: Any, max_bytes: int) -> int:
        owners.extend(answer.owner for answer in answers.values())
        return original(board, answers, max_bytes)

    monkeypatch.setattr(AnswerBoard, "keep", keep)
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([{"name": "ann", "sha256": hash_of("ann")}]))
    site = start_site(keys_file=str(path))
    content = {"json": JSON, "headers": headers("k", "ann")}
    assert site.request("POST", "/v1/completions", **content).status_code == 200
    site.runner.run(settled(site))
    assert owners == [hash_of("ann")]


# Between routers

KEY = RequestKey("id", "fingerprint")


class Client:
    """A `send`."""

    def __init__(self) -> None:
        self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.status = 0
        self.moved = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")
        self.moved.set()

    @property
    def replayed(self) -> bool:
        return REPLAYED.encode() in self.headers


class Generation:
    """What a model does: a piece, a pause, and another piece or an error."""

    def __init__(self, *pieces: bytes, whole: bool = True) -> None:
        self.pieces = pieces or (b"one ", b"two")
        self.whole = whole
        self.count = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, send: Send) -> bool:
        self.count += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": self.pieces[0], "more_body": True})
        self.begun.set()
        await self.go_on.wait()
        for piece in self.pieces[1:]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return self.whole


Routers = Callable[[str], Idempotency]


@pytest.fixture
def routers(store: StoreDouble) -> Routers:
    return lambda name: Idempotency(name, lambda: store, 10_000_000, 30.0, 60.0)


def run(scenario: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario

    asyncio.run(bounded())


def ask(router: Idempotency, generate: Any, key: RequestKey = KEY) -> tuple[Any, Client]:
    client = Client()
    return asyncio.create_task(router.answer(key, generate, client)), client


async def is_forgotten(router: Idempotency, store: StoreDouble) -> None:
    """The next request with the key is generated, at any router and at this one."""
    assert store.state.claim_answer("id", "fingerprint", "another").state.name == "YOURS"
    store.state.release_claim("id", "another")
    generation = Generation()
    generation.go_on.set()
    asking, client = ask(router, generation)
    await asking
    assert (generation.count, client.body) == (1, b"one two")


def test_a_request_on_another_router_waits_for_the_answer(routers: Routers) -> None:
    async def scenario() -> None:
        here, there, late = routers("r1"), routers("r2"), routers("r3")
        generation = Generation()
        first, owner = ask(here, generation)
        await generation.begun.wait()
        other, client = ask(there, generation)
        refused, stranger = ask(there, generation, RequestKey("id", "else"))
        await refused
        assert stranger.status == 422
        assert owner.body == b"one "
        assert client.body == b""
        generation.go_on.set()
        await asyncio.gather(first, other)
        asking, latecomer = ask(late, generation)
        await asking
        assert generation.count == 1
        assert owner.body == client.body == latecomer.body == b"one two"
        assert [c.replayed for c in (owner, client, latecomer)] == [False, True, True]
        assert client.headers[b"a"] == b"b"

    run(scenario())


def test_one_router_follows_as_it_comes(routers: Routers) -> None:
    async def scenario() -> None:
        router, generation = routers("r1"), Generation()
        first, _ = ask(router, generation)
        await generation.begun.wait()
        other, client = ask(router, generation)
        while not client.body:
            client.moved.clear()
            await client.moved.wait()
        assert client.body == b"one "
        generation.go_on.set()
        await asyncio.gather(first, other)
        assert client.body == b"one two"

    run(scenario())


def test_when_the_owner_is_dead_the_next_one_generates(
    routers: Routers, store: StoreDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        now = 0.0
        monkeypatch.setattr(
            "cluster.store.board.AnswerBoard", lambda grace_s: AnswerBoard(grace_s, lambda: now)
        )
        store.state.close()
        store.restart(tmp_path / "new")
        dead, living = routers("r1"), routers("r2")
        killed, generation = Generation(), Generation()
        ask(dead, killed)
        await killed.begun.wait()
        generation.go_on.set()
        other, client = ask(living, generation)
        now = 2.0
        await exchange(dead, store)
        now = 4.0
        # It lives yet.
        await asyncio.sleep(0.2)
        assert generation.count == 0
        now = 6.0
        await other
        assert generation.count == 1
        assert client.body == b"one two"
        assert not client.replayed

    run(scenario())


def test_nobody_is_generated_for_who_left_while_waiting(
    routers: Routers, store: StoreDouble
) -> None:
    async def scenario() -> None:
        here, there = routers("r1"), routers("r2")
        failing, generation = Generation(whole=False), Generation()
        first, _ = ask(here, failing)
        await failing.begun.wait()
        before = asyncio.all_tasks()
        other, _ = ask(there, generation)
        await asyncio.sleep(0)
        (waiting,) = asyncio.all_tasks() - before - {other}
        other.cancel()
        failing.go_on.set()
        await asyncio.wait({first, waiting})
        assert (failing.count, generation.count) == (1, 0)
        await is_forgotten(there, store)

    run(scenario())


def test_a_joiner_of_what_fails_elsewhere_generates(routers: Routers) -> None:
    async def scenario() -> None:
        here, there = routers("r1"), routers("r2")
        failing, generation = Generation(whole=False), Generation()
        first, _ = ask(here, failing)
        await failing.begun.wait()
        generation.go_on.set()
        other, client = ask(there, generation)
        failing.go_on.set()
        await asyncio.gather(first, other)
        assert (failing.count, generation.count) == (1, 1)
        assert not client.replayed

    run(scenario())


def test_a_store_that_lost_everything_gets_it_back(
    routers: Routers, store: StoreDouble, tmp_path: Path
) -> None:
    async def scenario() -> None:
        router, other_router = routers("r1"), routers("r2")
        done, running = Generation(), Generation()
        done.go_on.set()
        asking, before = ask(router, done)
        await asking
        first, _ = ask(router, running, RequestKey("other", "fingerprint"))
        await running.begun.wait()
        await exchange(router, store)
        store.state.close()
        store.restart(tmp_path / "new", 0.3)
        again, client = ask(other_router, done)
        later, joiner = ask(other_router, running, RequestKey("other", "fingerprint"))
        # In its grace it gives nothing away.
        await asyncio.sleep(0.1)
        assert (done.count, running.count) == (1, 1)
        await exchange(router, store)
        await again
        assert client.body == before.body
        running.go_on.set()
        await asyncio.gather(first, later)
        assert joiner.body == b"one two"
        assert (done.count, running.count) == (1, 1)

    run(scenario())


def test_what_is_too_large_to_be_kept_is_passed_on(store: StoreDouble) -> None:
    async def scenario() -> None:
        router = Idempotency("r1", lambda: store, 80_000, 30.0, 60.0)
        large = Generation(b"x" * 6_000, b"y" * 6_000, b"z" * 6_000)
        first, client = ask(router, large)
        await large.begun.wait()
        large.go_on.set()
        await first
        assert [client.body.count(letter) for letter in (b"x", b"y", b"z")] == [6_000] * 3
        again, second = ask(router, large)
        await again
        assert second.body == client.body
        assert not second.replayed
        for _ in range(5):
            await ask(router, large)[0]
        assert large.count == 7
        # They leave the room that they took, as smaller ones do: each of these is kept.
        small = Generation(b"s" * 9_000)
        small.go_on.set()
        clients = []
        for number in range(20):
            asking, client = ask(router, small, RequestKey(f"small{number // 2}", "fingerprint"))
            await asking
            clients.append(client)
        assert [client.replayed for client in clients] == [False, True] * 10

    run(scenario())


def test_what_is_too_large_and_wanted_by_nobody_stops(store: StoreDouble) -> None:
    async def scenario() -> None:
        router = Idempotency("r1", lambda: store, 80_000, 30.0, 60.0)
        large = Generation(b"x" * 6_000, b"y" * 6_000, b"z" * 6_000)
        before = asyncio.all_tasks()
        first, _ = ask(router, large)
        await large.begun.wait()
        first.cancel()
        await asyncio.wait({first})
        (task,) = asyncio.all_tasks() - before - {first}
        large.go_on.set()
        await asyncio.wait({task})
        assert task.cancelled()
        await is_forgotten(router, store)

    run(scenario())


def test_a_generation_that_crashes_cuts_its_clients_off(routers: Routers) -> None:
    async def crash(send: Send) -> bool:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        asking, client = ask(routers("r1"), crash)
        with pytest.raises(ConnectionAbortedError):
            await asking
        assert client.body == b""

    run(scenario())


def test_a_router_that_waits_for_another_one_gives_up_in_time(store: StoreDouble) -> None:
    async def scenario() -> None:
        here = Idempotency("r1", lambda: store, 80_000, 30.0, 60.0)
        there = Idempotency("r2", lambda: store, 80_000, 0.2, 60.0)
        generation = Generation()
        ask(here, generation)
        await generation.begun.wait()
        other, client = ask(there, generation)
        await other
        assert client.status == 504

    run(scenario())
