"""The parts of `up` that need no Ray; a whole start is what every integration test begins with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dashboard_double import Dashboard
from http_double import QuietHandler, serving

from cluster.cli import up as launcher
from cluster.cli.ray_head import LaunchError


class Router:
    """A router whose `/health` says what `answers` has left, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.address = ""

    def say(self, status: int = 200, **models: tuple[bool, str | None]) -> None:
        known = {
            name: {"available": available, "profile": origin, "reason": "starting"}
            for name, (available, origin) in models.items()
        }
        self.answers.append((status, json.dumps({"models": known})))


@pytest.fixture
def router() -> Iterator[Router]:
    state = Router()

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
            assert self.path in ("/health", "/health/ready")
            status, text = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

    with serving(Handler) as state.address:
        yield state


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "POLL_S", 0.01)
    monkeypatch.setattr(launcher, "READY_TIMEOUT_S", 10.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "READY_TIMEOUT_S", 0.1)


@pytest.fixture
def head() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs, as Ray would."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("applications: []", "http://127.0.0.1:8000"),
        ("", "http://127.0.0.1:8000"),
        ("http_options:", "http://127.0.0.1:8000"),
        ("http_options: {port: 9000}", "http://127.0.0.1:9000"),
        ("http_options: {host: 0.0.0.0, port: 9000}", "http://127.0.0.1:9000"),
        ("http_options: {host: 10.1.2.3}", "http://10.1.2.3:8000"),
        ("http_options: {host: '::'}", "http://[::1]:8000"),
    ],
)
def test_the_address_of_a_config(tmp_path: Path, text: str, address: str) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(text)
    assert launcher.http_address(config) == address


def test_models_that_were_not_measured_here(router: Router) -> None:
    router.say(a=(True, "measured"), b=(True, "prior"), c=(True, None))
    assert launcher.models_without_own_profile(router.address) == ["b", "c"]


def test_a_pooling_model_is_not_profiled(router: Router) -> None:
    model = {"available": True, "profile": None, "reason": None}
    models = {"a": model | {"generates": True}, "b": model | {"generates": False}}
    router.answers.append((200, json.dumps({"models": models})))
    assert launcher.models_without_own_profile(router.address) == ["a"]


def test_it_waits_for_the_router_and_its_models(router: Router) -> None:
    router.answers.append((502, "bad gateway"))
    router.answers.append((200, "<html>"))
    router.answers.append((200, "{}"))
    router.say()
    router.say(a=(True, "prior"), b=(False, "prior"))
    router.say(a=(True, "prior"), b=(True, "prior"))
    assert launcher.models_without_own_profile(router.address) == ["a", "b"]


@pytest.mark.usefixtures("impatient")
def test_a_model_that_does_not_come_up_does_not_keep_the_others(
    router: Router, capsys: pytest.CaptureFixture[str]
) -> None:
    router.say(a=(True, "prior"), b=(False, "prior"))
    assert launcher.models_without_own_profile(router.address) == ["a"]
    assert "not available: b: starting" in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
def test_a_router_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.models_without_own_profile("http://127.0.0.1:1") == []
    assert "not available: http://127.0.0.1:1/health: " in capsys.readouterr().out


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PROFILER = """
import signal, sys, time
def stop(*_):
    time.sleep(0.1)
    open("gave back", "a").write("x")
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
open("started", "w").close()
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("number", "after"), [(signal.SIGINT, "went on"), (signal.SIGTERM, "stopped")]
)
def test_what_a_signal_does_while_the_models_are_profiled(
    tmp_path: Path, number: signal.Signals, after: str
) -> None:
    """Ctrl-C skips, SIGTERM stops; either way the profiling job gets one signal and its time."""
    (tmp_path / "profiling.py").write_text(PROFILER)
    script = textwrap.dedent("""
        from cluster.cli import up as launcher
        launcher.handle_signals()
        try:
            launcher.profile_models(["a"], 6379)
            print("went on")
        except SystemExit:
            print("stopped")
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for((tmp_path / "started").exists)
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert out.splitlines()[-1] == after
    assert (tmp_path / "gave back").read_text() == "x"


