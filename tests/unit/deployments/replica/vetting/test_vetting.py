"""Which verdicts are kept; tests/integration/test_vetting.py has vLLM's own compilers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fake_clock import FakeClock

from deployments.config.replica import VettingLimits
from deployments.replica.vetting import vetting as vetting_module
from deployments.replica.vetting.trial import Template, Trial
from deployments.replica.vetting.vetting import PASSING_S, Vetting, VettingStarvedError

COMMAND = (sys.executable, str(Path(__file__).with_name("stub_process.py")))
SECONDS = 0.4


class Trials:
    """Counts the processes that are forked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        fork = Template.fork

        async def counted(template: Template, limits: VettingLimits) -> Trial:
            self.count += 1
            return await fork(template, limits)

        monkeypatch.setattr(Template, "fork", counted)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    return Trials(monkeypatch)


def run(body: Callable[[Vetting, FakeClock], Awaitable[None]], seconds: float = 20.0) -> None:
    async def main() -> None:
        clock = FakeClock(1_000.0)
        vetting = Vetting(None, VettingLimits(seconds=seconds), COMMAND, clock)
        try:
            await body(vetting, clock)
        finally:
            await vetting.close()

    asyncio.run(main())


@pytest.mark.parametrize(("regex", "reason"), [("fine", ""), ("wrong", "no expression")])
def test_what_follows_from_the_constraint_is_kept(trials: Trials, regex: str, reason: str) -> None:
    async def body(vetting: Vetting, clock: FakeClock) -> None:
        for _ in range(2):
            verdict = await vetting.check({"regex": regex})
            assert (verdict.settled is None, verdict.reason) == (bool(reason), reason)
            clock.now += 100 * PASSING_S
        assert trials.count == 1

    run(body)


@pytest.mark.parametrize(("regex", "costly"), [("fine", False), ("computes", True)])
def test_what_takes_long_to_compile_is_told_from_the_rest(
    trials: Trials, regex: str, costly: bool
) -> None:
    async def body(vetting: Vetting, clock: FakeClock) -> None:
        verdicts = [await vetting.check({"regex": regex}) for _ in range(2)]
        assert [verdict.costly for verdict in verdicts] == [costly] * 2
        assert trials.count == 1

    run(body)


def test_what_the_engine_found_out_is_the_verdict_for_a_while(trials: Trials) -> None:
    async def body(vetting: Vetting, clock: FakeClock) -> None:
        assert (await vetting.check({"regex": "fine"})).settled is not None
        vetting.reject({"regex": "fine"}, "costs too much")
        assert (await vetting.check({"regex": "fine"})).reason == "costs too much"
        clock.now += PASSING_S
        assert (await vetting.check({"regex": "fine"})).settled is not None

    run(body)


@pytest.mark.parametrize(
    ("regex", "reason"),
    [
        ("killed", "breaks its compiler, or needs more"),
        ("large", "needs more than"),
        ("panic", "breaks its compiler: RuntimeError"),
    ],
)
def test_what_also_depends_on_the_machine_is_tried_again_after_a_while(
    trials: Trials, regex: str, reason: str
) -> None:
    async def body(vetting: Vetting, clock: FakeClock) -> None:
        for tried in (1, 2):
            for _ in range(2):
                assert reason in (await vetting.check({"regex": regex})).reason
                clock.now += PASSING_S - 1
                assert trials.count == tried

    run(body)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_a_trial_that_hardly_got_a_processor_is_not_rejected_for_its_time(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(Trial, "processor_s", lambda _: share * SECONDS)

    async def body(vetting: Vetting, _: FakeClock) -> None:
        for tried in (1, 2):
            with pytest.raises(VettingStarvedError):
                await vetting.check({"regex": "endless"})
            assert trials.count == tried

    run(body, SECONDS)


@pytest.mark.parametrize("share", [0.26, 0.75])
def test_a_verdict_of_time_on_a_busy_machine_is_its_senders_alone(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(Trial, "processor_s", lambda _: share * SECONDS)

    async def body(vetting: Vetting, _: FakeClock) -> None:
        for tried in (1, 2):
            assert "takes more than 0.4 s" in (await vetting.check({"regex": "endless"})).reason
            assert trials.count == tried

    run(body, SECONDS)


def test_a_trial_that_used_its_time_is_rejected_for_a_while(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trial, "processor_s", lambda _: 0.95 * SECONDS)

    async def body(vetting: Vetting, clock: FakeClock) -> None:
        for tried in (1, 2):
            for _ in range(2):
                assert "takes more than 0.4 s" in (await vetting.check({"regex": "endless"})).reason
                clock.now += PASSING_S - 1
                assert trials.count == tried

    run(body, SECONDS)


def test_what_is_kept_is_counted_once(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting_module, "KEPT_BYTES", 2_000)

    async def body(vetting: Vetting, clock: FakeClock) -> None:
        await vetting.check({"regex": "wrong"})
        # Each of these takes the place of the previous one.
        for _ in range(60):
            await vetting.check({"regex": "large"})
            clock.now += 2 * PASSING_S
        await vetting.check({"regex": "wrong"})
        assert trials.count == 61

    run(body)
