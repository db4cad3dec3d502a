"""What lies outside the router, faked: Serve's handles and status, and the store's actor handle.

Behind the store's handle is the real store; behind a model's handle is a script.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, TypeVar

import httpx
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import RayServeException

from cluster.naming import model_deployment_name
from cluster.store.actor import Store
from cluster.store.archive.archive import Archive
from cluster.store.board import Board
from cluster.store.usage import Usage
from deployments.config.app import RouterArgs
from deployments.links.frames import Flag, Frame, encode_observation
from deployments.links.tokenizer_bundle import TokenizerBundle
from deployments.router.access.budgets import Budgets
from deployments.router.access.idempotency import Idempotency
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.decide import Decider
from deployments.router.models import ModelDirectory
from deployments.router.probing import Prober
from deployments.router.server import Router
from deployments.router.sync.shared import SharedState
from scheduler.costs.observations import Observation
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet


def profile(model: str, runtime_s: float, energy_joules: float, accuracy: float) -> ModelProfile:
    return ModelProfile(
        model=model,
        accelerator="test",
        runtime=LinearModel("linear", (runtime_s, 0.001, 0.01)),
        energy=LinearModel("linear", (energy_joules, 0.01, 0.1)),
        energy_source="nvml",
        input_tokens_range=(1, 1000),
        output_tokens_range=(1, 500),
        accuracy=accuracy,
    )


ACCURATE, FRUGAL = "accurate", "frugal"
PROFILES = ProfileSet((profile(ACCURATE, 8.0, 300.0, 0.9), profile(FRUGAL, 1.0, 20.0, 0.6)))


def observation(model: str) -> Observation:
    return Observation(
        model=model,
        accelerator="test",
        replica_id="r1",
        input_tokens=5,
        output_tokens=2,
        cached_input_tokens=0,
        queue_time_s=0.0,
        ttft_s=0.1,
        runtime_s=0.25,
        energy_joules=1.5,
        energy_source="nvml",
    )


def error_object(status: int, message: str = "too long") -> bytes:
    """As vLLM writes it."""
    error = {"message": message, "type": "BadRequestError", "param": "prompt", "code": status}
    return json.dumps({"error": error}).encode()


def chunk(text: str | None, finish_reason: str | None = None) -> bytes:
    choices = [] if text is None else [{"index": 0, "text": text, "finish_reason": finish_reason}]
    usage = {"usage": {"completion_tokens": 2}} if text is None else {}
    return b"data: " + json.dumps({"choices": choices, **usage}).encode() + b"\n\n"


def whole_stream(model: str, *, usage: bool = False) -> list[Frame]:
    """What `ModelServer.stream` yields."""
    return [
        (chunk("Hel"), (1,), Flag.NONE),
        (encode_observation(observation(model)), (), Flag.OBSERVATION),
        (chunk("lo", "stop"), (2,), Flag.FINISH),
        *([(chunk(None), (), Flag.USAGE)] if usage else []),
        (b"data: [DONE]\n\n", (), Flag.DONE),
    ]


class Response:
    """Serve's response of a call: awaited, or iterated; can be cancelled."""

    def __init__(self, steps: Iterable[Any]) -> None:
        self._steps = iter(steps)
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Generator[Any, None, Any]:
        return self.__anext__().__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        step: Any = Pause(0.0)
        while isinstance(step, Pause):
            try:
                step = next(self._steps)
            except StopIteration:
                raise StopAsyncIteration from None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
        if step is HANG:
            await asyncio.Event().wait()
        if isinstance(step, Delay):
            await asyncio.sleep(step.seconds)
        if isinstance(step, BaseException):
            raise step
        await asyncio.sleep(0)
        return step


HANG: Any = object()
"""A step that never ends."""


@dataclass(frozen=True)
class Pause:
    """So long before the next step."""

    seconds: float


@dataclass(frozen=True)
class Delay:
    """A step that takes so long."""

    seconds: float


