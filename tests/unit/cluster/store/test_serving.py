from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import ray.serve

from cluster.store import serving
from cluster.store.serving import Application, Applications, Deployment, ServeWatch, look_at_serve


def running(replicas: int = 1, *, changing: bool = False) -> Application:
    return Application("RUNNING", "", {"d": Deployment(replicas, "")}, changing)


RUNNING = running()


class Serve:
    """Says what it is told to say, and counts how often it is asked."""

    def __init__(self) -> None:
        self.applications: Applications = {"a": RUNNING}
        self.looks = 0
        self.fault: Exception | None = None
        self.asked = threading.Event()

    def look(self) -> Applications:
        self.looks += 1
        self.asked.set()
        if self.fault is not None:
            raise self.fault
        return dict(self.applications)


@pytest.fixture
def periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CHANGING_PERIOD_S", 0.02)
    monkeypatch.setattr(serving, "SAFETY_PERIOD_S", 30.0)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.usefixtures("periods")
def test_serve_is_asked_when_something_changed_and_seldom_else() -> None:
    serve = Serve()
    watch = ServeWatch(serve.look)
    assert (watch.version, watch.applications) == (0, None)
    watch.nudge()
    until(lambda: watch.version == 1)
    assert watch.applications == {"a": RUNNING}
    time.sleep(0.1)
    assert serve.looks == 1
    serve.applications["a"] = running(replicas=2)
    watch.nudge()
    until(lambda: watch.version == 2)
    watch.nudge()
    until(lambda: serve.looks == 3)
    # What is as before has the same version.
    assert watch.version == 2
    watch.close()


@pytest.mark.usefixtures("periods")
def test_what_changes_is_looked_at_more_often() -> None:
    serve = Serve()
    serve.applications["a"] = running(changing=True)
    watch = ServeWatch(serve.look)
    watch.nudge()
    until(lambda: serve.looks >= 4)
    watch.close()


def test_looking_takes_a_bounded_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CHANGING_PERIOD_S", 0.0)
    serve = Serve()
    serve.applications["a"] = running(changing=True)
    slow = 0.02

    def look() -> Applications:
        time.sleep(slow)
        return serve.look()

    watch = ServeWatch(look)
    began = time.monotonic()
    watch.nudge()
    until(lambda: serve.looks >= 3)
    # Two pauses of nine times the look lie between three looks.
    assert time.monotonic() - began >= 2 * 9 * slow
    watch.close()


@pytest.mark.usefixtures("periods")
def test_a_serve_that_does_not_answer_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    serve = Serve()
    serve.fault = ConnectionError("no controller")
    watch = ServeWatch(serve.look)
    watch.nudge()
    until(lambda: serve.looks >= 3)
    assert watch.version == 0
    assert caplog.text.count("no controller") == 1
    serve.fault = None
    until(lambda: watch.version == 1)
    watch.close()


def test_what_serve_says_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = SimpleNamespace(replica_states={"RUNNING": 2, "STARTING": 1}, message="slow")
    running = SimpleNamespace(status="RUNNING", message="", deployments={"d": deployment})
    empty = SimpleNamespace(status="DEPLOY_FAILED", message="boom", deployments={})
    overview = SimpleNamespace(applications={"a": running, "b": empty})
    monkeypatch.setattr(ray.serve, "status", lambda: overview)
    assert look_at_serve() == {
        "a": Application("RUNNING", "", {"d": Deployment(2, "slow")}, changing=True),
        "b": Application("DEPLOY_FAILED", "boom", {}),
    }
