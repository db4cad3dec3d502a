"""The screens of `status` and `top`, drawn from what a dashboard and a router answer."""

from __future__ import annotations

from typing import Any

import pytest
from dashboard_double import Dashboard
from rich.console import Console

from cluster.cli.overview import look, router_address
from cluster.cli.screen import screen
from cluster.serve_api import ServeApi, ServeDetails

LONG_NAME = "mistral-7b-instruct-v0.2"


def drawn(dashboard: Dashboard, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with ServeApi(dashboard.address) as api, console.capture() as capture:
        console.print(screen(look(api), width))
    return capture.get().splitlines()


def line(lines: list[str], word: str) -> list[str]:
    (found,) = (text.split() for text in lines if text.startswith(word))
    return found


def test_nodes_and_their_accelerators(dashboard: Dashboard) -> None:
    lines = drawn(dashboard)
    assert line(lines, "head")[:6] == ["head", "(head)", "42", "%", "12/32", "GiB"]
    assert "NVIDIA H100 80GB HBM3 87 %, 64/80 GiB" in "\n".join(lines)
    assert line(lines, "worker-2")[1] == "dead"
    assert lines.index(next(t for t in lines if t.startswith("head"))) < lines.index(
        next(t for t in lines if t.startswith("worker-1"))
    )


def test_models_with_load_speed_and_power(dashboard: Dashboard) -> None:
    lines = drawn(dashboard)
    row = line(lines, "steady-1.5")
    assert row == ["steady-1.5", "running", "1/1", "fixed", "3/16", "1,510", "300", "W"]
    assert line(lines, "router") == ["router", "running", "1/1"]
    assert line(lines, "elastic ")[1:5] == ["away", "1/1", "auto", "1-2"]
    assert "elastic: being profiled" in lines
    assert line(lines, "broken ")[1] == "failed"
    assert "broken: No module named 'm'" in lines
    assert "3 ongoing" in lines[0]
    assert "1,510 tokens/s   300 W   2 routers" in lines[0]


def test_a_wide_terminal_has_drift_and_accelerators_too(dashboard: Dashboard) -> None:
    row = line(drawn(dashboard, 120), "steady-1.5")
    assert row[-2:] == ["x1.25", "H100"]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_names_stay_whole_and_lines_fit(
    dashboard: Dashboard, details: dict[str, Any], width: int
) -> None:
    application = dict(details["applications"]["steady-1.5"])
    application["name"] = LONG_NAME
    details["applications"][LONG_NAME] = application
    dashboard.live = {
        **dashboard.live,
        "models": [{**dashboard.live["models"][0], "model": LONG_NAME, "ongoing": 128}],
        "replicas": [{**r, "model": LONG_NAME} for r in dashboard.live["replicas"]],
    }
    lines = drawn(dashboard, width)
    assert line(lines, LONG_NAME)[1] == "running"
    assert all(len(text.rstrip()) <= width for text in lines)
    assert not any("…" in text for text in lines)


def test_replicas_that_do_not_run_are_named(dashboard: Dashboard, details: dict[str, Any]) -> None:
    deployment = details["applications"]["steady-1.5"]["deployments"]["ModelServer:steady-1_5"]
    deployment["replicas"] = [*deployment["replicas"], {"replica_id": "r2", "state": "STARTING"}]
    deployment["target_num_replicas"] = 2
    lines = drawn(dashboard)
    assert "1/2" in line(lines, "steady-1.5 ")
    assert "steady-1.5: 1 starting" in lines


def test_without_the_router_the_rest_is_shown_and_why(dashboard: Dashboard) -> None:
    dashboard.live_status = 401
    lines = drawn(dashboard)
    assert line(lines, "steady-1.5")[1] == "running"
    assert "wants an API key: set OPENAI_API_KEY" in " ".join(lines)


def test_the_key_goes_to_the_router(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    drawn(dashboard)
    (asked,) = (r for r in dashboard.requests if r.path.startswith("/v1/live"))
    assert asked.headers["Authorization"] == "Bearer sk-1"


def test_the_address_of_the_router() -> None:
    def of(**options: Any) -> str:
        return router_address(ServeDetails({}, {"http_options": options}), "http://head:8265")

    assert of(host="127.0.0.1", port=8123) == "http://127.0.0.1:8123"
    assert of(host="0.0.0.0", port=8000) == "http://head:8000"
    assert of(host="::1", port=8000) == "http://[::1]:8000"
