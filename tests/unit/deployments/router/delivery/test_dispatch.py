"""What tests/unit/deployments/router/test_server.py cannot see from outside."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from fake_serve import FRUGAL, Model, ServeDouble, chunk, error_object, observation
from ray.exceptions import RayTaskError

from deployments.links.frames import ModelRequest
from deployments.links.pool import LinkPool
from deployments.router.delivery.dispatch import Dispatch, ModelBrokeError, refused
from deployments.router.model_entry import ModelEntry
from deployments.router.wire.api_error import ApiError


@pytest.fixture
def model(serve: ServeDouble) -> Model:
    return serve.models[FRUGAL]


def dispatch(model: str = FRUGAL) -> Dispatch:
    request = ModelRequest("chat", b"{}", "d1")
    return Dispatch(ModelEntry(model), request, LinkPool())


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


@pytest.mark.parametrize(("code", "broke"), [(400, False), (404, True), (500, True), (503, True)])
def test_what_a_model_answers_is_its_word_or_its_failure(code: int, broke: bool) -> None:
    assert isinstance(refused(error_object(code)), ModelBrokeError) is broke


@pytest.mark.parametrize("code", [0, 200, 302, 999, None, "teapot"])
def test_a_code_that_is_no_http_error(code: Any) -> None:
    assert refused(error_object(code)).status == 500


def test_an_error_object_of_the_model() -> None:
    error = refused(error_object(400, "no adapter"))
    assert (error.status, str(error), error.param, error.code) == (
        400,
        "no adapter",
        "prompt",
        "rejected_by_engine",
    )


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (404, "The model `x` does not exist.", (500, "engine_error", None)),
        (422, "no", (400, "rejected_by_engine", None)),
        (429, "of vLLM", (429, "queue_full", None)),
        (500, "list index out of range", (500, "engine_error", None)),
        (
            500,
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
            (503, "model_failed", 5),
        ),
        (501, "suffix is not currently supported", (400, "unsupported", None)),
        (503, "shutting down", (503, "model_failed", 5)),
    ],
)
def test_errors_of_vllm_are_in_our_vocabulary(
    status: int, message: str, told: tuple[int, str, int | None]
) -> None:
    error = refused(error_object(status, message), "m")
    assert (error.status, error.code, error.retry_after_s) == told
    # What it says of its own faults is for the log.
    assert (message in str(error)) is (error.status < 500)
