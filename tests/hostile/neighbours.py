"""Clients that ask for ordinary things while the corpus runs: what counts is what they get.

`python -m hostile.neighbours URL MODEL... ` is a process of its own, so that a suite that writes a
megabyte of JSON does not delay what is measured here. It asks at a fixed rate, whether or not the
requests before are answered, and looks at the health routes once a second. Each line that it
prints is one observation as JSON; it ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
from chaos.strict_client import Fate, Question, Stream, ask, judge

from hostile.cases import PROMPT

TOKENS = 16
GIVEN_UP_AFTER_S = 60.0
MOST_OPEN = 80
"""Requests without an answer; what would come on top counts as failed."""
KEY_VARIABLE = "HOSTILE_API_KEY"
"""Environment variable with the API key of these clients, where they need one."""
LOOK_S = 1.0
LOOK_TIMEOUT_S = 5.0
SLEEP_S = 0.05
WAKING = "waking from a sleep"
"""In the place of a path: how much longer than `SLEEP_S` this process slept, which asks no service.
What the machine adds to every wait, where processes that compute keep others from its cores."""
WORDS = ("yes", "no", "perhaps")
SUBJECTS = ("the sea", "a clock", "two brothers", "the last winter")


@dataclass(frozen=True, slots=True)
class Asked:
    """One ordinary request.

    Attributes:
        kind: What was asked, in words.
        began: In `time.monotonic()`, which all processes of a machine share.
        fault: Why it counts as failed, `None` where it was answered.
    """

    kind: str
    began: float
    ended: float
    status: int | None
    fault: str | None

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Looked:
    """One look at a health route.

    Attributes:
        path: Of the route.
        fault: Why it is not well, `None` where it is.
        unavailable: Models and why they take no requests.
    """

    path: str
    began: float
    ended: float
    status: int | None
    fault: str | None
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def ordinary(model: str, number: int) -> tuple[str, Question]:
    """An ordinary request, of one of five kinds.

    Args:
        model: Whom it asks.
        number: Which one; those in a row differ. Every other one has the text of the corpus, which
            must not suffer for what the corpus sends with it.
    """
    subject = SUBJECTS[number % len(SUBJECTS)]
    prompt = PROMPT if number % 2 else f"Tell me about {subject}, number {number}."
    messages = {"messages": [{"role": "user", "content": prompt}]}
    whole = {"model": model, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    common = {**whole, "stream": True, "stream_options": {"include_usage": True}}
    match number % 5:
        case 0:
            return "chat stream", Question("/v1/chat/completions", {**common, **messages})
        case 1:
            return "completion", Question("/v1/completions", {**whole, "prompt": prompt})
        case 2:
            return "chat", Question("/v1/chat/completions", {**whole, **messages})
        case 3:
            return "completion stream", Question("/v1/completions", {**common, "prompt": prompt})
    schema = {"name": "word", "schema": {"enum": list(WORDS)}}
    wanted = {"response_format": {"type": "json_schema", "json_schema": schema}}
    body = {"model": model, "max_tokens": TOKENS, "temperature": 0, **messages, **wanted}
    return "json schema", Question("/v1/chat/completions", body)


def fault_of(kind: str, stream: Stream) -> str | None:
    """Why an ordinary request counts as failed."""
    if kind.endswith("stream"):
        verdict = judge(stream)
        if verdict.fate in (Fate.WHOLE, Fate.CONTINUED):
            return None
        return f"{verdict.fate}: {verdict.reason}"
    if stream.status != 200 or stream.broke:
        return f"status {stream.status}: {stream.broke or stream.last(200)}"
    try:
        answer = json.loads(bytes(stream.data))
        return _whole_fault(kind, answer)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"no answer: {type(error).__name__}: {error}: {stream.last(200)}"


def _whole_fault(kind: str, answer: dict[str, Any]) -> str | None:
    if kind == "json schema":
        content = answer["choices"][0]["message"]["content"]
        return None if json.loads(content) in WORDS else f"not of the schema: {content!r}"
    tokens = answer["usage"]["completion_tokens"]
    return None if tokens == TOKENS else f"{tokens} tokens of {TOKENS}"


class Neighbours:
    """The clients.

    Args:
        url: Of the service.
        models: Whom they ask, in turn.
        rate: Requests a second.
        health: Paths to look at; the first one tells which models are available.
    """

    def __init__(self, url: str, models: Sequence[str], rate: float, health: Sequence[str]) -> None:
        self._url = url
        self._models = models
        self._rate = rate
        self._health = health
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until it is time to stop; then wait for what is open."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with aiohttp.ClientSession(
            self._url, connector=connector, headers=headers
        ) as session:
            looks = [asyncio.create_task(self._look_at(session, path)) for path in self._health]
            looks.append(asyncio.create_task(self._sleep()))
            await self._ask_on(session, stop)
            if self._open:
                await asyncio.wait(self._open)
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _ask_on(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        began = time.monotonic()
        for number in itertools.count():
            due = began + number / self._rate
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await stop.wait()
                return
            except TimeoutError:
                self._ask(session, number)

    def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        # Two turns that have no common factor: each kind goes to each model.
        model = self._models[number // 5 % len(self._models)]
        kind, question = ordinary(model, number)
        if len(self._open) >= MOST_OPEN:
            now = time.monotonic()
            say(Asked(f"{kind} {model}", now, now, None, f"{MOST_OPEN} others wait already"))
            return
        task = asyncio.create_task(self._answered(session, kind, question))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _answered(
        self, session: aiohttp.ClientSession, kind: str, question: Question
    ) -> None:
        stream = Stream(question)
        try:
            async with asyncio.timeout(GIVEN_UP_AFTER_S):
                await ask(session, stream)
            fault = fault_of(kind, stream)
        except TimeoutError:
            fault = f"no answer within {GIVEN_UP_AFTER_S:g} s"
        name = f"{kind} {question.body['model']}"
        say(Asked(name, stream.began, time.monotonic(), stream.status, fault))

    async def _sleep(self) -> None:
        while True:
            due = time.monotonic() + SLEEP_S
            await asyncio.sleep(SLEEP_S)
            say(Looked(WAKING, due, time.monotonic(), None, None))

    async def _look_at(self, session: aiohttp.ClientSession, path: str) -> None:
        while True:
            began = time.monotonic()
            say(await look(session, path))
            await asyncio.sleep(max(0.0, began + LOOK_S - time.monotonic()))


async def look(session: aiohttp.ClientSession, path: str) -> Looked:
    """At one health route."""
    began = time.monotonic()
    status = None
    unavailable: dict[str, str] = {}
    try:
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        async with session.get(path, timeout=timeout) as response:
            status = response.status
            data = await response.read()
        fault = None if status == 200 else f"status {status}"
        if fault is None:
            fault, unavailable = _state(data)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        fault = f"{type(error).__name__}: {error}"
    return Looked(path, began, time.monotonic(), status, fault, unavailable)


def _state(data: bytes) -> tuple[str | None, dict[str, str]]:
    """Of a health route that says more than a status."""
    try:
        said = json.loads(data)
    except ValueError:
        return None, {}
    if not isinstance(said, dict):
        return None, {}
    models = said.get("models") if isinstance(said.get("models"), dict) else {}
    unavailable = {
        name: str(state.get("reason"))
        for name, state in (models or {}).items()
        if not state.get("available", True)
    }
    fault = "degraded" if said.get("status") == "degraded" else None
    return fault, unavailable


def say(what: Asked | Looked) -> None:
    """One line for the suite."""
    kind = "asked" if isinstance(what, Asked) else "looked"
    print(json.dumps({"is": kind, **asdict(what)}), flush=True)


def heard(line: str) -> Asked | Looked:
    """What such a line says."""
    data = json.loads(line)
    return Asked(**data) if data.pop("is") == "asked" else Looked(**data)


async def _main(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    ended.add_done_callback(lambda _: stop.set())
    await Neighbours(args.url, args.models, args.rate, args.health).run(stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m hostile.neighbours", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rate", type=float, default=3.0, help="requests a second")
    parser.add_argument("--health", action="append", default=[], help="paths, once a second")
    asyncio.run(_main(parser.parse_args()))
