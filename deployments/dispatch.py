"""Sends a request to the chosen model and brings back bytes and what it really took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import orjson
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from deployments.directory import ModelEntry
from deployments.frames import Flag, Frame, Reply, decode_observation
from deployments.openai_api import ApiError, Endpoint
from scheduler.types import Observation


@dataclass(slots=True)
class Dispatch:
    """One request on its way to one model.

    Attributes:
        origin: Which router sends it.
        observation: What it took, `None` until the model said so.
    """

    entry: ModelEntry
    endpoint: Endpoint
    body: bytes
    request_id: str
    timeout_s: float
    origin: str = ""
    observation: Observation | None = field(default=None, init=False)
    _deadline: float = field(default=0.0, init=False)

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ApiError: The model's own where it refused, 503 where it broke, 504 after the time-out.
        """
        self.entry.ongoing += 1
        response = None
        answered = False
        try:
            response = self.entry.handle(stream=False).remote(
                self.endpoint,
                self.body,
                self.request_id,
                avoid=self.entry.under_trial,
                origin=self.origin,
            )
            async with asyncio.timeout(self.timeout_s):
                reply: Reply = await response
            answered = True
        # Before TimeoutError: what fails in the replica can be both, and is not our time-out.
        except (RayError, RayServeException) as error:
            raise self._broke(error) from error
        except TimeoutError as error:
            raise self._timed_out() from error
        finally:
            self.entry.ongoing -= 1
            # Nobody waits for it any more, and the model would generate to the end.
            if response is not None and not answered:
                response.cancel()
        status, data, observation = reply
        if status != 200:
            raise refused(data)
        self.observation = decode_observation(observation)
        return data

    async def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer.

        The measurement is taken out into `observation`. Ends without a frame with FINISH only by
        raising, so that nobody can take a broken stream for a whole one.

        Raises:
            ApiError: The model refused, broke or was too slow; before or after the first frame.
        """
        self.entry.ongoing += 1
        self._deadline = asyncio.get_running_loop().time() + self.timeout_s
        stream = None
        finished = ended = False
        try:
            stream = self.entry.handle(stream=True).remote(
                self.endpoint,
                self.body,
                self.request_id,
                avoid=self.entry.under_trial,
                origin=self.origin,
            )
            while (frame := await self._next(stream)) is not None:
                data, _, flags = frame
                if flags & Flag.ERROR:
                    raise refused(data)
                if flags & Flag.OBSERVATION:
                    self.observation = decode_observation(data)
                    continue
                finished = finished or bool(flags & Flag.FINISH)
                if flags & Flag.DONE and not finished:
                    break
                yield frame
            ended = True
            if not finished:
                raise ApiError(
                    503,
                    f"model {self.entry.model!r} stopped without a finish reason",
                    code="stream_broken",
                )
        # In this order for the reason given in `answer`.
        except (RayError, RayServeException) as error:
            raise self._broke(error) from error
        except TimeoutError as error:
            raise self._timed_out() from error
        finally:
            self.entry.ongoing -= 1
            if stream is not None and not ended:
                stream.cancel()

    async def _next(self, stream: AsyncIterator[Frame]) -> Frame | None:
        # Around each frame, not around the loop: the first frame and the others may be read by
        # different tasks, and a time-out belongs to one task.
        async with asyncio.timeout_at(self._deadline):
            return await anext(stream, None)

    def _timed_out(self) -> ApiError:
        return ApiError(
            504,
            f"model {self.entry.model!r} did not finish within {self.timeout_s:g} s",
            code="timeout",
        )

    def _broke(self, error: Exception) -> ApiError:
        cause = str(error).strip().splitlines()
        return ApiError(
            503,
            f"model {self.entry.model!r} failed: {type(error).__name__}: "
            f"{cause[-1] if cause else ''}",
            code="model_failed",
            retry_after_s=5,
        )


def refused(data: bytes) -> ApiError:
    """An error object of vLLM as ours, status included."""
    error = orjson.loads(data)["error"]
    status = error["code"]
    # vLLM takes the code from whatever raised; one that is no HTTP error cannot be sent.
    if status not in range(400, 600):
        status = 500
    return ApiError(status, error["message"], param=error.get("param"), code=error.get("type"))
