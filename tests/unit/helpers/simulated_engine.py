"""An engine and its device, with a clock of their own and known joules for every token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.energy.checks import Rest
from cluster.energy.ledger import RequestLedger
from cluster.store.load import TokenWeights

IDLE_WATTS = 60.0
TRUE_JOULES = TokenWeights(0.05, 1.0)
SAMPLE_S = 0.1


@dataclass
class Device:
    """Joules up to now; the counter shows those of the last refresh."""

    now: float = 0.0
    watts: float = IDLE_WATTS
    joules: float = 0.0
    refresh_s: float = 0.0
    source: str = "nvml"
    shown: float = 0.0
    refreshes: int = 0

    @property
    def limits(self) -> dict[str, float]:
        return {"GPU-a": 5_000.0}

    def pass_time(self, until: float) -> None:
        while self.refresh_s and (due := (self.refreshes + 1) * self.refresh_s) <= until:
            self.joules += self.watts * (due - self.now)
            self.now, self.shown = due, self.joules
            self.refreshes += 1
        self.joules += self.watts * (until - self.now)
        self.now = until

    def read(self) -> dict[str, float]:
        return {"GPU-a": self.shown if self.refresh_s else self.joules}

    def clock(self) -> float:
        return self.now


@dataclass
class Request:
    arrives: float
    prompt: int
    output: int
    prefilled: int = 0
    decoded: int = 0
    joules: float | None = field(default=None, init=False)

    @property
    def true_joules(self) -> float:
        return TRUE_JOULES.prefill * self.prompt + TRUE_JOULES.decode * self.output


@dataclass
class Engine:
    """Runs requests in steps; in each one a chunk of a prompt, and a token of every other."""

    device: Device
    ledger: RequestLedger
    slots: int = 64
    chunk: int = 512
    step_s: Callable[[int, int], float] = lambda prefill, decode: (
        0.004 + 2e-4 * prefill + 5e-4 * decode
    )
    _sampled_at: float = 0.0

    def run(self, requests: Sequence[Request], until: float = 0.0) -> None:
        waiting = sorted(requests, key=lambda r: r.arrives)
        running: list[Request] = []
        while waiting or running:
            self._admit(waiting, running)
            if not running:
                self._pass_time(waiting[0].arrives, waiting, running)
                continue
            self._step(waiting, running)
        self._pass_time(max(until, self.device.now + 1.0), waiting, running)

    def _admit(self, waiting: list[Request], running: list[Request]) -> None:
        while waiting and waiting[0].arrives <= self.device.now:
            request = waiting.pop(0)
            self.ledger.begin(id(request))
            running.append(request)

    def _pass_time(self, until: float, waiting: list[Request], running: list[Request]) -> None:
        while True:
            arrival = waiting[0].arrives if waiting else until
            event = min(until, self._sampled_at + SAMPLE_S, arrival)
            self.device.pass_time(max(event, self.device.now))
            self._admit(waiting, running)
            if self.device.now >= self._sampled_at + SAMPLE_S:
                self._sampled_at = self.device.now
                self.ledger.sample()
            if self.device.now >= until:
                return

    def _step(self, waiting: list[Request], running: list[Request]) -> None:
        in_step = running[: self.slots]
        budget = self.chunk
        plan: list[tuple[Request, int]] = []
        for request in in_step:
            chunk = min(request.prompt - request.prefilled, budget)
            budget -= chunk
            plan.append((request, chunk))
        prefill = sum(chunk for _, chunk in plan)
        decoding = [r for r, chunk in plan if r.prefilled + chunk == r.prompt]
        seconds = self.step_s(prefill, len(decoding))
        joules = TRUE_JOULES.prefill * prefill + TRUE_JOULES.decode * len(decoding)
        self.device.watts = IDLE_WATTS + joules / seconds
        self._pass_time(self.device.now + seconds, waiting, running)
        self.device.watts = IDLE_WATTS
        for request, chunk in plan:
            request.prefilled += chunk
        for request in decoding:
            prompt = request.prompt if request.decoded == 0 else 0
            request.decoded += 1
            self.ledger.tokens(id(request), prompt, 1)
        for request in [r for r in decoding if r.decoded == r.output]:
            running.remove(request)
            request.joules = self.ledger.end(id(request))


def run(
    requests: Sequence[Request], *, refresh_s: float = 0.0, slots: int = 64, chunk: int = 512
) -> tuple[Device, RequestLedger]:
    """Run them all, and a second more, in which what is late appears."""
    device = Device(refresh_s=refresh_s)
    rest = Rest(IDLE_WATTS, refresh_s)
    ledger = RequestLedger(device, rest=rest, slots=slots, clock=device.clock)
    ledger.set_weights(TRUE_JOULES)
    Engine(device, ledger, slots, chunk).run(requests)
    ledger.sample()
    return device, ledger