@pytest.mark.parametrize("code", [0, 1])
def test_what_the_profile_says_is_shown(tmp_path: Path, code: int) -> None:
    (tmp_path / "profiling.py").write_text(
        f"import sys; print('energy: lite', sys.argv[1:]); sys.exit({code})"
    )
    script = "from cluster.cli import up; up.profile_models(['a', 'b'], 6379)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (
        "energy: lite ['run', '--quick', '--brief', '--budget', '60', '--models', 'a,b']"
        in done.stdout
    )
    assert ("not all models were profiled" in done.stdout) == bool(code)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some model is up from the start, whatever else this machine serves."""
    monkeypatch.setattr(launcher, "answers", lambda _: True)
    monkeypatch.setattr(launcher, "_models", lambda _: ({}, ""))


ADDRESS = "http://127.0.0.1:8000"


def deploy(dashboard: Dashboard, *applications: dict[str, Any]) -> None:
    """Have them deploying, until the dashboard has been looked at twice."""

    def finish() -> None:
        wait_for(lambda: len(dashboard.requests) > 1)
        for application in applications:
            application["status"] = "RUNNING"

    for application in applications:
        application["status"] = "DEPLOYING"
    Thread(target=finish).start()


@pytest.mark.usefixtures("answering")
def test_the_address_comes_with_the_first_model_and_the_others_are_waited_for(
    dashboard: Dashboard,
    details: dict[str, Any],
    head: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    del details["applications"]["broken"]
    deploy(dashboard, details["applications"]["elastic"])
    launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)
    printed = capsys.readouterr().out
    assert "deploying" in printed
    assert printed.count("running") == 4
    ready = printed.index("ready after")
    assert f"at {ADDRESS}" in printed[ready:]
    assert printed.count("ready after") == 1
    assert ready < printed.rindex("running")


@pytest.mark.usefixtures("answering")
def test_where_the_first_request_wakes_a_model_none_runs_yet(
    dashboard: Dashboard,
    details: dict[str, Any],
    head: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    del details["applications"]["broken"]
    deploy(dashboard, *(a for name, a in details["applications"].items() if name != "router"))
    launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)
    assert f"at {ADDRESS} (no model runs yet)" in capsys.readouterr().out


@pytest.mark.usefixtures("answering")
def test_a_model_that_fails_is_named_and_the_others_serve(
    dashboard: Dashboard, head: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    failed = launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)
    assert failed == ["broken"]
    printed = capsys.readouterr().out
    assert "broken: No module named 'm'" in printed
    assert "ready after" in printed


def test_a_replica_that_does_not_start_is_named_while_serve_tries_again(
    dashboard: Dashboard,
    details: dict[str, Any],
    head: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elastic = details["applications"]["elastic"]
    elastic["status"] = "DEPLOYING"
    elastic["deployments"]["ModelServer:elastic"]["message"] = (
        "A replica failed to start with exception. Retrying 2 more time(s). Error:\n"
        "Traceback (most recent call last):\n  File ...\nFileNotFoundError: source: '/x'\n"
    )

    del details["applications"]["broken"]

    def answers(_: str) -> bool:
        if len(dashboard.requests) < 3:
            return False
        elastic["status"] = "RUNNING"
        return True

    monkeypatch.setattr(launcher, "answers", answers)
    launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)
    assert capsys.readouterr().out.count("elastic: FileNotFoundError: source: '/x'") == 1


def test_where_no_model_starts_the_start_ends_with_serves_words(
    dashboard: Dashboard, details: dict[str, Any], head: subprocess.Popen[bytes]
) -> None:
    for name, application in details["applications"].items():
        if name != "router":
            application |= {"status": "DEPLOY_FAILED", "message": "No module named 'm'"}
    with pytest.raises(LaunchError, match="No module named 'm'"):
        launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)


def test_a_router_that_fails_ends_the_start(
    dashboard: Dashboard, details: dict[str, Any], head: subprocess.Popen[bytes]
) -> None:
    details["applications"]["router"] |= {"status": "DEPLOY_FAILED", "message": "no such file"}
    with pytest.raises(LaunchError, match="router: no such file"):
        launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)


@pytest.mark.usefixtures("impatient")
def test_where_every_model_is_at_0_the_address_comes_all_the_same(
    dashboard: Dashboard,
    details: dict[str, Any],
    head: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del details["applications"]["broken"]
    monkeypatch.setattr(launcher, "answers", lambda _: False)
    assert launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0) == []
    assert "ready after" in capsys.readouterr().out


def test_whether_a_request_would_be_answered(router: Router) -> None:
    assert not launcher.answers("http://127.0.0.1:1")
    router.answers.append((503, "{}"))
    router.answers.append((200, "{}"))
    assert [launcher.answers(router.address) for _ in range(2)] == [False, True]


@pytest.fixture
def young_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "HEALTH_AGE_S", 0.01)


def ongoing(count: int) -> tuple[int, str]:
    model = {"available": True, "profile": None, "reason": None, "ongoing": count}
    return 200, json.dumps({"models": {"a": model}})


@pytest.mark.usefixtures("young_health")
def test_running_requests_are_waited_for_at_the_end(
    router: Router, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first look may be at what was before the last request.
    router.answers += [ongoing(0), ongoing(2), ongoing(1), ongoing(0)]
    launcher.drain(router.address)
    assert len(router.answers) == 1
    assert "waiting for 2 running requests" in capsys.readouterr().out


@pytest.mark.usefixtures("young_health")
def test_nothing_is_waited_for_where_nothing_runs(
    router: Router, capsys: pytest.CaptureFixture[str]
) -> None:
    router.answers.append(ongoing(0))
    launcher.drain(router.address)
    launcher.drain("http://127.0.0.1:1")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("young_health")
def test_requests_that_do_not_end_are_waited_for_until_a_limit(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "DRAIN_TIMEOUT_S", 0.2)
    router.answers.append(ongoing(1))
    began = time.monotonic()
    launcher.drain(router.address)
    assert 0.2 <= time.monotonic() - began < 20


def test_a_ray_that_ends_stops_the_start(dashboard: Dashboard, details: dict[str, Any]) -> None:
    del details["applications"]["broken"]
    details["applications"]["elastic"]["status"] = "DEPLOYING"
    head = subprocess.Popen(["true"])
    head.wait()
    with pytest.raises(LaunchError, match="Ray ended"):
        launcher.wait_for_applications(dashboard.address, ADDRESS, head, 0.0)
