from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nvml_double import install
from ray.exceptions import ActorDiedError

from cluster.energy import meter as device_meter
from cluster.energy.checks import Rest
from cluster.energy.ledger import RequestLedger
from cluster.energy.meter import (
    LEASE_S,
    Batch,
    DeviceMeter,
    LocalMeter,
    MeterStatus,
    Receipt,
    SharedMeter,
)
from cluster.energy.nvml import GpuNotFoundError, NvmlCounter
from cluster.store.load import TokenWeights

REST = Rest(50.0, 0.0)


class Card:
    """A GPU and a clock that the test moves."""

    def __init__(self, nvml: SimpleNamespace, uuid: str = "GPU-a") -> None:
        self._nvml = nvml
        self._uuid = uuid
        self.now = 0.0

    def draw(self, joules: float, seconds: float = 1.0) -> None:
        self.now += seconds
        self._nvml.energy[self._uuid] += round(joules * 1e3)

    def meter(self) -> DeviceMeter:
        return DeviceMeter(self._uuid, clock=lambda: self.now)


class Handle:
    """A handle of an actor that is an object of this process."""

    def __init__(self, actor: object) -> None:
        self.actor = actor
        self.broken: Exception | None = None
        self.hangs = False

    def __getattr__(self, name: str) -> SimpleNamespace:
        async def call(*arguments: Any) -> Any:
            if self.broken:
                raise self.broken
            if self.hangs:
                await asyncio.sleep(60)
            return await getattr(self.actor, name)(*arguments)

        def remote(*arguments: Any) -> asyncio.Task[Any]:
            # Begins in the order of the calls, as an actor does, whoever waits for it.
            task = asyncio.get_running_loop().create_task(call(*arguments))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
            return task

        return SimpleNamespace(remote=remote)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    async def measured(counter: NvmlCounter) -> Rest:
        return REST

    monkeypatch.setattr(device_meter, "measure_rest", measured)
    return install(monkeypatch)


@pytest.fixture
def card(nvml: SimpleNamespace) -> Card:
    return Card(nvml)


def test_a_local_meter_is_a_ledger(card: Card) -> None:
    counter = NvmlCounter(["GPU-a"])
    ledger = RequestLedger(counter, rest=REST, clock=lambda: card.now)

    async def use(meter: LocalMeter) -> tuple[float | None, MeterStatus]:
        meter.set_weights(TokenWeights(1.0, 4.0))
        meter.begin("a")
        meter.begin("dropped")
        card.draw(50 + 90)
        meter.tokens("a", 4, 1)
        meter.tokens("dropped", 0, 1)
        meter.drop("dropped")
        await meter.sample()
        return await meter.end("a"), meter.status

    joules, status = asyncio.run(use(LocalMeter(ledger)))
    assert joules == pytest.approx(60)
    assert (status.attributed_joules, status.idle_joules) == pytest.approx((90, 50))
    assert status == MeterStatus(
        source="nvml",
        rest=REST,
        watts={"GPU-a": 140},
        attributed_joules=status.attributed_joules,
        idle_joules=status.idle_joules,
    )


def test_a_local_meter_measures_the_rest_first(nvml: SimpleNamespace) -> None:
    meter = asyncio.run(LocalMeter.open(NvmlCounter(["GPU-a"]), slots=4))
    assert meter.status.rest == REST


def test_a_gpu_that_is_not_there_has_no_meter(nvml: SimpleNamespace) -> None:
    with pytest.raises(GpuNotFoundError):
        DeviceMeter("GPU-x")


def shared(scenario: Callable[[Handle, SharedMeter, SharedMeter], Any], card: Card) -> Any:
    """Two replicas on one device."""

    async def play() -> Any:
        handle = Handle(card.meter())
        first = await SharedMeter.open("first", [handle])
        second = await SharedMeter.open("second", [handle])
        return await scenario(handle, first, second)

    return asyncio.run(play())


def test_replicas_share_a_device_by_their_tokens(card: Card) -> None:
    async def scenario(_: Handle, first: SharedMeter, second: SharedMeter) -> None:
        # The keys of two replicas are their own.
        first.begin("1")
        second.begin("1")
        await asyncio.sleep(0)
        card.draw(50 + 100)
        first.tokens("1", 20, 1)  # 40 units
        second.tokens("1", 0, 3)
        await second.sample()
        assert await first.end("1") == pytest.approx(40)
        second.tokens("1", 0, 1)
        card.draw(50 + 5)
        assert await second.end("1") == pytest.approx(60 + 5)
        status = second.status
        assert (status.source, status.rest, status.sharers) == ("nvml", REST, 2)
        assert status.attributed_joules == pytest.approx(105)
        assert status.idle_joules == 100
        assert status.watts == {"GPU-a": 55}
        assert status.fault is None

    shared(scenario, card)


