"""Streams that run while something breaks: a closed loop of strict clients, in a thread."""

from __future__ import annotations

import asyncio
import itertools
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp

from chaos.strict_client import Fate, Question, Stream, ask, judge

PAUSE_AFTER_A_FAULT_S = 0.2
"""So that a proxy that refuses is not asked thousands of times."""
RETRY_AFTER_S = 0.5
RETRIES = 120
UNDER_WAY = 5
"""Events that a stream has got before it counts as running."""


class Streams:
    """A context manager: the clients run within the block, and their last answers are awaited.

    Each of them asks once at least. Every second pair of them sends an `Idempotency-Key` with each
    question and asks again with it where the connection broke.

    Args:
        url: Of the service.
        questions: Dealt out to the clients, who keep to theirs: were they asked by whoever is free,
            most clients would soon wait for the model that is slowest.
        clients: How many there are.
        keyed: The server knows `Idempotency-Key`.

    Attributes:
        ended: Streams in the order in which they ended, retries aside.
        retries: The last retry of each stream that was asked for again.
    """

    def __init__(
        self, url: str, questions: Sequence[Question], clients: int, *, keyed: bool = True
    ) -> None:
        self._keyed = keyed
        self._url = url
        self._questions = questions
        self._clients = self._wanted = clients
        self._pause_s = 0.0
        self._running: dict[int, Stream] = {}
        self._thread = threading.Thread(target=self._run)
        self._loop = asyncio.new_event_loop()
        self._all: asyncio.Task[None] = self._loop.create_task(self._clients_ask())
        self.ended: list[Stream] = []
        self.retries: list[Stream] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.reduce(0)
        if error is not None:
            # Whoever interrupts this does not wait for the last answers.
            self._loop.call_soon_threadsafe(self._all.cancel)
        self._thread.join()

    def reduce(self, clients: int, pause_s: float = 0.0) -> None:
        """Have so many clients go on, with pauses; the others finish what they have."""
        self._wanted, self._pause_s = clients, pause_s

    def running(self) -> list[Stream]:
        """Streams that have got some of their answer and wait for more."""
        streams = list(self._running.values())
        return [s for s in streams if len(s.times) >= UNDER_WAY and s.ended is None]

    def asking(self) -> list[Stream]:
        """All that have not ended."""
        return list(self._running.values())

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._all)
        self._loop.close()

    async def _clients_ask(self) -> None:
        # Every stream on a connection of its own: none breaks with another one.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(self._url, connector=connector) as session:
            await asyncio.gather(*(self._client(session, i) for i in range(self._clients)))

    async def _client(self, session: aiohttp.ClientSession, index: int) -> None:
        for number in itertools.count(index, self._clients):
            if number != index and index >= self._wanted:
                return
            question = self._questions[number % len(self._questions)]
            key = uuid.uuid4().hex if self._keyed and index // 2 % 2 else None
            stream = self._running[index] = Stream(question, key)
            await ask(session, stream)
            del self._running[index]
            self.ended.append(stream)
            if key is not None and judge(stream).fate is Fate.TRANSPORT:
                self.retries.append(await _ask_again(session, stream))
            failed = stream.broke is not None or stream.status != 200
            await asyncio.sleep(max(self._pause_s, PAUSE_AFTER_A_FAULT_S if failed else 0.0))


async def _ask_again(session: aiohttp.ClientSession, broken: Stream) -> Stream:
    """The first retry that comes through, else the last one."""
    for _ in range(RETRIES):
        await asyncio.sleep(RETRY_AFTER_S)
        retry = Stream(broken.question, broken.key)
        await ask(session, retry)
        if judge(retry).fate is not Fate.TRANSPORT:
            break
    return retry
