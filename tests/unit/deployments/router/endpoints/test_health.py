from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_clock import FakeClock
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site

from deployments.router.endpoints.health import Health


def test_the_content_is_made_once_a_second() -> None:
    made: list[int] = []
    clock = FakeClock(0.0)

    def describe() -> dict[str, Any]:
        made.append(1)
        return {"count": len(made)}

    health = Health(describe, lambda: None, clock)
    for now, count in ((0.0, 1), (0.5, 1), (0.99, 1), (1.0, 2), (1.5, 2)):
        clock.now = now
        answer = health.answer("/health")
        assert answer is not None
        assert json.loads(answer.body) == {"count": count}


def test_liveness_asks_nobody() -> None:
    def fail() -> Any:
        raise AssertionError

    answer = Health(fail, fail).answer("/health/live")
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/health/", "/health/other", "/healthz"])
def test_other_paths_are_not_its_own(path: str) -> None:
    assert Health(dict, lambda: None).answer(path) is None


def test_a_router_is_ready_while_one_model_can_answer(site: Site, serve: ServeDouble) -> None:
    assert site.request("GET", "/health/live").json() == {"status": "alive"}
    assert site.request("GET", "/health/ready").json() == {"status": "ready"}
    for model in serve.models.values():
        model.replicas, model.status = 0, "DEPLOY_FAILED"
    site.wait_until(lambda health: not any(m["available"] for m in health["models"].values()))
    response = site.request("GET", "/health/ready")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    error = response.json()["error"]
    assert error["code"] == "not_ready"
    assert ACCURATE in error["message"]
    # A router without models is alive all the same: a restart would not help.
    assert site.request("GET", "/health/live").status_code == 200
    assert site.request("GET", "/health").status_code == 200
    serve.models[FRUGAL].replicas, serve.models[FRUGAL].status = 1, "RUNNING"
    site.wait_until(lambda health: health["models"][FRUGAL]["available"])
    assert site.request("GET", "/health/ready").status_code == 200


def test_a_model_that_wakes_makes_a_router_ready(site: Site, serve: ServeDouble) -> None:
    site.configure(models=[{"id": FRUGAL, "wake": True}])
    serve.models[FRUGAL].replicas = 0
    site.wait_until(lambda health: not health["models"][FRUGAL]["available"])
    assert site.request("GET", "/health/ready").status_code == 200


def test_a_router_without_models_is_not_ready(start_site: Callable[..., Site]) -> None:
    site = start_site()
    site.configure(models=[])
    assert site.request("GET", "/health/ready").status_code == 503


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_head_has_no_body_and_other_methods_are_405(site: Site, path: str) -> None:
    head = site.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    posted = site.request("POST", path)
    assert (posted.status_code, posted.json()["error"]["code"]) == (405, "method_not_allowed")
