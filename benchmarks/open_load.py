"""An open loop of requests on one OpenAI server: they come when they come, answered or not.

Counts what became of each; starts no server.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import aiohttp
import orjson

REQUEST_TIMEOUT_S = 120.0

Fate = Literal["whole", "turned away", "error", "cut"]
"""What became of a request. *Cut* is what must not be: ended in order, without a finish reason."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Requests of one kind.

    Attributes:
        per_s: How many come, on average; independent of each other.
        seconds: How long they come.
        output_tokens: Generated tokens of each, exactly.
        deadline_s: A later answer is of no use.
        told: Whether the requests say so.
    """

    per_s: float
    seconds: float
    output_tokens: int
    deadline_s: float
    told: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request; times in `time.perf_counter()`.

    Attributes:
        retry_after_s: What the refusal said, `None` where there was none.
    """

    fate: Fate
    status: int
    code: str | None
    sent: float
    ended: float
    retry_after_s: int | None = None

    @property
    def took_s(self) -> float:
        return self.ended - self.sent


@dataclass(frozen=True, slots=True)
class Window:
    """All requests of one offer.

    Attributes:
        began: When the first one could come.
    """

    offer: Offer
    outcomes: Sequence[Outcome]
    began: float

    @property
    def fates(self) -> Counter[str]:
        return Counter(outcome.fate for outcome in self.outcomes)

    @property
    def whole(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.fate == "whole"]

    @property
    def in_time(self) -> int:
        return sum(outcome.took_s <= self.offer.deadline_s for outcome in self.whole)

    @property
    def goodput(self) -> float:
        """Answers in time a second, among those that were complete while requests came.

        The first deadline is left out: before it the queue is still filling.
        """
        begin = self.began + self.offer.deadline_s
        end = self.began + self.offer.seconds
        good = [o for o in self.whole if o.took_s <= self.offer.deadline_s]
        return sum(begin <= o.ended < end for o in good) / (end - begin)


async def offer(url: str, model: str, load: Offer, seed: str) -> Window:
    """Send requests, and wait for all of them.

    Args:
        url: Of the server, without a path.
        model: The requests' `model`.
        load: What to send.
        seed: Of arrivals and prompts.
    """
    generator = random.Random(f"{seed} {load}")
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        began = time.perf_counter()
        sent: list[asyncio.Task[Outcome]] = []
        at = began
        while (at := at + generator.expovariate(load.per_s)) < began + load.seconds:
            await asyncio.sleep(at - time.perf_counter())
            body = _body(model, load, generator)
            sent.append(asyncio.create_task(_request(session, body)))
        return Window(load, await asyncio.gather(*sent), began)


def _body(model: str, load: Offer, generator: random.Random) -> bytes:
    limits = {"constraints": {"max_latency_s": load.deadline_s}} if load.told else {}
    return orjson.dumps(
        {
            "model": model,
            "prompt": "".join(generator.choices("0123456789", k=32)),
            "max_tokens": load.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "routing": limits,
        }
    )


async def _request(session: aiohttp.ClientSession, body: bytes) -> Outcome:
    sent = time.perf_counter()
    status, data, retry_after = 0, b"", None
    try:
        headers = {"content-type": "application/json"}
        async with session.post("/v1/completions", data=body, headers=headers) as response:
            status, retry_after = response.status, response.headers.get("retry-after")
            data = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return Outcome("error", status, type(error).__name__, sent, time.perf_counter())
    fate, code = _fate(status, data)
    wait_s = int(retry_after) if retry_after else None
    return Outcome(fate, status, code, sent, time.perf_counter(), wait_s)


def _fate(status: int, data: bytes) -> tuple[Fate, str | None]:
    if status == 200:
        # A stream that ends with an error event says so itself.
        if b'data: {"error"' in data:
            return "error", orjson.loads(data.rpartition(b"data: ")[2])["error"]["code"]
        whole = b'"finish_reason":"length"' in data and data.endswith(b"data: [DONE]\n\n")
        return ("whole" if whole else "cut"), None
    try:
        code = str(orjson.loads(data)["error"]["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "error", None
    return ("turned away" if status == 429 else "error"), code
