"""Requests of exact lengths to a running router, and what each was predicted and measured to cost.

Starts nothing. Prompts are token ids, so that lengths are exact, and none comes twice.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import httpx
import orjson

REQUEST_TIMEOUT_S = 120.0
# No special tokens in the vocabularies of the models here.
PLAIN_TOKENS = range(1000, 20_000)


class AskingError(Exception):
    """A request failed, or its answer lacks what is to be measured."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """One request to come.

    Attributes:
        seed: Of the prompt.
    """

    model: str
    input_tokens: int
    output_tokens: int
    seed: int

    def body(self) -> dict[str, Any]:
        draw = random.Random(self.seed)
        return {
            "model": self.model,
            "prompt": draw.choices(PLAIN_TOKENS, k=self.input_tokens),
            "max_tokens": self.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and its costs: seconds and joules, as measured and as predicted before.

    Attributes:
        client_s: As the client saw it.
    """

    lengths: Lengths
    runtime_s: float
    energy_joules: float
    predicted_runtime_s: float
    predicted_energy_joules: float
    energy_source: str
    client_s: float

    def row(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def mixed(
    models: Sequence[str], seed: str, inputs: tuple[int, int], outputs: tuple[int, int]
) -> Iterator[Lengths]:
    """Requests without end, the models in turn, lengths log-uniform between two bounds each."""
    draw = random.Random(seed)

    def between(low: int, high: int) -> int:
        return round(math.exp(draw.uniform(math.log(low), math.log(high))))

    while True:
        for model in models:
            yield Lengths(model, between(*inputs), between(*outputs), draw.randrange(2**40))


async def ask(session: aiohttp.ClientSession, lengths: Lengths) -> Answer:
    """One request.

    Raises:
        AskingError: It failed, or no energy was measured.
    """
    body = orjson.dumps(lengths.body())
    began = time.perf_counter()
    try:
        async with session.post(
            "/v1/completions", data=body, headers={"content-type": "application/json"}
        ) as response:
            text = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise AskingError(f"{lengths.model}: {type(error).__name__}: {error}") from error
    took_s = time.perf_counter() - began
    if response.status != 200:
        raise AskingError(f"{lengths.model}: status {response.status}: {text[:500]!r}")
    routing = orjson.loads(text)["routing"]
    actual, predicted = routing["actual"], routing["predicted"]
    if actual["output_tokens"] != lengths.output_tokens:
        raise AskingError(f"{lengths}: {actual['output_tokens']} tokens were generated")
    if actual["energy_joules"] is None:
        raise AskingError(f"{lengths.model}: its energy was not measured")
    return Answer(
        lengths,
        actual["runtime_s"],
        actual["energy_joules"],
        predicted["runtime_s"],
        predicted["energy_joules"],
        routing["energy_source"],
        took_s,
    )


def session_to(url: str) -> aiohttp.ClientSession:
    """A client with as many connections as it needs; to be made within a running loop."""
    return aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
    )


async def closed_loop(
    url: str, requests: Iterator[Lengths], clients: int, seconds: float
) -> list[Answer]:
    """Keep so many requests under way for some time, then finish them.

    Raises:
        AskingError: One of them failed.
    """
    answers: list[Answer] = []
    end = time.monotonic() + seconds
    async with session_to(url) as session:

        async def client() -> None:
            while True:
                answers.append(await ask(session, next(requests)))
                if time.monotonic() >= end:
                    return

        await _together([client() for _ in range(clients)])
    return answers


async def at_once(url: str, requests: Sequence[Lengths]) -> list[Answer]:
    """Send all at the same time.

    Raises:
        AskingError: One of them failed.
    """
    async with session_to(url) as session:
        return await _together([ask(session, lengths) for lengths in requests])


async def _together(coroutines: Sequence[Any]) -> list[Any]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def dry_run(url: str, lengths: Lengths) -> dict[str, float]:
    """What the router predicts for a request, which is not sent to any model.

    Raises:
        AskingError: The model is no candidate.
    """
    body = lengths.body() | {"model": "auto", "routing": {"models": [lengths.model]}}
    response = httpx.post(f"{url}/v1/route", json=body, timeout=30)
    if response.status_code != 200:
        raise AskingError(f"{lengths.model}: status {response.status_code}: {response.text[:500]}")
    candidate = response.json()["candidates"][0]
    return {"runtime_s": candidate["runtime_s"], "energy_joules": candidate["energy_joules"]}


def mean_error(predicted: Sequence[float], actual: Sequence[float]) -> float:
    """Mean absolute error in shares of what was measured."""
    pairs = list(zip(predicted, actual, strict=True))
    return sum(abs(p / a - 1) for p, a in pairs) / len(pairs)


def median_ratio(predicted: Sequence[float], actual: Sequence[float]) -> float:
    """Predicted over measured, in the middle."""
    ratios = sorted(p / a for p, a in zip(predicted, actual, strict=True))
    return ratios[len(ratios) // 2]