def test_joules_per_token_are_not_mixed_with_mere_ratios(card: Card) -> None:
    async def scenario(_: Handle, first: SharedMeter, second: SharedMeter) -> None:
        async def split() -> list[float | None]:
            for meter in (first, second):
                meter.begin("1")
            await asyncio.sleep(0)
            card.draw(50 + 100)
            first.tokens("1", 0, 3)
            second.tokens("1", 0, 1)
            await first.sample()
            await second.sample()
            card.draw(50)
            return [await first.end("1"), await second.end("1")]

        first.set_weights(TokenWeights(0.01, 0.2))
        assert await split() == [pytest.approx(75), pytest.approx(25)]
        second.set_weights(TokenWeights(0.03, 0.6))
        await second.sample()
        assert await split() == [pytest.approx(50), pytest.approx(50)]

    shared(scenario, card)


def test_a_replica_that_is_gone_is_forgotten(card: Card) -> None:
    async def scenario(_: Handle, first: SharedMeter, second: SharedMeter) -> None:
        first.begin("left behind")
        second.begin("1")
        await asyncio.sleep(0)
        card.draw(50 + 100)
        await second.sample()
        card.draw(50 * LEASE_S, seconds=LEASE_S)
        await second.sample()
        assert second.status.sharers == 1
        card.draw(50 + 7)
        assert await second.end("1") == pytest.approx(50 + 7)
        await first.sample()  # joins again
        assert first.status.sharers == 2

    shared(scenario, card)


def test_a_request_that_is_dropped_is_gone(card: Card) -> None:
    async def scenario(_: Handle, first: SharedMeter, second: SharedMeter) -> None:
        first.begin("1")
        first.drop("1")
        second.begin("1")
        await asyncio.sleep(0)
        card.draw(50 + 8)
        assert await second.end("1") == pytest.approx(8)

    shared(scenario, card)


@pytest.mark.parametrize("failure", ["dies", "hangs"])
def test_a_meter_that_is_away_costs_the_joules_only(
    failure: str, card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_meter, "ANSWER_TIMEOUT_S", 0.05)

    async def scenario(handle: Handle, first: SharedMeter, _: SharedMeter) -> None:
        first.begin("1")
        await first.sample()
        handle.hangs = failure == "hangs"
        handle.broken = ActorDiedError() if failure == "dies" else None
        card.draw(50 + 8)
        assert await first.end("1") is None
        assert first.status.fault is not None
        assert first.status.fault.startswith("meter: ")
        await first.sample()
        assert len(caplog.records) == 1
        waiting = first.end("nobody waits for it")
        with pytest.raises(StopIteration):
            waiting.send(None)
        # It was restarted, and knows nothing any more but what the replica tells it.
        handle.actor, handle.hangs, handle.broken = card.meter(), False, None
        monkeypatch.setattr(device_meter, "measure_rest", None)
        first.begin("2")
        await first.sample()
        assert first.status.rest == REST
        assert await first.end("2") is None
        first.begin("3")
        await asyncio.sleep(0)
        card.draw(50 + 9)
        assert await first.end("3") == pytest.approx(9)
        assert first.status.fault is None

    shared(scenario, card)


def test_a_later_replica_finds_out_that_there_was_no_rest(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([Rest(90.0), Rest(60.0), Rest(75.0)])

    async def measured(counter: NvmlCounter) -> Rest:
        return next(found)

    monkeypatch.setattr(device_meter, "measure_rest", measured)

    async def join() -> list[float]:
        meter = card.meter()
        statuses = [await meter.join(replica) for replica in ("a", "b", "c")]
        await meter.report("a", Batch(begun=("1",)))
        statuses.append(await meter.join("d"))  # not at rest: nothing is measured
        return [status.rest.watts for status in statuses]

    assert asyncio.run(join()) == [90, 60, 60, 60]


def test_tensor_parallel_sums_its_devices(nvml: SimpleNamespace) -> None:
    cards = [Card(nvml, uuid) for uuid in ("GPU-a", "GPU-b")]

    async def play() -> None:
        handles = [Handle(card.meter()) for card in cards]
        meter = await SharedMeter.open("r", handles)
        meter.begin("1")
        await asyncio.sleep(0)
        for card, joules in zip(cards, (10, 20), strict=True):
            card.draw(50 + joules)
        meter.tokens("1", 5, 1)
        assert await meter.end("1") == pytest.approx(30)
        status = meter.status
        assert status.rest.watts == 100
        assert status.attributed_joules == pytest.approx(30)
        assert set(status.watts) == {"GPU-a", "GPU-b"}
        meter.begin("2")
        await asyncio.sleep(0)
        cards[0].draw(50)
        cards[1].draw(-5)
        assert await meter.end("2") is None
        assert meter.status.faults == {"fell": 1}

    asyncio.run(play())


def test_a_meter_answers_each_end_with_its_joules(card: Card) -> None:
    async def play() -> Receipt | None:
        meter = card.meter()
        assert await meter.report("r", Batch(begun=("1",))) is None
        await meter.join("r")
        await meter.report("r", Batch(begun=("1",)))
        card.draw(50 + 3)
        return await meter.report("r", Batch(ended=("1", "unknown")))

    receipt = asyncio.run(play())
    assert receipt is not None
    assert receipt.joules == {"1": pytest.approx(3), "unknown": None}
