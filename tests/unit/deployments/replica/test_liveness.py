from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from fake_clock import FakeClock

from deployments.replica import liveness as module
from deployments.replica.liveness import MEMORY_S, EngineHungError, Liveness, Watch


class Watched:
    """A liveness that is looked at as time goes by."""

    def __init__(self, patience_s: float = 5.0) -> None:
        self.clock = FakeClock()
        self.liveness = Liveness(patience_s, self.clock)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.clock.now += 0.25
            self.liveness.look()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_an_engine_that_was_asked_and_says_nothing_hangs(watched: Watched) -> None:
    watched.liveness.ask()
    watched.wait(5.0)
    assert not watched.liveness.hung
    watched.wait(0.25)
    assert watched.liveness.hung
    assert watched.liveness.silence_s == 5.25


def test_an_engine_that_nobody_asked_may_be_silent(watched: Watched) -> None:
    watched.wait(60.0)
    assert not watched.liveness.hung


def test_a_stall_of_long_ago_is_forgotten(watched: Watched) -> None:
    def steps(seconds: float) -> None:
        for _ in range(round(seconds)):
            watched.wait(1.0)
            watched.liveness.sign()

    watched.liveness.expect(2.0)
    watched.wait(30.0)
    watched.liveness.sign()
    steps(MEMORY_S)
    assert watched.liveness.limit_s == 90.0
    steps(MEMORY_S + 31)
    assert watched.liveness.limit_s == 6.0


@pytest.mark.parametrize("sign", ["step before the answer", "answer"])
def test_any_sign_is_enough(watched: Watched, sign: str) -> None:
    watched.liveness.ask()
    watched.wait(4.0)
    watched.liveness.sign()
    watched.liveness.ask()
    watched.wait(4.0)
    assert not watched.liveness.hung


def test_steps_that_took_long_ask_for_patience(watched: Watched) -> None:
    watched.wait(3.0)
    watched.liveness.sign()
    assert (watched.liveness.longest_step_s, watched.liveness.limit_s) == (3.0, 9.0)
    watched.wait(0.25)
    watched.liveness.sign()
    watched.liveness.ask()
    watched.wait(9.0)
    assert not watched.liveness.hung
    watched.wait(0.25)
    assert watched.liveness.hung


def test_short_steps_do_not_make_impatient(watched: Watched) -> None:
    for _ in range(10):
        watched.wait(0.25)
        watched.liveness.sign()
    assert watched.liveness.limit_s == 5.0


def test_it_may_come_back_and_is_given_more_time_then(watched: Watched) -> None:
    watched.liveness.ask()
    watched.wait(7.0)
    assert watched.liveness.hung
    watched.liveness.sign()
    assert not watched.liveness.hung
    assert watched.liveness.limit_s == 21.0


@pytest.mark.parametrize("first", ["look", "sign"])
def test_time_in_which_the_watcher_stood_still_does_not_count(watched: Watched, first: str) -> None:
    watched.liveness.ask()
    watched.wait(1.0)
    watched.clock.now += 60.0
    getattr(watched.liveness, first)()
    assert not watched.liveness.hung
    assert watched.liveness.limit_s <= 6.0
    watched.liveness.ask()
    watched.wait(6.25)
    assert watched.liveness.hung


def test_patience_can_be_chosen() -> None:
    patient = Watched(patience_s=20.0)
    patient.liveness.ask()
    patient.wait(19.0)
    assert not patient.liveness.hung


class Engine:
    """Answers a probe, hangs or refuses."""

    def __init__(self) -> None:
        self.probes = 0
        self.hanging = asyncio.Event()
        self.hanging.set()
        self.error: Exception | None = None

    async def probe(self) -> None:
        self.probes += 1
        await self.hanging.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_PERIOD_S", 0.01)
    monkeypatch.setattr(module, "PROBE_AFTER_S", 0.03)


def watch(scenario: Callable[[Engine, Liveness, Watch], Awaitable[None]]) -> None:
    async def run() -> None:
        engine, liveness = Engine(), Liveness(patience_s=0.15)
        watcher = Watch(liveness, engine.probe)
        task = asyncio.create_task(watcher.run())
        try:
            await scenario(engine, liveness, watcher)
        finally:
            task.cancel()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("_impatient")
def test_an_idle_engine_is_probed_again_and_again() -> None:
    async def scenario(engine: Engine, _: Liveness, watcher: Watch) -> None:
        await until(lambda: engine.probes >= 4)
        watcher.check()
        assert not watcher.hung

    watch(scenario)


@pytest.mark.usefixtures("_impatient")
def test_a_busy_engine_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a stall of this process, which would pass for an idle engine.
    monkeypatch.setattr(module, "PROBE_AFTER_S", 0.5)

    async def scenario(engine: Engine, liveness: Liveness, watcher: Watch) -> None:
        for _ in range(150):
            liveness.sign()
            await asyncio.sleep(0.005)
        assert engine.probes == 0
        watcher.check()

    watch(scenario)


@pytest.mark.usefixtures("_impatient")
def test_a_hang_is_reported_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(engine: Engine, _: Liveness, watcher: Watch) -> None:
        engine.hanging.clear()
        # The watcher's word: a stall of this process is a silence until the watcher looks.
        await until(lambda: "the engine is hung" in caplog.text)
        with pytest.raises(EngineHungError, match="no step and no answer"):
            watcher.check()
        await asyncio.sleep(0.05)
        # The one that is out is enough.
        assert engine.probes == 1
        engine.hanging.set()
        await until(lambda: "alive again" in caplog.text)
        watcher.check()
        await asyncio.sleep(0.05)

    watch(scenario)
    said = [r.message.split(":")[0] for r in caplog.records if r.levelno == logging.ERROR]
    assert said == ["the engine is hung", "the engine is alive again"]


@pytest.mark.usefixtures("_impatient")
def test_an_engine_that_refuses_is_as_good_as_hung() -> None:
    async def scenario(engine: Engine, _: Liveness, watcher: Watch) -> None:
        engine.error = RuntimeError("Executor failed.")
        await until(lambda: watcher.hung)
        with pytest.raises(EngineHungError, match="rejects its probe: RuntimeError: Executor"):
            watcher.check()
        engine.error = None
        await until(lambda: not watcher.hung)
        watcher.check()

    watch(scenario)
