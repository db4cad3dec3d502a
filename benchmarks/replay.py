"""An open loop: requests are sent when they are due, however many are still being answered.

So a server that falls behind is seen to: times count from when a request was due, not from when the
client came to send it. One asyncio process; it neither starts servers nor compares anything.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from lengths import scaled
from loadgen import LoadError
from simulated_cluster import Job
from simulated_traffic import random_trace, read_trace

REQUEST_TIMEOUT_S = 300.0
# Token ids of plain text in SmolLM2's tokenizer.
PLAIN_TOKENS = range(17, 1000)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request; times in seconds since the first one was due.

    Attributes:
        due_s: When it was to be sent.
        first_s: When the first piece of the answer came.
        complete_s: When the last one did.
        model: Who answered.
        energy_joules: What the replica measured, `None` where its counter failed.
    """

    due_s: float
    first_s: float
    complete_s: float
    output_tokens: int
    model: str
    energy_joules: float | None

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.due_s

    @property
    def runtime_s(self) -> float:
        return self.complete_s - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds per token after the first, `None` below two tokens."""
        if self.output_tokens < 2:
            return None
        return (self.complete_s - self.first_s) / (self.output_tokens - 1)


def arrivals(trace: Path | None, rate_per_s: float, count: int, seed: int) -> list[Job]:
    """So many requests at exactly this mean rate, in order, with lengths that fit into the context.

    Raises:
        OSError, ValueError: The trace cannot be read, or is none.
    """
    read = read_trace(trace) if trace else random_trace(seed=seed)
    jobs = read.jobs(rate_per_s, count, random.Random(seed))
    longest = max(sum(pair) for pair in read.tokens)
    lengths = scaled([(job.input_tokens, job.output_tokens) for job in jobs], longest)
    # The rate of the whole trace is not that of a piece of it.
    first = jobs[0].arrived_s
    speed = (jobs[-1].arrived_s - first) / (count / rate_per_s)
    return [
        replace(
            job, arrived_s=(job.arrived_s - first) / speed, input_tokens=tin, output_tokens=tout
        )
        for job, (tin, tout) in zip(jobs, lengths, strict=True)
    ]


async def replay(
    url: str, jobs: Sequence[Job], fields: Mapping[str, Any], seed: str
) -> list[Answer]:
    """Send every request when it is due, and wait for all answers.

    Args:
        url: Of the server, without a path.
        jobs: In order.
        fields: Of every request: its `model` and `routing`.
        seed: Of the prompts. None comes twice from one seed, nor from two.

    Raises:
        LoadError: A request failed.
    """
    draw = random.Random(seed)
    bodies = [orjson.dumps({**fields, **_completion(job, draw)}) for job in jobs]
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        began = time.perf_counter() - jobs[0].arrived_s
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_ask(session, job, body, began))
                    for job, body in zip(jobs, bodies, strict=True)
                ]
        except* (aiohttp.ClientError, TimeoutError, LoadError) as failed:
            raise LoadError(str(failed.exceptions[0])) from failed
    return [task.result() for task in tasks]


def _completion(job: Job, draw: random.Random) -> dict[str, Any]:
    return {
        # Ids, so that the number of tokens is exact.
        "prompt": draw.choices(PLAIN_TOKENS, k=job.input_tokens),
        "max_tokens": job.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _ask(session: aiohttp.ClientSession, job: Job, body: bytes, began: float) -> Answer:
    await asyncio.sleep(began + job.arrived_s - time.perf_counter())
    headers = {"content-type": "application/json"}
    parts: list[bytes] = []
    first = 0.0
    async with session.post("/v1/completions", data=body, headers=headers) as response:
        async for part in response.content.iter_any():
            first = first or time.perf_counter()
            parts.append(part)
    complete = time.perf_counter()
    answer = b"".join(parts)
    events = answer.rstrip().split(b"data: ")
    if response.status != 200 or events[-1] != b"[DONE]":
        raise LoadError(f"status {response.status}: {answer[-500:].decode(errors='replace')}")
    last = orjson.loads(events[-2])
    generated = last["usage"]["completion_tokens"]
    if generated != job.output_tokens:
        raise LoadError(f"asked for {job.output_tokens} tokens, got {generated}")
    return Answer(
        due_s=job.arrived_s,
        first_s=first - began,
        complete_s=complete - began,
        output_tokens=generated,
        model=last["model"],
        energy_joules=last["routing"]["actual"]["energy_joules"],
    )
