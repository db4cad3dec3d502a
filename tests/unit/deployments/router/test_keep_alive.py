"""Streams that have nothing to send yet: headers at once, comment lines, and honest statuses."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_serve import ACCURATE, FRUGAL, Pause, ServeDouble, Site, chunk, error_object, whole_stream
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import RayServeException
from served_router import ServedRouter

from deployments.config.app import RouterArgs
from deployments.links.frames import Flag

ACCEPTED: Any = (b"", (), Flag.ACCEPTED)
COMMENT = ": keep-alive"
PERIOD_S = 0.1


@pytest.fixture
def router(
    request: pytest.FixtureRequest,
    serve: ServeDouble,
    store: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ServedRouter]:
    """One that comments on so many seconds of silence."""
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: "127.0.0.1")
    monkeypatch.setattr("deployments.router.server.DIRECTORY_PERIOD_S", 0.02)
    monkeypatch.delitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", raising=False)
    period_s = getattr(request, "param", PERIOD_S)
    args = RouterArgs(data_dir=str(tmp_path / "data"), keep_alive_s=period_s)
    router = ServedRouter(args, models=[{"id": FRUGAL}, {"id": ACCURATE}])
    until(lambda: httpx.get(f"{router.url}/health").json()["status"] == "ok")
    yield router
    router.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Streamed:
    """One stream, with the seconds at which its headers and its lines came."""

    def __init__(self, router: ServedRouter, **fields: Any) -> None:
        body = {"model": "auto", "prompt": "x", "stream": True} | fields
        body.setdefault("routing", {"weights": {"energy": 1}})
        began = time.monotonic()
        with httpx.stream("POST", f"{router.url}/v1/completions", json=body) as response:
            self.headers_s = time.monotonic() - began
            self.status, self.headers = response.status_code, response.headers
            self.lines = [(time.monotonic() - began, line) for line in response.iter_lines()]

    @property
    def comments(self) -> list[float]:
        return [at for at, line in self.lines if line == COMMENT]

    @property
    def first_s(self) -> float:
        return next(at for at, line in self.lines if line.startswith("data: "))

    @property
    def most_comments(self) -> float:
        """So many periods have passed, however slow this machine is."""
        return self.lines[-1][0] / PERIOD_S

    @property
    def data(self) -> list[str]:
        return [line for _, line in self.lines if line.startswith("data: ")]


def test_headers_come_when_the_engine_has_the_request_and_comments_until_the_first_token(
    router: ServedRouter, serve: ServeDouble
) -> None:
    serve.models[FRUGAL].frames = [ACCEPTED, Pause(1.5), *whole_stream(FRUGAL)]
    seen = Streamed(router)
    assert seen.status == 200
    assert seen.headers["x-routed-model"] == FRUGAL
    assert "x-decision-id" in seen.headers
    assert seen.headers_s < seen.first_s - 0.5
    assert 3 <= len(seen.comments) <= seen.most_comments
    assert seen.data[-1] == "data: [DONE]"


@pytest.mark.parametrize("router", [0.5], indirect=True)
def test_tokens_in_time_have_no_comments(router: ServedRouter, serve: ServeDouble) -> None:
    """For six periods, of which a busy machine may make one a pause."""
    quick = [(chunk("x"), (1,), 0), Pause(0.05)] * 60
    serve.models[FRUGAL].frames = [ACCEPTED, *quick, *whole_stream(FRUGAL)]
    assert len(Streamed(router).comments) <= 1


def test_a_pause_in_the_middle_has_comments_too(router: ServedRouter, serve: ServeDouble) -> None:
    opening, *rest = whole_stream(FRUGAL)
    serve.models[FRUGAL].frames = [opening, Pause(1.0), *rest]
    seen = Streamed(router)
    assert 2 <= len(seen.comments) <= seen.most_comments
    places = [line for _, line in seen.lines if line]
    assert places[0].startswith("data: ")
    assert places[1] == COMMENT
    assert places[-1] == "data: [DONE]"


def test_an_engine_that_announces_nothing_is_waited_for_as_long_as_a_client_waits(
    router: ServedRouter, serve: ServeDouble
) -> None:
    serve.models[FRUGAL].frames = [Pause(1.5), *whole_stream(FRUGAL)]
    seen = Streamed(router)
    assert 0.08 < seen.headers_s < seen.first_s - 0.2
    assert seen.comments


# Nothing has been sent when it is known, also on a slow machine.
@pytest.mark.parametrize("router", [30.0], indirect=True)
@pytest.mark.parametrize(
    ("frames", "status", "code"),
    [
        ([(error_object(400), (), Flag.ERROR)], 400, "rejected_by_engine"),
        ([RayServeException("it is gone")], 503, "model_failed"),
    ],
)
def test_what_is_known_before_keeps_its_status(
    router: ServedRouter, serve: ServeDouble, frames: list[Any], status: int, code: str
) -> None:
    for model in serve.models.values():
        model.frames = frames
    seen = Streamed(router)
    assert seen.status == status
    assert code in "".join(line for _, line in seen.lines)
    assert not seen.comments


def test_what_is_known_later_is_an_event_and_no_end_marker(
    router: ServedRouter, serve: ServeDouble
) -> None:
    for model in serve.models.values():
        model.frames = [ACCEPTED, Pause(0.25), ActorDiedError()]
    seen = Streamed(router, routing={"models": [FRUGAL]})
    assert seen.status == 200
    assert "stream_broken" in seen.data[-1] or "model_failed" in seen.data[-1]
    assert "data: [DONE]" not in seen.data


def test_another_model_goes_on_below_the_headers(router: ServedRouter, serve: ServeDouble) -> None:
    serve.models[FRUGAL].frames = [ACCEPTED, Pause(0.25), ActorDiedError()]
    seen = Streamed(router)
    assert seen.status == 200
    assert seen.data[-1] == "data: [DONE]"
    assert f'"model":"{ACCURATE}"' in seen.data[-2]


def test_who_wants_no_comments_has_none(
    serve: ServeDouble, start_site: Callable[..., Site]
) -> None:
    site = start_site(keep_alive_s=None, request_timeout_s=5)
    serve.models[FRUGAL].frames = [Pause(0.3), *whole_stream(FRUGAL)]
    response = site.complete(model=FRUGAL, stream=True)
    assert COMMENT not in response.text
