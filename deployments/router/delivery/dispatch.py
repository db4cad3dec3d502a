"""Sends a request to one replica of a model and brings back bytes and what it really took.

One try. Going on elsewhere when it breaks is `failover`; the caller says how long it may take.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import orjson
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from deployments.links.client import Link, LinkBrokenError, LinkPool, SlowReaderError
from deployments.links.frames import (
    QUEUE_FULL,
    Flag,
    Frame,
    ModelRequest,
    Reply,
    decode_observation,
)
from deployments.router.models import ModelEntry
from deployments.router.wire.openai import ApiError
from scheduler.costs.observations import Observation


class ModelBrokeError(ApiError):
    """The model did not do what it was asked; another replica or model may.

    Attributes:
        refused: It has not begun and is not to blame: it is going away, or full.
    """

    refused = False


class ModelFullError(ModelBrokeError):
    """The replica has as many requests as it takes."""

    refused = True


@dataclass(slots=True)
class Dispatch:
    """One request on its way to one model.

    Attributes:
        avoid: Replicas that are not asked while there are others.
        prefer: The replica that has the beginning of the prompt in its cache, if one has.
        observation: What it took, `None` until the model said so.
        replica_id: Where it went, `None` until it is known.
    """

    entry: ModelEntry
    request: ModelRequest
    links: LinkPool
    avoid: Collection[str] = ()
    prefer: str | None = None
    observation: Observation | None = field(default=None, init=False)
    replica_id: str | None = field(default=None, init=False)

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ModelBrokeError: The model broke.
            ApiError: It refused the request.
        """
        link = self._link()
        with self._under_way(link):
            status, data, observation = await (
                link.answer(self.request) if link else self._answer_over_handle()
            )
            if status != 200:
                raise refused(data)
            self._observe(observation)
            return data

    async def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer.

        The measurement is taken out into `observation`. Ends without a frame with FINISH only by
        raising, so that nobody can take a broken stream for a whole one.

        Raises:
            ModelBrokeError: The model broke, before or after the first frame.
            ApiError: It refused the request.
        """
        link = self._link()
        stream = link.stream(self.request) if link else self._stream_over_handle()
        finished = False
        with self._under_way(link):
            async with aclosing(stream):
                async for frame in stream:
                    data, _, flags = frame
                    if flags & Flag.ERROR:
                        raise refused(data)
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

    def _link(self) -> Link | None:
        link = self.links.choose(self.entry.model, self.avoid, self.prefer)
        self.replica_id = link.replica_id if link else None
        return link

    @contextmanager
    def _under_way(self, link: Link | None) -> Iterator[None]:
        priority = self.request.priority
        self.entry.by_priority[priority] += 1
        try:
            yield
        except ModelBrokeError as error:
            if link and not error.refused:
                link.breaker.broke()
            raise
        except SlowReaderError as error:
            raise ApiError(408, str(error), code="slow_reader") from error
        except (LinkBrokenError, RayError, RayServeException) as error:
            broke = self._broke(error)
            if link and not broke.refused:
                link.breaker.broke()
            raise broke from error
        else:
            if link:
                link.breaker.worked()
        finally:
            self.entry.by_priority[priority] -= 1

    async def _answer_over_handle(self) -> Reply:
        response = self.entry.handle(stream=False).remote(self.request, avoid=tuple(self.avoid))
        answered = False
        try:
            reply: Reply = await response
            answered = True
        finally:
            # Nobody waits for it any more, and the model would generate to the end.
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
        broke.refused = isinstance(error, LinkBrokenError) and error.refused
        return broke


def refused(data: bytes) -> ApiError:
    """An error object of vLLM as ours, status included."""
    error = orjson.loads(data)["error"]
    status = error["code"]
    # vLLM takes the code from whatever raised; one that is no HTTP error cannot be sent.
    if status not in range(400, 600):
        status = 500
    kind = ModelBrokeError if status >= 500 else ApiError
    if error.get("type") == QUEUE_FULL:
        kind = ModelFullError
    return kind(status, error["message"], param=error.get("param"), code=error.get("type"))
