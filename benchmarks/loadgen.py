"""A closed loop of clients on one OpenAI server, each with one request at a time.

One asyncio process over keep-alive connections. It keeps raw timestamps and derives everything
else; it neither starts servers nor compares them.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import aiohttp
import orjson
from cpu_time import MODEL, PROXY, ROUTER

REQUEST_TIMEOUT_S = 60.0
HEARTBEAT_S = 0.005
# The chat template of the tiny checkpoints adds so many to the digits, which are one token each.
TEMPLATE_TOKENS = 30


class LoadError(Exception):
    """A server refused, broke off, or did not do the work that was asked for."""


@dataclass(frozen=True, slots=True)
class Load:
    """How a server is loaded.

    Attributes:
        clients: Requests in flight at any moment.
        output_tokens: Generated tokens of each request, exactly.
        stream: Whether answers are streamed.
        input_tokens: Prompt tokens of each request, about.
    """

    clients: int
    output_tokens: int
    stream: bool
    input_tokens: int = 64

    def __str__(self) -> str:
        clients = f"{self.clients} client{'s' if self.clients > 1 else ''}"
        tokens = f"{self.input_tokens} -> {self.output_tokens} token"
        return f"{clients}, {tokens}{'s' if self.output_tokens > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what it is asked.

    Attributes:
        url: Without a path.
        model: The requests' `model`.
        cpu_seconds: What the server's processes have taken so far, by what they are.
    """

    url: str
    model: str
    cpu_seconds: Callable[[], Counter[str]] = Counter


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, in `time.perf_counter()`.

    Attributes:
        sent: When.
        reads: When a piece of the answer came, each.
        complete: When the whole answer was there.
    """

    sent: float
    reads: tuple[float, ...]
    complete: float


@dataclass(frozen=True)
class Measurement:
    """All requests of one closed loop, from the first one sent to the last one complete.

    Attributes:
        stall_s: The longest time that this process itself was kept from running. Where it is not
            far below the other figures, they say more about the machine than about the server.
        cpu_s: CPU seconds that the server took meanwhile, by what its processes are.
    """

    load: Load
    exchanges: tuple[Exchange, ...]
    stall_s: float
    cpu_s: Counter[str]

    @cached_property
    def elapsed_s(self) -> float:
        return max(e.complete for e in self.exchanges) - min(e.sent for e in self.exchanges)

    @property
    def requests_per_s(self) -> float:
        return len(self.exchanges) / self.elapsed_s

    @property
    def tokens_per_s(self) -> float:
        return self.requests_per_s * self.load.output_tokens

    @property
    def runtime_p50_s(self) -> float:
        return statistics.median(e.complete - e.sent for e in self.exchanges)

    @property
    def runtime_p95_s(self) -> float:
        return statistics.quantiles((e.complete - e.sent for e in self.exchanges), n=20)[-1]

    @property
    def ttft_p50_s(self) -> float:
        return statistics.median(e.reads[0] - e.sent for e in self.exchanges)

    @property
    def cpu_per_request_s(self) -> float:
        """Of router and model deployment: neither the engine's nor that of a proxy before them."""
        return (self.cpu_s[ROUTER] + self.cpu_s[MODEL]) / len(self.exchanges)

    @property
    def proxy_cpu_per_request_s(self) -> float:
        return self.cpu_s[PROXY] / len(self.exchanges)

    @property
    def reads_per_request(self) -> float:
        """Pieces that an answer came in. Chunks that were held back come together, as one."""
        return statistics.median(len(e.reads) for e in self.exchanges)

    @property
    def tokens_apart(self) -> float:
        """Share of the tokens that can have come in a piece of their own."""
        return min(self.reads_per_request / self.load.output_tokens, 1.0)

    @property
    def gap_p95_s(self) -> float:
        """The pause between a piece and the next one."""
        gaps = [b - a for e in self.exchanges for a, b in pairwise(e.reads)]
        return statistics.quantiles(gaps, n=20)[-1]


async def measure(target: Target, load: Load, seconds: float, seed: str) -> Measurement:
    """Load a server until the time is over; what is in flight then is finished and counted.

    Args:
        target: Whom to ask.
        load: What to do.
        seconds: New requests are sent for so long.
        seed: Of the prompts. None comes twice from one seed, nor from two.

    Raises:
        LoadError: A request failed.
    """
    bodies = _bodies(target.model, load, seed)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(
        target.url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout
    ) as session:
        # Opening the connections is not measured.
        await asyncio.gather(*(_exchange(session, next(bodies), load) for _ in range(load.clients)))
        exchanges: list[Exchange] = []
        stalls: list[float] = []
        cpu_before = target.cpu_seconds()
        heartbeat = asyncio.create_task(_feel_stalls(stalls))
        deadline = time.perf_counter() + seconds

        async def client() -> None:
            # One at least, so that there is something to measure on a very slow machine too.
            while True:
                exchanges.append(await _exchange(session, next(bodies), load))
                if time.perf_counter() >= deadline:
                    return

        await asyncio.gather(*(client() for _ in range(load.clients)))
        heartbeat.cancel()
        cpu_s = target.cpu_seconds()
        cpu_s.subtract(cpu_before)
    return Measurement(load, tuple(exchanges), max(stalls, default=0.0), cpu_s)


async def _feel_stalls(stalls: list[float]) -> None:
    while True:
        due = time.perf_counter() + HEARTBEAT_S
        await asyncio.sleep(HEARTBEAT_S)
        stalls.append(time.perf_counter() - due)


def _bodies(model: str, load: Load, seed: str) -> Iterator[bytes]:
    generator = random.Random(f"{seed} {load}")
    while True:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": _prompt(generator, load)}],
            "max_tokens": load.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": load.stream,
        }
        if load.stream:
            body["stream_options"] = {"include_usage": True}
        yield orjson.dumps(body)


def _prompt(generator: random.Random, load: Load) -> str:
    return "".join(generator.choices("0123456789", k=load.input_tokens - TEMPLATE_TOKENS))


async def _exchange(session: aiohttp.ClientSession, body: bytes, load: Load) -> Exchange:
    headers = {"content-type": "application/json"}
    parts: list[bytes] = []
    reads: list[float] = []
    sent = time.perf_counter()
    try:
        async with session.post("/v1/chat/completions", data=body, headers=headers) as response:
            async for part in response.content.iter_any():
                reads.append(time.perf_counter())
                parts.append(part)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LoadError(f"{type(error).__name__}: {error}") from error
    exchange = Exchange(sent, tuple(reads), time.perf_counter())
    _check(response.status, b"".join(parts), load)
    return exchange


def _check(status: int, answer: bytes, load: Load) -> None:
    """The servers are compared on equal work only."""
    if status != 200:
        raise LoadError(f"status {status}: {answer.decode(errors='replace')}")
    # A stream ends in `data: {usage}`, `data: [DONE]`.
    last = answer.rsplit(b"data: ", 2)[-2] if load.stream else answer
    generated = orjson.loads(last)["usage"]["completion_tokens"]
    if generated != load.output_tokens:
        raise LoadError(f"asked for {load.output_tokens} tokens, got {generated}")
