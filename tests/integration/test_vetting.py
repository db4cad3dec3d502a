"""Constraints are tried by vLLM's own compilers, in processes that can be killed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_checkpoints import build_tiny_checkpoints
from vllm.engine.arg_utils import AsyncEngineArgs

from deployments.config.replica import VettingLimits
from deployments.replica.vetting.trial import Verdict
from deployments.replica.vetting.vetting import Vetting, VettingBusyError, VettingStarvedError

pytestmark = pytest.mark.integration

ORDINARY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "a list of a billion": ({"json": {"type": "array", "minItems": 10**9}}, "MiB"),
    "a grammar without text": ({"grammar": "root ::= root"}, "allows no text"),
    "a reference to itself": (
        {"json": {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}},
        "cannot be followed",
    ),
    "no grammar": ({"grammar": "root ::= ((("}, "rammar"),
    "no expression": ({"regex": "(((a"}, ""),
    "deeper than the stack": ({"json": '{"items":' * 5000 + "{}" + "}" * 5000}, ""),
    "two at once": ({"regex": "a", "grammar": 'root ::= "a"'}, "only use one kind"),
}


def slow(number: int) -> dict[str, Any]:
    """Takes xgrammar some 15 s; each number is another one."""
    pattern = f"^.{{1,{2000 + number}}}$"
    names = "abcd"
    return {
        "json": {
            "type": "object",
            "properties": {name: {"type": "string", "pattern": pattern} for name in names},
            "required": list(names),
        }
    }


@pytest.fixture(scope="session")
def engine_config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    checkpoints = build_tiny_checkpoints(tmp_path_factory.mktemp("vetting"))
    path: Path = checkpoints["tiny-phi3"]
    return AsyncEngineArgs(model=str(path), enforce_eager=True).create_engine_config()


@asynccontextmanager
async def open_vetting(config: Any, **limits: Any) -> AsyncIterator[Vetting]:
    vetting = Vetting(config, VettingLimits(**limits))
    vetting.start()
    try:
        await vetting.check({"json": ORDINARY})
        yield vetting
    finally:
        await vetting.close()


def run(config: Any, body: Callable[[Vetting], Coroutine[Any, Any, None]], **limits: Any) -> None:
    async def main() -> None:
        async with open_vetting(config, **limits) as vetting:
            await body(vetting)

    asyncio.run(main())


async def longest_stall(until: asyncio.Event) -> float:
    longest, last = 0.0, time.monotonic()
    while not until.is_set():
        await asyncio.sleep(0.005)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def test_what_can_be_followed_is_settled_as_the_engine_would(engine_config: Any) -> None:
    async def body(vetting: Vetting) -> None:
        schema = (await vetting.check({"json": json.dumps(ORDINARY)})).settled
        assert schema is not None
        assert schema["_backend"] == "xgrammar"
        choice = (await vetting.check({"choice": ["yes", "no"]})).settled
        assert choice is not None
        assert choice["choice"] is None
        assert "yes" in choice["grammar"]
        # xgrammar cannot do it, guidance can.
        other = (await vetting.check({"json": {"type": "integer", "multipleOf": 7}})).settled
        assert other is not None
        assert other["_backend"] == "guidance"
        assert (await vetting.check({"json_object": True})).settled is not None
        assert (await vetting.check({"regex": "[a-z]{2,5}"})).settled is not None

    run(engine_config, body)


def test_what_the_engine_cannot_digest_is_rejected_within_the_limits(engine_config: Any) -> None:
    async def body(vetting: Vetting) -> None:
        for name, (constraint, reason) in REJECTED.items():
            started = time.monotonic()
            verdict = await vetting.check(constraint)
            took_s = time.monotonic() - started
            print(f"{name}: {took_s:.2f} s, {verdict.reason[:90]!r}")
            assert verdict.settled is None
            assert reason in verdict.reason
            # Two or three on a quiet machine; without the limits 15 or no end.
            assert took_s < 14
        assert (await vetting.check({"regex": "after all that"})).settled is not None

    run(engine_config, body)


def test_a_slow_one_is_killed_in_time_and_not_tried_again(engine_config: Any) -> None:
    async def body(vetting: Vetting) -> None:
        started = time.monotonic()
        verdict = None
        for _ in range(3):
            with suppress(VettingStarvedError):
                verdict = await vetting.check(slow(0))
                break
            assert time.monotonic() - started < 12
            started = time.monotonic()
        if verdict is None:
            pytest.skip("the machine is too busy to say what a constraint costs")
        assert "more than 2 s" in verdict.reason
        started = time.monotonic()
        assert await vetting.check(slow(0)) == verdict
        # Tried again it would take the two seconds once more.
        assert time.monotonic() - started < 2
        (template,) = (
            child
            for child in psutil.Process().children()
            if "vetting.process" in " ".join(child.cmdline())
        )
        for _ in range(600):
            left = [c for c in template.children() if c.status() != psutil.STATUS_ZOMBIE]
            if not left:
                break
            await asyncio.sleep(0.05)
        assert left == []

    run(engine_config, body, seconds=2.0)


def test_quick_ones_do_not_wait_for_fifty_slow_ones(engine_config: Any) -> None:
    async def body(vetting: Vetting) -> None:
        over = asyncio.Event()
        stall = asyncio.create_task(longest_stall(over))
        flood = [asyncio.create_task(vetting.check(slow(number))) for number in range(50)]
        await asyncio.sleep(0.5)
        waits = []
        for number in range(10):
            started = time.monotonic()
            assert (await vetting.check({"regex": f"quick{number}"})).settled is not None
            waits.append(time.monotonic() - started)
        ended = await asyncio.gather(*flood, return_exceptions=True)
        over.set()
        busy = [e for e in ended if isinstance(e, VettingBusyError | VettingStarvedError)]
        killed = [end for end in ended if isinstance(end, Verdict) and end.settled is None]
        longest = await stall
        print(f"quick ones {waits}, {len(busy)} busy, {len(killed)} killed, stall {longest:.3f} s")
        assert len(busy) + len(killed) == 50
        # Behind all fifty: a second each at the most, two side by side.
        assert max(waits) < 30
        # Of those that have to wait for none of them, on cores that engines keep busy for seconds.
        assert sorted(waits)[5] < 10
        assert longest < 10

    run(engine_config, body)


def test_a_template_that_dies_is_started_again(engine_config: Any) -> None:
    async def body(vetting: Vetting) -> None:
        (template,) = (
            child
            for child in psutil.Process().children()
            if "vetting.process" in " ".join(child.cmdline())
        )
        template.kill()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not vetting.ready:
                break
        assert (await vetting.check({"regex": "again"})).settled is not None

    run(engine_config, body)