@dataclass
class Model:
    """One model behind its handle.

    Attributes:
        reply: What `answer` gives, `HANG` or an exception.
        message: What Serve says of its deployment.
        wakes: A question starts a replica where there is none.
        bundle: What it counts tokens with; `None` where it cannot hand that over.
        frames: What `stream` yields; the same are possible.
        capabilities: As a replica describes them.
        questions: What it was asked of itself.
    """

    name: str
    max_model_len: int = 1000
    max_num_seqs: int = 16
    max_queued_requests: int = 64
    replicas: int = 1
    wakes: bool = False
    status: str = "RUNNING"
    message: str = ""
    reply: Any = None
    bundle: TokenizerBundle | None = None
    frames: list[Any] = field(default_factory=list)
    capabilities: dict[str, Any] = field(default_factory=dict)
    describes: list[Any] = field(default_factory=list)
    asked: int = 0
    questions: list[Response] = field(default_factory=list)
    calls: list[SimpleNamespace] = field(default_factory=list)

    def __post_init__(self) -> None:
        answer = json.dumps({"object": "text_completion", "model": self.name}).encode()
        self.reply = (200, answer, encode_observation(observation(self.name)))
        self.frames = whole_stream(self.name)

    def description(self) -> dict[str, Any]:
        return {
            "accelerator": "test",
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "max_queued_requests": self.max_queued_requests,
            "capabilities": self.capabilities,
            "tokenizer": self.bundle and self.bundle.digest(),
            "tokenizer_fault": None if self.bundle else "no fast tokenizer",
        }

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
        if method == "describe":
            self.asked += 1
            if self.wakes:
                self.replicas = 1
            said = self.describes.pop(0) if self.describes else self.description()
            self.questions.append(Response([said]))
            return self.questions[-1]
        if method == "tokenizer":
            return Response([self.bundle])
        response = Response(self.frames if method == "stream" else [self.reply])
        (request,) = args
        self.calls.append(
            SimpleNamespace(method=method, request=request, response=response, **kwargs)
        )
        return response

    def overview(self) -> SimpleNamespace:
        states = {"RUNNING": self.replicas}
        deployment = SimpleNamespace(replica_states=states, message=self.message)
        deployments = {model_deployment_name(self.name): deployment}
        return SimpleNamespace(status=self.status, message="", deployments=deployments)


@dataclass(frozen=True)
class Handle:
    model: Model
    method: str = "__call__"

    def options(self, *, method_name: str, **_: object) -> Handle:
        return Handle(self.model, method_name)

    def remote(self, *args: Any, **kwargs: Any) -> Response:
        return self.model.call(self.method, args, kwargs)


class ServeDouble:
    """`ray.serve`, as far as the router uses it."""

    def __init__(self, *models: Model) -> None:
        self.models = {model.name: model for model in models}
        self.fault: Exception | None = None

    def status(self) -> SimpleNamespace:
        if self.fault:
            raise self.fault
        return SimpleNamespace(applications={m.name: m.overview() for m in self.models.values()})

    def get_deployment_handle(self, deployment: str, application: str) -> Handle:
        if application not in self.models:
            raise RayServeException(f"no application {application!r}")
        assert deployment == model_deployment_name(application)
        return Handle(self.models[application])


class LocalBoard(Board):
    """A board without sockets: replicas and routers use Ray's calls."""

    async def address(self) -> None:
        return None


class ActorHandle:
    """A handle of an actor whose state is an object in this process.

    Attributes:
        fault: What every call raises; `HANG` lets it wait for ever.
    """

    def __init__(self, state: Any) -> None:
        self.state = state
        self.fault: Any = None

    def __getattr__(self, name: str) -> SimpleNamespace:
        def remote(*args: Any) -> Awaitable[Any]:
            if self.fault is not None:
                return Response([self.fault])
            answer = getattr(self.state, name)(*args)
            return answer if inspect.isawaitable(answer) else Response([answer])

        return SimpleNamespace(remote=remote)

    def die(self) -> None:
        self.fault = ActorDiedError()


