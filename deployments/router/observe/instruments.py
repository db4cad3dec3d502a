"""One request as metrics and spans see it: begun, decided, then refused or finished."""

from __future__ import annotations

import time

from starlette.types import Scope

from deployments.links.frames import Endpoint
from deployments.router.delivery.failover import Delivery
from deployments.router.observe.metrics import CLIENT_GONE, Durations, RequestMetrics
from deployments.router.tracing import RequestTrace
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.errors import as_api_error
from deployments.router.wire.openai import ParsedRequest
from deployments.tracing import open_tracer
from scheduler.types import Decision


class Instruments:
    """Those of one router.

    Args:
        metrics: Count every request.
    """

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics
        self._tracer = open_tracer()

    def begin(self, scope: Scope, endpoint: Endpoint) -> Measured:
        """A request has come."""
        trace = RequestTrace(self._tracer, scope, endpoint) if self._tracer else None
        return Measured(self._metrics, trace)


class Measured:
    """One request.

    Attributes:
        trace: Its spans, `None` where tracing is off.
    """

    __slots__ = ("_arrived", "_decided", "_metrics", "_received", "trace")

    def __init__(self, metrics: RequestMetrics, trace: RequestTrace | None) -> None:
        self.trace = trace
        self._metrics = metrics
        self._arrived = self._received = self._decided = time.perf_counter()

    def received(self) -> None:
        """The whole body is there."""
        self._received = time.perf_counter()

    def decided(self, parsed: ParsedRequest, decision: Decision) -> None:
        """It is known who answers."""
        self._decided = time.perf_counter()
        if self.trace:
            took_ns = int(1e9 * (self._decided - self._received))
            self.trace.decided(parsed, decision, time.time_ns() - took_ns)

    def refused(self, error: ApiError) -> None:
        """It goes to no model."""
        self._metrics.refused(error)
        if self.trace:
            self.trace.finish(None, error.status, error)

    def finished(self, delivery: Delivery, error: BaseException | None) -> None:
        """The answer has left, or an error in its place.

        Args:
            delivery: Of the answer.
            error: What went wrong; no `Exception` where the client went away.
        """
        status = 200
        if isinstance(error, Exception):
            refusal = as_api_error(error)
            status = refusal.status
            if status == 429:
                self._metrics.refused(refusal)
        elif error is not None:
            status = CLIENT_GONE
        durations = Durations(self._decided - self._received, time.perf_counter() - self._arrived)
        observation = delivery.observation
        answers = [*delivery.rejected, *((observation,) if observation else ())]
        self._metrics.finished(delivery.decision, answers, delivery.attempts, durations, status)
        if self.trace:
            self.trace.finish(observation, status, error)
