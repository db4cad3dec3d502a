"""What tests/unit/deployments/test_router.py cannot see from outside."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from fake_serve import FRUGAL, HANG, Model, ServeDouble, chunk, error_object, observation
from ray.exceptions import RayTaskError

from deployments.directory import ModelEntry
from deployments.dispatch import Dispatch, refused
from deployments.frames import Flag
from deployments.openai_api import ApiError


@pytest.fixture
def model(serve: ServeDouble) -> Model:
    return serve.models[FRUGAL]


def dispatch(timeout_s: float = 5.0, model: str = FRUGAL) -> Dispatch:
    return Dispatch(ModelEntry(model), "chat", b"{}", "d1", timeout_s)


async def read(sent: Dispatch, count: int = 100) -> list[bytes]:
    """The first frames, then goes away."""
    data = []
    async with aclosing(sent.frames()) as frames:
        async for frame in frames:
            data.append(frame[0])
            assert sent.entry.ongoing == 1
            if len(data) == count:
                break
    return data


def test_an_answer_and_its_measurement(model: Model) -> None:
    sent = dispatch()
    assert json.loads(asyncio.run(sent.answer()))["model"] == FRUGAL
    assert sent.observation == observation(FRUGAL)
    assert sent.entry.ongoing == 0
    assert not model.calls[0].response.cancelled


def test_a_whole_stream(model: Model) -> None:
    sent = dispatch()
    assert asyncio.run(read(sent)) == [chunk("Hel"), chunk("lo", "stop"), b"data: [DONE]\n\n"]
    assert sent.observation == observation(FRUGAL)
    assert sent.entry.ongoing == 0
    assert not model.calls[0].response.cancelled


@pytest.mark.parametrize("count", [1, 2])
def test_a_reader_that_goes_away_ends_the_call(model: Model, count: int) -> None:
    sent = dispatch()
    asyncio.run(read(sent, count))
    assert sent.entry.ongoing == 0
    assert model.calls[0].response.cancelled


def test_frames_may_be_read_by_different_tasks(model: Model) -> None:
    async def scenario() -> list[bytes]:
        frames = dispatch().frames()
        first = await asyncio.create_task(anext(frames))
        rest = await asyncio.create_task(collect(frames))
        return [first[0], *rest]

    async def collect(frames: Any) -> list[bytes]:
        return [frame[0] async for frame in frames]

    assert len(asyncio.run(scenario())) == 3


def test_the_time_out_is_of_the_whole_stream(model: Model) -> None:
    model.frames = [(chunk("x"), (), Flag.NONE)] * 1000 + [HANG]

    async def slow() -> None:
        async with aclosing(dispatch(0.05).frames()) as frames:
            async for _ in frames:
                await asyncio.sleep(0.02)

    with pytest.raises(ApiError, match=r"did not finish within 0.05 s") as raised:
        asyncio.run(slow())
    assert raised.value.status == 504
    assert model.calls[0].response.cancelled


@pytest.mark.parametrize("stream", [True, False])
def test_a_time_out_inside_the_model_is_not_ours(model: Model, stream: bool) -> None:
    inside = RayTaskError("answer", "Traceback:\nTimeoutError: too slow", TimeoutError("too slow"))
    fault = inside.as_instanceof_cause()
    assert isinstance(fault, TimeoutError)
    model.reply, model.frames = fault, [fault]
    with pytest.raises(ApiError, match=r"failed: .*TimeoutError: too slow") as raised:
        asyncio.run(read(dispatch()) if stream else dispatch().answer())
    assert (raised.value.status, raised.value.retry_after_s) == (503, 5)


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_is_not_deployed(serve: ServeDouble, stream: bool) -> None:
    sent = dispatch(model="gone")
    with pytest.raises(ApiError, match="'gone' failed: RayServeException") as raised:
        asyncio.run(read(sent) if stream else sent.answer())
    assert raised.value.status == 503
    assert sent.entry.ongoing == 0


@pytest.mark.parametrize("code", [0, 200, 302, 999, None, "teapot"])
def test_a_code_that_is_no_http_error(code: Any) -> None:
    assert refused(error_object(code)).status == 500


def test_an_error_object_of_the_model() -> None:
    error = refused(error_object(404, "no adapter"))
    assert (error.status, str(error), error.param, error.code) == (
        404,
        "no adapter",
        "prompt",
        "BadRequestError",
    )
