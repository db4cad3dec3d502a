"""The routes that everything else is for, on bare ASGI: a body in, a decision, an answer out.

A framework's request and response objects cost more here than the decision does. What is learnt of
an answer, and what is logged, waits until the answer has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from deployments.config.app import RouterArgs
from deployments.links.fairness import Turns
from deployments.links.frames import Endpoint, Flag, Frame, with_member
from deployments.router.access.caller import Caller
from deployments.router.access.idempotency import Idempotency, request_key
from deployments.router.blame.suspects import Suspicion
from deployments.router.decision.decide import Decider
from deployments.router.decision.query import Query
from deployments.router.delivery.cascade import Cascade
from deployments.router.delivery.failover import Delivery
from deployments.router.delivery.sequential import Sequential
from deployments.router.edge.request_id import request_id_of
from deployments.router.endpoints.sending import Sending
from deployments.router.observe.instruments import Instruments, Measured
from deployments.router.observe.routing_report import decision_record, routing_object
from deployments.router.sync.decision_log import DecisionLog
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.body import read_body
from deployments.router.wire.errors import as_api_error, send_error
from deployments.router.wire.limits.body import parse_bounded
from deployments.router.wire.openai import ParsedRequest
from deployments.router.wire.paths import ENDPOINTS
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.policies.cascade import Ladder
from scheduler.sequential.steps import Plan
from scheduler.types import Decision

logger = logging.getLogger("ray.serve")

DECISIONS_A_TURN = 4
"""Of the event loop: a decision takes about a millisecond."""
EVENT_STREAM = b"text/event-stream; charset=utf-8"


class Recorded(NamedTuple):
    """What the record keeps of a request, where contents are recorded.

    Attributes:
        request: The body as the client sent it.
        history: As for `DecisionLog.asked`.
    """

    request: bytes
    history: bytes = b""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request."""

    parsed: ParsedRequest
    endpoint: Endpoint
    body: bytes
    caller: Caller
    measured: Measured
    request_id: str
    recorded: Recorded


