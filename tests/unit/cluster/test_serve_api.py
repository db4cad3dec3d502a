from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from dashboard_double import Dashboard

from cluster.serve_api import (
    DashboardAuthError,
    DashboardUnreachableError,
    ReplicaRange,
    ServeApi,
    ServeRequestError,
    auth_headers,
    parse_details,
)


def test_details_become_values(details: dict[str, Any]) -> None:
    parsed = parse_details(details)
    steady = parsed.applications["steady-1.5"]
    assert steady.external_scaler
    assert steady.deployments["ModelServer:steady-1_5"].autoscaling is None
    assert steady.deployments["ModelServer:steady-1_5"].replicas[0].pid == 7
    elastic = parsed.applications["elastic"].deployments["ModelServer:elastic"]
    assert elastic.autoscaling == ReplicaRange(1, 2)
    # An option that is not set must not come back as null: Serve would refuse it.
    assert set(parsed.options) == {"proxy_location", "http_options", "grpc_options"}


def test_secrets_of_the_config_are_not_in_the_repr(details: dict[str, Any]) -> None:
    assert "secret" not in repr(parse_details(details))


def test_a_ray_without_serve_has_no_applications() -> None:
    empty: dict[str, Any] = {
        "controller_info": {},
        "proxies": {},
        "applications": {},
        "target_capacity": None,
    }
    assert parse_details(empty).applications == {}


def test_set_replicas_quotes_names(dashboard: Dashboard) -> None:
    with ServeApi(dashboard.address + "/") as api:
        api.set_replicas("org/model", "ModelServer:org--model", 2)
    request = dashboard.requests[0]
    expected = "/api/v1/applications/org%2Fmodel/deployments/ModelServer%3Aorg--model/scale"
    assert (request.method, request.path) == ("POST", expected)
    assert request.body == {"target_num_replicas": 2}


def test_a_refusal_has_the_words_of_serve(dashboard: Dashboard) -> None:
    dashboard.scale_status = 412
    dashboard.scale_answer = {"error": "external_scaler_enabled=false"}
    with (
        ServeApi(dashboard.address) as api,
        pytest.raises(ServeRequestError, match="412 external_scaler_enabled=false"),
    ):
        api.set_replicas("a", "b", 1)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "http://[x"])
def test_an_address_where_nothing_answers_is_named(address: str, dashboard: Dashboard) -> None:
    with socket.socket() as bound_but_not_listening:
        bound_but_not_listening.bind(("127.0.0.1", 0))
        closed = address.format(port=bound_but_not_listening.getsockname()[1])
        with ServeApi(closed) as api, pytest.raises(DashboardUnreachableError) as caught:
            api.details()
    assert closed in str(caught.value)


def test_the_token_is_sent_and_asked_for(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.token = "t0ken"
    with (
        ServeApi(dashboard.address) as api,
        pytest.raises(DashboardAuthError, match="Missing authentication token"),
    ):
        api.details()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0ken")
    with ServeApi(dashboard.address) as api:
        assert "router" in api.details().applications


def test_the_token_is_looked_for_in_rays_order(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auth_headers() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("from-home\n")
    assert auth_headers() == {"Authorization": "Bearer from-home"}
    (tmp_path / "named").write_text("from-path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert auth_headers() == {"Authorization": "Bearer from-path"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-env")
    assert auth_headers() == {"Authorization": "Bearer from-env"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert auth_headers() == {}


@pytest.mark.parametrize(
    ("variable", "value"), [("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN_PATH", "/nowhere/token")]
)
def test_a_token_that_is_asked_for_and_missing_is_an_error(
    variable: str, value: str, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(DashboardAuthError, match="No such file"):
        auth_headers()
