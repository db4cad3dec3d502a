"""Bad input and missing models: each gets an OpenAI error object, and the service stays up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, Model, ServeDouble, Site

PATHS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hello"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/route": {"prompt": "Hello"},
}
ERROR_KEYS = {"message", "type", "param", "code"}


def error_of(site: Site, status: int, path: str = "/v1/completions", **content: Any) -> Any:
    response = site.request("POST", path, **content)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == ERROR_KEYS
    assert error["message"]
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert site.get("/health")["status"] == "ok"
    return error


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{not json",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"model": "auto", "prompt": "x", "temperature": NaN}',
        b'{"model": "auto", "prompt": "\\ud800"}',
        b'{"model": "auto", "prompt": "x", "seed": 1' + b"0" * 400 + b"}",
    ],
)
def test_what_is_not_json(site: Site, path: str, body: bytes) -> None:
    error = error_of(site, 400, path, content=body)
    assert error["code"] == "invalid_json"
    assert "not JSON" in error["message"]


@pytest.mark.parametrize(("body", "kind"), [(b"[]", "list"), (b"null", "null"), (b"3", "int")])
def test_json_that_is_no_object(site: Site, body: bytes, kind: str) -> None:
    error = error_of(site, 400, content=body)
    assert error["message"] == f"the body must be a JSON object, got {kind}"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model", ["auto", FRUGAL])
@pytest.mark.parametrize(
    ("routing", "param"),
    [
        ({"weights": {"energy": -1}}, "routing.weights.energy"),
        ({"weights": {"energy": float("nan")}}, "routing.weights.energy"),
        ({"weights": {"time": float("inf")}}, "routing.weights.time"),
        ({"weights": {"accuracy": 10**400}}, "routing.weights.accuracy"),
        ({"weights": {"accuracy": "1"}}, "routing.weights.accuracy"),
        ({"weights": {"accuracy": None}}, "routing.weights.accuracy"),
        ({"weights": {"accuracy": True}}, "routing.weights.accuracy"),
        ({"weights": {"speed": 1}}, "routing.weights.speed"),
        ({"weights": {"energy": 0}}, "routing.weights"),
        ({"weights": {}}, "routing.weights"),
        ({"weights": [1, 1, 1]}, "routing.weights"),
        ({"policy": "best"}, "routing.policy"),
        ({"policy": 3}, "routing.policy"),
        ({"models": []}, "routing.models"),
        ({"models": ["x", 3]}, "routing.models.1"),
        ({"constraints": {"max_latency_s": 0}}, "routing.constraints.max_latency_s"),
        ({"constraints": {"min_accuracy": 1.5}}, "routing.constraints.min_accuracy"),
        ({"constraints": {"max_cost": 1}}, "routing.constraints.max_cost"),
        ({"wieghts": {}}, "routing.wieghts"),
        ({"\ud800": 1}, "routing"),
        ("fast", "routing"),
        ([], "routing"),
        (False, "routing"),
    ],
)
def test_a_wrong_routing_object(
    site: Site, path: str, model: str, routing: Any, param: str
) -> None:
    body = json.dumps({"model": model, "routing": routing} | PATHS[path])
    error = error_of(site, 400, path, content=body)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert len(error["message"]) < 300


def test_routing_models_that_do_not_exist(site: Site) -> None:
    error = error_of(site, 400, json={"model": "auto", "prompt": "x", "routing": {"models": ["y"]}})
    assert error["param"] == "routing.models"
    assert "unknown model 'y', known: accurate, frugal" in error["message"]


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": "hello"}, "messages"),
        ("/v1/chat/completions", {"messages": ["hello"]}, "messages.0"),
        ("/v1/chat/completions", {"messages": None}, "messages"),
        ("/v1/route", {"messages": []}, "messages"),
        ("/v1/completions", {"prompt": ""}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": [[]]}, "prompt"),
        ("/v1/completions", {"prompt": ["x", 1]}, "prompt"),
        ("/v1/completions", {"prompt": 7}, "prompt"),
        ("/v1/completions", {"prompt": None}, "prompt"),
        ("/v1/completions", {"model": 3}, "model"),
        ("/v1/completions", {"model": ""}, "model"),
        ("/v1/completions", {"model": ["auto"]}, "model"),
        ("/v1/completions", {"stream": "yes"}, "stream"),
        ("/v1/completions", {"stream_options": True}, "stream_options"),
        (
            "/v1/completions",
            {"stream": True, "stream_options": {"include_usage": "no"}},
            "stream_options.include_usage",
        ),
        ("/v1/completions", {"max_tokens": 0}, "max_tokens"),
        ("/v1/completions", {"max_tokens": 1.5}, "max_tokens"),
        ("/v1/completions", {"max_tokens": 10**30}, "max_tokens"),
        ("/v1/completions", {"max_tokens": True}, "max_tokens"),
        ("/v1/chat/completions", {"max_completion_tokens": -1}, "max_completion_tokens"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type(site: Site, path: str, change: Any, param: str) -> None:
    error = error_of(site, 400, path, json={"model": "auto"} | PATHS[path] | change)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert error["message"].startswith(f"{param}: ")


def test_a_long_wrong_value_is_not_sent_back_whole(site: Site) -> None:
    error = error_of(site, 400, json={"model": "auto", "routing": "x" * 9000})
    assert len(error["message"]) < 200


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_model(site: Site, path: str) -> None:
    error = error_of(site, 404, path, json={"model": "gpt-9"} | PATHS[path])
    assert error == {
        "message": "model: unknown 'gpt-9', known: auto, accurate, frugal",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize("path", PATHS)
def test_a_body_over_the_limit(site: Site, path: str) -> None:
    error = error_of(site, 413, path, content=b"x" * 10_001)
    assert error["message"] == "the body is larger than 10000 bytes (max_body_bytes)"
    assert site.request("POST", path, content=b"x" * 10_000).status_code == 400


@pytest.mark.parametrize(
    "constraints", [{"max_energy_joules": 1e-9}, {"max_latency_s": 1e-9}, {"min_accuracy": 0.99}]
)
def test_constraints_that_no_model_meets(site: Site, constraints: Any) -> None:
    body = {"model": "auto", "prompt": "x", "routing": {"constraints": constraints}}
    error = error_of(site, 422, json=body)
    assert error["param"] == "routing.constraints"
    for name in (ACCURATE, FRUGAL, *constraints):
        assert name in error["message"]


def test_the_policy_utility_without_reference_moments(site: Site) -> None:
    body = {"model": "auto", "prompt": "x", "routing": {"policy": "utility"}}
    assert error_of(site, 400, json=body)["param"] == "routing.policy"


@pytest.mark.parametrize("model", ["auto", FRUGAL])
@pytest.mark.parametrize(
    ("status", "reason"), [("RUNNING", "scaled to 0 replicas"), ("DEPLOYING", "deploying")]
)
def test_no_model_up(site: Site, serve: ServeDouble, model: str, status: str, reason: str) -> None:
    for each in serve.models.values():
        each.replicas, each.status = 0, status
    site.wait_until(lambda health: not any(m["available"] for m in health["models"].values()))
    response = site.complete(model=model)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "no_model_available"
    assert reason in response.json()["error"]["message"]
    for each in serve.models.values():
        each.replicas, each.status = 1, "RUNNING"
    site.wait_until(lambda health: all(m["available"] for m in health["models"].values()))
    assert site.complete(model=model).status_code == 200


def test_only_models_without_a_profile(site: Site, serve: ServeDouble) -> None:
    serve.models["new"] = Model("new")
    site.configure(models=[{"id": "new"}])
    site.wait_until(lambda health: health["models"]["new"]["available"])
    response = site.complete()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_profile")
    assert "name a model" in response.json()["error"]["message"]
    assert site.complete(model="new").status_code == 200


def test_no_model_configured(site: Site) -> None:
    site.configure(models=[])
    response = site.complete()
    assert response.status_code == 503
    assert "no model is configured" in response.json()["error"]["message"]


def test_unknown_paths_and_methods(site: Site) -> None:
    missing = site.request("GET", "/v1/nothing")
    assert (missing.status_code, set(missing.json()["error"])) == (404, ERROR_KEYS)
    wrong = site.request("GET", "/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "GET /v1/completions" in wrong.json()["error"]["message"]


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", "", "1.5", "9" * 5000])
def test_a_limit_that_is_none(site: Site, limit: str) -> None:
    response = site.request("GET", "/v1/decisions", params={"limit": limit})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "limit")


def test_a_fault_of_ours_is_an_error_object_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.endpoints.completions.routing_object", lambda *_: 1 / 0)
    response = site.complete()
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "internal error: ZeroDivisionError"


def test_an_answer_that_cannot_be_recorded_is_given_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "deployments.router.endpoints.completions.decision_record", lambda *_, **__: 1 / 0
    )
    with caplog.at_level("ERROR", logger="ray.serve"):
        assert site.complete().status_code == 200
    assert "not recorded" in caplog.text