class _States:
    """Both actors' states as one: whichever has the method."""

    def __init__(self, store: StoreDouble) -> None:
        object.__setattr__(self, "_store", store)

    def _of(self, name: str) -> Any:
        board, archive = self._store.board.state, self._store.archive.state
        return board if hasattr(board, name) else archive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of(name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._of(name), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._of(name), name)

    def close(self) -> None:
        self._store.board.state.close()
        self._store.archive.state.close()


def _archive(folder: Path) -> Archive:
    # Asked, Serve would start a Ray of its own.
    return Archive(str(folder), look=dict)


class StoreDouble(Store):
    """The handles of both actors, whose states are objects in this process.

    Attributes:
        state: Both states as one.
        fault: What every call of either raises; `HANG` lets it wait for ever.
    """

    def __new__(cls, folder: Path, claim_grace_s: float = 0.0) -> Self:
        board = ActorHandle(LocalBoard(str(folder), claim_grace_s))
        return super().__new__(cls, board, ActorHandle(_archive(folder)))

    def __init__(self, folder: Path, claim_grace_s: float = 0.0) -> None:
        self.state: Any = _States(self)

    def restart(self, folder: Path, claim_grace_s: float = 0.0) -> None:
        """Both anew, with what is in a folder."""
        self.archive.state = _archive(folder)
        self.board.state = LocalBoard(str(folder), claim_grace_s)

    @property
    def fault(self) -> Any:
        return self.board.fault

    @fault.setter
    def fault(self, fault: Any) -> None:
        self.board.fault = self.archive.fault = fault

    def die(self) -> None:
        self.fault = ActorDiedError()


A = TypeVar("A", bound=Advisor)


class Site:
    """A router over its ASGI application, without a socket."""

    def __init__(self, args: RouterArgs) -> None:
        self.args = args
        self.runner = asyncio.Runner()
        self.router = Router.__new__(Router)
        self.runner.run(self._start(args))
        try:
            self.app = self.router.__serve_build_asgi_app__()
        except BaseException:
            self.runner.close()
            raise

    async def _start(self, args: RouterArgs) -> None:
        await self.router.__init__(args)  # type: ignore[misc]

    def advisor(self, kind: type[A]) -> A:
        """The router's advisor of one class."""
        return next(one for one in self.decider.advisors if isinstance(one, kind))

    @property
    def directory(self) -> ModelDirectory:
        """The models as the router knows them."""
        return self.router.directory

    @property
    def shared(self) -> SharedState:
        """What the router shares with others."""
        return self.router.shared

    @property
    def decider(self) -> Decider:
        """Makes the decisions."""
        return self.router.decider

    @property
    def budgets(self) -> Budgets:
        """Of the API keys."""
        return self.router.budgets

    @property
    def idempotency(self) -> Idempotency:
        """Of repeated requests."""
        return self.router.idempotency

    @property
    def prober(self) -> Prober:
        """Asks models without traffic."""
        return self.router.prober

    def used_by(self, key: str) -> Usage:
        """What an API key used today at this router, as far as the store does not know of it."""
        batch = self.budgets.take()
        self.budgets.give_back(batch)
        (used,) = (by_key for period, by_key in (batch or {}).items() if period.name == "day")
        return used[key]

    def configure(self, **user_config: Any) -> None:
        self.runner.run(self.router.reconfigure(user_config))

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        return self.runner.run(self.send(method, path, content))

    async def send(self, method: str, path: str, content: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **content)

    def get(self, path: str, **content: Any) -> Any:
        response = self.request("GET", path, **content)
        assert response.status_code == 200, response.text
        return response.json()

    def complete(self, **body: Any) -> httpx.Response:
        """Ask for a plain completion."""
        return self.request(
            "POST", "/v1/completions", json={"model": "auto", "prompt": "Hello"} | body
        )

    def wait_until(self, condition: Any) -> None:
        deadline = time.monotonic() + 30
        while not condition(self.get("/health")):
            assert time.monotonic() < deadline, self.get("/health")
            self.runner.run(asyncio.sleep(0.005))

    def close(self) -> None:
        self.runner.close()


def events(response: httpx.Response) -> list[Any]:
    """The events of a stream, decoded, `[DONE]` included as text."""
    lines = [line[6:] for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def bearing(key: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {key}"}}
