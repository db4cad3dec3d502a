"""Sends a request to one replica of a model and brings back bytes and what it really took.

One try. Going on elsewhere when it breaks is `failover`; the caller says how long it may take.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from deployments.links.client import Link, LinkBrokenError
from deployments.links.frames import (
    QUEUE_FULL,
    Flag,
    Frame,
    ModelRequest,
    Reply,
    decode_observation,
)
from deployments.links.pool import LinkPool
from deployments.links.unread import Late, SlowReaderError
from deployments.router.blame.judge import TRIAL_S, Blame
from deployments.router.blame.suspects import Break, Finding, Run, Suspicion, handle_place
from deployments.router.model_entry import ModelEntry
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode
from scheduler.costs.observations import Observation

ENGINE_DEAD = ("See stack trace (above)", "EngineCore encountered an issue", "EngineDeadError")
"""What vLLM says to every request of an engine core that died, whose process lives on."""
OWN_CODES = frozenset({ErrorCode.CONSTRAINT_REJECTED, ErrorCode.CONSTRAINT_NOT_TRIED})
"""Types of error objects that a replica gives in the place of its engine."""
REJECTIONS = {
    HTTPStatus.TOO_MANY_REQUESTS.value: (429, ErrorCode.QUEUE_FULL),
    HTTPStatus.NOT_IMPLEMENTED.value: (400, ErrorCode.UNSUPPORTED),
}
"""Statuses of vLLM that say more than that a request is wrong -> ours."""
CLEAR_PERIOD_S = 0.05
logger = logging.getLogger("ray.serve")


class ModelBrokeError(ApiError):
    """The model did not do what it was asked; another replica or model may.

    Attributes:
        refused: It has not begun and is not to blame: it is going away, or full.
        how: It broke.
        finding: Whose fault it is.
    """

    refused = False
    how = Break.ANSWERED
    finding = Finding.INNOCENT


class ModelRefusedError(ApiError):
    """The model says that the request is wrong."""


class ModelFullError(ModelBrokeError):
    """The replica has as many requests as it takes."""

    refused = True


@dataclass(slots=True)
class Dispatch:
    """One request on its way to one model.

    Attributes:
        avoid: Replicas that are not asked while there are others.
        prefer: The replica that has the beginning of the prompt in its cache, if one has.
        suspicion: The request as far as blame goes, `None` for one of the router's own.
        blame: Decides whose fault a break is.
        observation: What it took, `None` until the model said so.
        replica_id: Where it went, `None` until it is known.
    """

    entry: ModelEntry
    request: ModelRequest
    links: LinkPool
    avoid: Collection[str] = ()
    prefer: str | None = None
    suspicion: Suspicion | None = None
    blame: Blame = field(default_factory=Blame)
    observation: Observation | None = field(default=None, init=False)
    replica_id: str | None = field(default=None, init=False)
    _late: Late = field(default_factory=Late, init=False)

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ModelBrokeError: The model broke.
            ApiError: It refused the request.
        """
        async with self.blame.trial(self.suspicion):
            link = await self._link()
            with self._taken(), self._under_way(link):
                status, data, observation = await (
                    link.answer(self.request, self._late) if link else self._answer_over_handle()
                )
                if status != 200:
                    if observation:
                        self._observe(observation)
                    raise refused(data, self.entry.model)
                self._observe(observation)
                return data

    async def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer.

        The measurement is taken out into `observation`. Ends without a frame with FINISH only by
        raising, so that a broken stream cannot pass for a whole one.

        Raises:
            ModelBrokeError: The model broke, before or after the first frame.
            ApiError: It refused the request.
        """
        finished = False
        async with self.blame.trial(self.suspicion) as passed:
            link = await self._link()
            stream = link.stream(self.request, self._late) if link else self._stream_over_handle()
            with self._taken(), self._under_way(link) as run:
                async with aclosing(stream):
                    async for frame in stream:
                        data, _, flags = frame
                        if flags & Flag.ERROR:
                            raise refused(data, self.entry.model)
                        if flags & Flag.ACCEPTED:
                            yield frame
                            continue
                        if run and not run.generating:
                            self.blame.generates(run)
                            passed()
                        if flags & Flag.OBSERVATION:
                            self._observe(data)
                            continue
                        finished = finished or bool(flags & Flag.FINISH)
                        if flags & Flag.DONE and not finished:
                            break
                        yield frame
                if not finished:
                    raise ModelBrokeError(
                        503,
                        f"model {self.entry.model!r} stopped without a finish reason",
                        code="stream_broken",
                    )

    @property
    def cancelled(self) -> bool:
        """It was cancelled on its way over a link."""
        return self._late.observation is not None

    async def stopped(self) -> Observation | None:
        """What it took until it was cancelled; `None` where the replica does not say.

        Waits for the replica, not for long. Serve's handle brings nothing after a cancellation.
        """
        if self.observation is None and self._late.observation is not None:
            data = await self._late.observation
            if data:
                self._observe(data)
        return self.observation

    async def _link(self) -> Link | None:
        link = self._clear_link()
        if link is None and self.suspicion and self.suspicion.fled:
            # Its replica died of another request, which is not to be met again.
            until = time.monotonic() + TRIAL_S
            while self._only_trials() and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(CLEAR_PERIOD_S)
            link = self._clear_link()
        if link is None:
            link = self.links.choose(self.entry.model, self.avoid, self.prefer)
        self.replica_id = link.replica_id if link else None
        return link

    def _clear_link(self) -> Link | None:
        avoid = {*self.avoid, *self.blame.trials()}
        if self.suspicion and self.suspicion.breaks:
            avoid |= self.blame.refuges()
        return self.links.choose(self.entry.model, avoid, self.prefer)

    def _only_trials(self) -> bool:
        return self._clear_link() is None and self.links.usable(self.entry.model, self.avoid) > 0

    def _taken(self) -> AbstractContextManager[None]:
        request = self.request
        return self.entry.taken(request.priority, request.sequences, request.caller)

    @contextmanager
    def _under_way(self, link: Link | None) -> Iterator[Run | None]:
        run = None
        if self.suspicion:
            place = link.replica_id if link else handle_place(self.entry.model)
            run = self.blame.enter(self.suspicion, self.entry.model, place)
        try:
            yield run
        except ModelBrokeError as error:
            self._judge(error, run, link)
            raise
        except SlowReaderError as error:
            raise ApiError(408, str(error), code="slow_reader") from error
        except (LinkBrokenError, RayError, RayServeException) as error:
            broke = self._broke(error)
            self._judge(broke, run, link)
            raise broke from error
        except ApiError:
            # The engine says what is wrong with the request.
            if run:
                self.blame.ended(run)
            raise
        else:
            if run:
                self.blame.worked(run)
            if link:
                link.breaker.worked()
        finally:
            if run:
                self.blame.left(run)

    def _judge(self, error: ModelBrokeError, run: Run | None, link: Link | None) -> None:
        if error.refused:
            if run:
                self.blame.ended(run)
            return
        if run:
            doubted = link.breaker.doubted if link else None
            others = link.others if link else 0
            error.finding = self.blame.broke(
                run, error.how, str(error), others=others, doubted=doubted
            )
        if link and error.how is Break.DIED:
            link.breaker.lost()
        elif link and self.suspicion:
            link.breaker.broke(self.suspicion.fingerprint.kind)

    async def _answer_over_handle(self) -> Reply:
        response = self.entry.handle(stream=False).remote(self.request, avoid=tuple(self.avoid))
        answered = False
        try:
            reply: Reply = await response
            answered = True
        finally:
            # The client is gone, and the model would generate to the end.
            if not answered:
                response.cancel()
        return reply

    async def _stream_over_handle(self) -> AsyncGenerator[Frame]:
        stream = self.entry.handle(stream=True).remote(self.request, avoid=tuple(self.avoid))
        ended = False
        try:
            async for frame in stream:
                yield frame
            ended = True
        finally:
            if not ended:
                stream.cancel()

    def _observe(self, data: bytes) -> None:
        self.observation = decode_observation(data)
        self.replica_id = self.observation.replica_id

    def _broke(self, error: Exception) -> ModelBrokeError:
        cause = str(error).strip().splitlines()
        broke = ModelBrokeError(
            503,
            f"model {self.entry.model!r} failed: {type(error).__name__}: "
            f"{cause[-1] if cause else ''}",
            code="model_failed",
            retry_after_s=5,
        )
        if isinstance(error, LinkBrokenError):
            broke.refused = error.refused
            answered = Break.FAULTLESS if error.lost else Break.ANSWERED
            broke.how = Break.DIED if error.died else answered
        elif isinstance(error, RayTaskError):
            broke.how = Break.ANSWERED
        else:
            broke.how = Break.DIED if isinstance(error, RayActorError) else Break.FAULTLESS
        return broke


def refused(data: bytes, model: str = "") -> ApiError:
    """An error object of vLLM as ours, in the service's own vocabulary.

    What vLLM says of its own faults is for its log, which it points to.

    Args:
        data: The object.
        model: Who answered so.
    """
    error = orjson.loads(data)["error"]
    status, message, kind = error["code"], str(error["message"]), error.get("type")
    if kind == QUEUE_FULL:
        return ModelFullError(429, message, code=ErrorCode.QUEUE_FULL)
    if kind == ErrorCode.VETTING_UNAVAILABLE:
        return ModelFullError(503, message, code=ErrorCode.VETTING_UNAVAILABLE, retry_after_s=5)
    if kind in OWN_CODES:
        return ModelRefusedError(status, message, param=error.get("param"), code=kind)
    if status in REJECTIONS:
        ours, code = REJECTIONS[status]
        return ModelRefusedError(ours, message, param=error.get("param"), code=code)
    # Not found can only be the model, which the router names.
    if status in range(400, 500) and status != HTTPStatus.NOT_FOUND:
        code = ErrorCode.REJECTED_BY_ENGINE
        return ModelRefusedError(400, message, param=error.get("param"), code=code)
    logger.error("model %r answers %s: %s", model, status, message)
    return _engine_fault(status, message, model)


def _engine_fault(status: int, message: str, model: str) -> ModelBrokeError:
    if any(sign in message for sign in ENGINE_DEAD) or status == HTTPStatus.SERVICE_UNAVAILABLE:
        text = f"model {model!r} failed: its engine is down"
        died = ModelBrokeError(503, text, code=ErrorCode.MODEL_FAILED, retry_after_s=5)
        died.how = Break.DIED
        return died
    text = f"model {model!r} failed on this request"
    return ModelBrokeError(500, text, code=ErrorCode.ENGINE_ERROR)
