"""`python -m hostile.promises`: what is promised about neighbours, beside the corpus, in figures.

On a service that runs and has API keys: `/health` while a thousand streams are open, what a stopped
stream is charged, and a herd at a model that is scaled to 0 of which a third leaves. Prints a line
of JSON for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from cluster.store.usage import UsageBoard
from hostile.cases import Target
from hostile.neighbours import WAKING, Looked
from hostile.targets import running_service
from hostile.watching import HEALTH, MORE_HEALTH, Observations

STREAMS, OPENED_WITHIN_S, WATCHED_S = 1_000, 10.0, 30.0
STREAM_TOKENS = 400
STOPPED_AFTER_S, STOPPED_TOKENS = 2.0, 1_500
SETTLED_AFTER_S = 8.0
"""What a key used is written down every five seconds in which one uses anything."""
HERD, LEAVE_AFTER_S = 50, 3.0
HERD_WITHIN_S = 280.0


def session(target: Target, key: str | None) -> aiohttp.ClientSession:
    """Without a bound of connections or time."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(
        target.url,
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
    )


def streaming(model: str, tokens: int, number: int = 0, **more: Any) -> dict[str, Any]:
    """The body of a stream."""
    common = {"max_tokens": tokens, "ignore_eos": True, "stream": True}
    return {"model": model, "prompt": f"Tell me about number {number}.", **common, **more}


def health_under_streams(target: Target) -> dict[str, Any]:
    """Seconds that the health routes take while they open and then, from a process of its own."""
    statuses: Counter[int] = Counter()
    all_open = 0.0

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        await asyncio.sleep(number * OPENED_WITHIN_S / STREAMS)
        model = target.models[number % len(target.models)]
        body = streaming(model, STREAM_TOKENS, number)
        async with client.post("/v1/completions", json=body) as response:
            statuses[response.status] += 1
            async for _ in response.content.iter_any():
                pass

    async def many() -> int:
        nonlocal all_open
        async with session(target, target.key) as client:
            tasks = [asyncio.create_task(one(client, number)) for number in range(STREAMS)]
            await asyncio.sleep(OPENED_WITHIN_S)
            all_open = time.monotonic()
            await asyncio.sleep(WATCHED_S)
            # What is not answered yet waits for its first token.
            is_open = sum(not task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return is_open

    with Observations(target, 0.05, [HEALTH, *MORE_HEALTH]) as observed:
        observed.wait_for_the_first(60)
        began = time.monotonic()
        is_open = asyncio.run(many())
        ended = time.monotonic()
    paths = (HEALTH, *MORE_HEALTH, WAKING)
    return {
        "streams": STREAMS,
        "open_at_the_end": is_open,
        "statuses": dict(statuses),
        "opening": {path: _times(observed.looks_in(began, all_open, path)) for path in paths},
        "open": {path: _times(observed.looks_in(all_open, ended, path)) for path in paths},
    }


def _times(looks: Sequence[Looked]) -> dict[str, float]:
    seconds = [one.seconds for one in looks]
    return {
        "looks": len(looks),
        "p50_s": round(_percentile(seconds, 0.5), 3),
        "p99_s": round(_percentile(seconds, 0.99), 3),
        "longest_s": round(max(seconds, default=math.nan), 3),
    }


def _percentile(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


def charge_of_a_stopped_stream(target: Target, usage_file: Path, name: str) -> dict[str, Any]:
    """Tokens that the key of this name is charged, over prompt and what the client has seen."""

    async def stop() -> tuple[int, int]:
        prompt, seen = 0, 0
        body = streaming(target.models[0], STOPPED_TOKENS, return_token_ids=True)
        async with (
            session(target, target.key) as client,
            client.post("/v1/completions", json=body) as response,
        ):
            until = time.monotonic() + STOPPED_AFTER_S
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                choice = json.loads(line[len(b"data: ") :])["choices"][0]
                prompt = prompt or len(choice.get("prompt_token_ids") or ())
                seen += len(choice.get("token_ids") or ())
                if time.monotonic() > until:
                    break
        return prompt, seen

    before = _used(target, usage_file, name)
    prompt, seen = asyncio.run(stop())
    charged = _used(target, usage_file, name) - before
    return {
        "prompt_tokens": prompt,
        "tokens_seen": seen,
        "tokens_charged": charged,
        "charged_over_seen": round(charged / max(prompt + seen, 1), 3),
    }


def _used(target: Target, usage_file: Path, name: str) -> int:
    """Tokens of a key today, as the store wrote them for a request of another key."""

    async def ask() -> None:
        body = {"model": target.models[0], "prompt": "x", "max_tokens": 1}
        async with (
            session(target, target.bad_key) as client,
            client.post("/v1/completions", json=body) as response,
        ):
            response.raise_for_status()

    time.sleep(SETTLED_AFTER_S)
    asyncio.run(ask())
    time.sleep(SETTLED_AFTER_S)
    board = UsageBoard.from_json(json.loads(usage_file.read_text()))
    used = board.spend({}, time.time())
    return sum(
        int(u[name].tokens) for period, u in used.items() if period.name == "day" and name in u
    )


def herd(target: Target, sleeper: str) -> dict[str, Any]:
    """Statuses of those that wait."""

    async def ask(client: aiohttp.ClientSession, number: int) -> int | None:
        await asyncio.sleep(0.01 * number)
        body = {"model": sleeper, "prompt": "one", "max_tokens": 2}
        within_s = LEAVE_AFTER_S if number % 3 == 0 else HERD_WITHIN_S
        try:
            async with asyncio.timeout(within_s):
                async with client.post("/v1/completions", json=body) as response:
                    await response.read()
                    return response.status
        except TimeoutError:
            return None

    async def all_of_them() -> list[int | None]:
        async with session(target, target.key) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(HERD)))

    began = time.monotonic()
    statuses = asyncio.run(all_of_them())
    patient = [status for number, status in enumerate(statuses) if number % 3]
    return {
        "asked": HERD,
        "left": HERD - len(patient),
        "patient": len(patient),
        "answered": patient.count(200),
        "statuses": dict(Counter(map(str, patient))),
        "seconds": round(time.monotonic() - began, 1),
    }


def main(argv: Sequence[str]) -> int:
    """Measure what is named and print it."""
    parser = argparse.ArgumentParser(prog="python -m hostile.promises", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--other-key", help="of somebody else")
    parser.add_argument("--name", default="environment-1", help="of the key")
    parser.add_argument("--models", help="that run, divided by commas; default: all")
    parser.add_argument("--health", action="store_true")
    parser.add_argument(
        "--usage", type=Path, metavar="FILE", help="`usage.json` of the data folder"
    )
    parser.add_argument("--sleeper", metavar="MODEL", help="one that is scaled to 0")
    args = parser.parse_args(argv)
    target = running_service(args.url, args.key, args.other_key, args.models)
    figures: dict[str, Any] = {}
    if args.usage:
        figures["charge"] = charge_of_a_stopped_stream(target, args.usage, args.name)
    if args.health:
        figures["health"] = health_under_streams(target)
    if args.sleeper:
        figures["herd"] = herd(target, args.sleeper)
    for name, figure in figures.items():
        print(json.dumps({name: figure}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