class Completions:
    """An ASGI application for `POST` on the paths of `ENDPOINTS`.

    Args:
        args: Limits.
        decider: Decides, and learns from the answers.
        log: Takes every decision.
        idempotency: Knows requests that come again, and which router this is.
        instruments: Metrics and traces.
    """

    def __init__(
        self,
        args: RouterArgs,
        decider: Decider,
        log: DecisionLog,
        idempotency: Idempotency,
        instruments: Instruments,
    ) -> None:
        self._args = args
        self._decider = decider
        self._log = log
        self._idempotency = idempotency
        self._instruments = instruments
        self._turns = Turns(DECISIONS_A_TURN)
        self._settling: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        endpoint = ENDPOINTS[scope["path"]]
        measured = self._instruments.begin(scope, endpoint)
        try:
            body = await read_body(scope, receive, self._args)
            measured.received()
            await self._turns.turn()
            parsed = parse_bounded(body, endpoint, self._decider.config.limits)
            parsed = self._decider.named(parsed)
            key = request_key(scope, body)
        except Exception as refusal:
            await self._refuse(refusal, measured, send)
            return
        request_id = request_id_of(scope["headers"])
        recorded = scope.get("recorded") or Recorded(body)
        asked = _Asked(parsed, endpoint, body, caller_of(scope), measured, request_id, recorded)
        if key is None:
            await self._generate(asked, send)
        else:
            await self._idempotency.answer(key, partial(self._generate, asked), send)

    async def _generate(self, asked: _Asked, send: Send) -> bool:
        """Have a model answer; says whether the answer was whole."""
        parsed, caller, measured = asked.parsed, asked.caller, asked.measured
        suspicion = Suspicion(asked.body, caller.key, pooled=parsed.pooled)
        try:
            self._decider.directory.blame.admit(suspicion)
            query = Query(parsed, caller)
            decision = await self._decide(query, measured)
        except Exception as refusal:
            await self._refuse(refusal, measured, send)
            return False
        measured.decided(parsed, decision)
        self._decider.dispatched(decision)
        self._log.asked(decision.decision_id, *asked.recorded)
        delivery = _kind_of_delivery(decision)(
            decision,
            parsed,
            asked.endpoint,
            asked.body,
            self._decider.directory,
            self._idempotency.router_id,
            self._args.max_attempts,
            caller.key,
            measured.trace,
            suspicion,
        )
        exchange = partial(_stream, self._args.keep_alive_s) if parsed.stream else _answer
        sending = Sending(send, partial(self._log.answered, decision.decision_id))
        error: BaseException | None = None
        try:
            async with asyncio.timeout(self._args.request_timeout_s) as time_limit:
                with sending.watched(self._args.stalled_client_s, time_limit):
                    await exchange(delivery, sending)
        except TimeoutError:
            late = error = sending.stall or self._timed_out(delivery)
            await sending.fail(late)
        except Exception as unfinished:
            error = unfinished
            self._decider.note_refusal(as_api_error(error))
            await sending.fail(error)
        except BaseException as gone:
            # Many clients hang up on the end marker; the rest of the others has no reader.
            error = None if sending.done else gone
            raise
        finally:
            if error is None or not delivery.settles_late:
                self._settle(asked, query, delivery, error)
            else:
                # An empty context belongs to no request: Serve cancels what the request asked.
                task = asyncio.create_task(
                    self._settle_late(asked, query, delivery, error), context=Context()
                )
                self._settling.add(task)
                task.add_done_callback(self._settling.discard)
        return error is None

    async def _decide(self, query: Query, measured: Measured) -> Decision:
        """Decide who answers, once a model is up that can."""
        wanted, timeout_s = query.parsed.model, self._args.request_timeout_s
        while True:
            if await self._decider.waker.wake(wanted, timeout_s, query.key or ""):
                measured.received()
            counts = await self._decider.count(query.parsed)
            await self._turns.turn()
            try:
                return self._decider.decide(query, counts)
            except NoCandidateError as error:
                sleeper = self._decider.waker.last_resort(error.excluded)
                if sleeper is None:
                    raise
                wanted = sleeper

    async def _settle_late(
        self, asked: _Asked, query: Query, delivery: Delivery, error: BaseException
    ) -> None:
        """Settle an answer without an end, once its replica has said what it took."""
        try:
            await delivery.settle()
        finally:
            self._settle(asked, query, delivery, error)

    def _settle(
        self, asked: _Asked, query: Query, delivery: Delivery, error: BaseException | None
    ) -> None:
        if asked.caller.account:
            asked.caller.account.charge(
                delivery.decision, delivery.observation, error, delivery.progress
            )
        self._take_note(asked, query, delivery, error)

    def _timed_out(self, delivery: Delivery) -> ApiError:
        message = (
            f"model {delivery.model!r} did not finish within {self._args.request_timeout_s:g} s"
        )
        return ApiError(504, message, code="timeout")

    async def refuse(self, error: Exception, scope: Scope, send: Send) -> None:
        """Answer a request with an error that could not even become a chat completion."""
        await self._refuse(error, self._instruments.begin(scope, "chat"), send)

    async def _refuse(self, error: Exception, measured: Measured, send: Send) -> None:
        if not isinstance(error, ApiError | InvalidRequestError | NoCandidateError):
            logger.error("a request failed", exc_info=error)
        refusal = as_api_error(error)
        self._decider.note_refusal(refusal)
        await send_error(refusal, send)
        measured.refused(refusal)

    def _take_note(
        self,
        asked: _Asked,
        query: Query,
        delivery: Delivery,
        error: BaseException | None,
    ) -> None:
        decision = delivery.decision
        text = None
        if isinstance(error, Exception):
            text = str(as_api_error(error))
            if not isinstance(error, ApiError):
                logger.error(
                    "request %s (%s) failed",
                    decision.decision_id,
                    asked.request_id,
                    exc_info=error,
                )
        elif error is not None:
            text = "the client went away"
        try:
            record = decision_record(
                decision, delivery.observation, delivery.attempts, error=text, key=delivery.key
            )
            self._log.add(record | {"request_id": asked.request_id or None})
            # An answer that several gave says nothing of any of them.
            undisturbed = all(attempt.error is None for attempt in delivery.attempts)
            stopped = delivery.observation is not None and delivery.observation.stopped
            if undisturbed and (text is None or stopped):
                for observation in (*delivery.rejected, delivery.observation):
                    self._decider.learn(asked.parsed, decision, observation)
            if text is None and delivery.rejected_by:
                self._decider.learn_rejections(asked.parsed, delivery.rejected_by, asked.caller.key)
            if text is None and delivery.observation is not None:
                self._decider.answered(query, delivery.observation)
            asked.measured.finished(delivery, error)
        except Exception:
            # The client has its answer; nothing may come behind it.
            logger.exception("request %s is not recorded", decision.decision_id)


def _kind_of_delivery(decision: Decision) -> type[Delivery]:
    """As the policy reports: most requests ask one model, and pay nothing for the others."""
    if not decision.reports:
        return Delivery
    if decision.report(Ladder):
        return Cascade
    return Sequential if decision.report(Plan) else Delivery


def caller_of(scope: Scope) -> Caller:
    """Who asks, as the access guard found out."""
    return Caller(scope["headers"], scope.get("account"))


async def _answer(delivery: Delivery, sending: Sending) -> None:
    data = _with_routing(await delivery.answer(), delivery)
    length = str(len(data)).encode()
    await sending.start(
        delivery, (b"content-type", b"application/json"), (b"content-length", length)
    )
    await sending.body(data, more=False)


async def _stream(keep_alive_s: float | None, delivery: Delivery, sending: Sending) -> None:
    reported_in = Flag.USAGE if delivery.parsed.include_usage else Flag.FINISH
    frames: AsyncGenerator[Frame]

    async def start() -> None:
        await sending.start(delivery, (b"content-type", EVENT_STREAM))

    with sending.kept_alive(keep_alive_s, start):
        async with aclosing(delivery.frames()) as frames:
            # The status line waits until an engine has taken the request, so that a rejection
            # keeps its status; and no longer than a client waits for a sign of life.
            async for data, _, flags in frames:
                if not sending.started:
                    await start()
                if flags & Flag.ACCEPTED:
                    continue
                chunk = _with_routing(data, delivery) if flags & reported_in else data
                sending.done = bool(flags & Flag.DONE)
                await sending.body(chunk, more=True)
    await sending.body(b"", more=False)


def _with_routing(data: bytes, delivery: Delivery) -> bytes:
    report = routing_object(
        delivery.decision, delivery.observation, delivery.attempts, delivery.directory.grid
    )
    return with_member(data, b"routing", orjson.dumps(report))
