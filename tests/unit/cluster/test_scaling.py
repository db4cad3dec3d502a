from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dashboard_double import Dashboard

from cluster.scaling import (
    ScalingError,
    ScalingUsageError,
    UnknownModelError,
    config_with_bounds,
    find_model,
    scale_auto,
    scale_fixed,
)
from cluster.serve_api import Application, ReplicaRange, ServeApi, parse_details


@pytest.fixture
def api(dashboard: Dashboard) -> Iterator[ServeApi]:
    with ServeApi(dashboard.address) as client:
        yield client


def ignore(_: Application) -> None:
    """A progress display that shows nothing."""


def test_scale_fixed_reports_before_and_after(api: ServeApi, dashboard: Dashboard) -> None:
    result = scale_fixed(api, "steady-1.5", 3, timeout_s=5, on_progress=ignore)
    assert (result.replicas_before, result.replicas_after) == (1, 3)
    assert [request.method for request in dashboard.requests] == ["GET", "POST", "GET"]


def test_an_answer_of_200_that_changed_nothing_is_a_failure(
    api: ServeApi, dashboard: Dashboard
) -> None:
    dashboard.scale_changes_target = False
    with pytest.raises(ScalingError, match=r"asked for 3 replicas .* its target is 1"):
        scale_fixed(api, "steady-1.5", 3, timeout_s=5, on_progress=ignore)


def test_replicas_that_do_not_come_up_are_a_failure_with_their_states(
    api: ServeApi, dashboard: Dashboard
) -> None:
    deployment = dashboard.details["applications"]["steady-1.5"]["deployments"]
    dashboard.scale_changes_target = False
    deployment["ModelServer:steady-1_5"] |= {
        "target_num_replicas": 2,
        "message": "no node has a free GPU",
        "replicas": [
            {"replica_id": "a", "state": "RUNNING"},
            {"replica_id": "b", "state": "STARTING"},
        ],
    }
    with pytest.raises(ScalingError, match="after 0 s: RUNNING, STARTING: no node has a free GPU"):
        scale_fixed(api, "steady-1.5", 2, timeout_s=0, on_progress=ignore)


@pytest.mark.parametrize(
    ("model", "replicas", "message"),
    [
        ("steady-1.5", -1, "replicas: must be 0 or more, got -1"),
        ("elastic", 2, r"scaled automatically \(1 to 2 replicas\): give --min and --max"),
        ("broken", 2, "not up yet .DEPLOY_FAILED: No module named 'm'"),
    ],
)
def test_scale_fixed_refuses_before_it_changes_anything(
    model: str, replicas: int, message: str, api: ServeApi, dashboard: Dashboard
) -> None:
    with pytest.raises(ScalingUsageError, match=message):
        scale_fixed(api, model, replicas, timeout_s=5, on_progress=ignore)
    assert all(request.method == "GET" for request in dashboard.requests)


def test_scale_fixed_says_which_setting_is_missing(api: ServeApi, dashboard: Dashboard) -> None:
    dashboard.details["applications"]["steady-1.5"]["external_scaler_enabled"] = False
    with pytest.raises(ScalingUsageError, match="external_scaler_enabled: true"):
        scale_fixed(api, "steady-1.5", 2, timeout_s=5, on_progress=ignore)


@pytest.mark.parametrize("model", ["nix", "router", "from-python"])
def test_what_serves_no_model_is_unknown(model: str, details: dict[str, Any]) -> None:
    with pytest.raises(UnknownModelError, match=r"deployed models: steady-1\.5, elastic, broken"):
        find_model(parse_details(details), model)


def test_config_with_bounds_changes_one_application(details: dict[str, Any]) -> None:
    config = config_with_bounds(parse_details(details), "elastic", ReplicaRange(0, 4))
    assert config["http_options"] == {"host": "127.0.0.1", "port": 8000}
    by_name = {app["name"]: app for app in config["applications"]}
    assert set(by_name) == {"router", "steady-1.5", "elastic", "broken"}
    assert by_name["elastic"]["runtime_env"] == {"env_vars": {"API_KEY": "secret"}}
    assert by_name["elastic"]["args"]["scaling"] == {
        "mode": "auto",
        "min_replicas": 0,
        "max_replicas": 4,
        "extra": 1,
    }
    before = details["applications"]["steady-1.5"]["deployed_app_config"]
    assert by_name["steady-1.5"] == before
    untouched = details["applications"]["elastic"]["deployed_app_config"]
    assert untouched["args"]["scaling"]["max_replicas"] == 2


@pytest.mark.parametrize(
    ("model", "bounds", "message"),
    [
        ("steady-1.5", ReplicaRange(1, 2), "has a fixed number of replicas"),
        ("elastic", ReplicaRange(3, 2), "--min, --max: .* got 3 and 2"),
        ("elastic", ReplicaRange(-1, 2), "got -1 and 2"),
        ("elastic", ReplicaRange(0, 0), "got 0 and 0"),
    ],
)
def test_scale_auto_refuses_before_it_changes_anything(
    model: str, bounds: ReplicaRange, message: str, api: ServeApi, dashboard: Dashboard
) -> None:
    with pytest.raises(ScalingUsageError, match=message):
        scale_auto(api, model, bounds, timeout_s=5, on_progress=ignore)
    assert all(request.method == "GET" for request in dashboard.requests)


def test_scale_auto_stops_waiting_when_the_application_failed(
    api: ServeApi, dashboard: Dashboard
) -> None:
    dashboard.details["applications"]["elastic"] |= {
        "status": "DEPLOY_FAILED",
        "message": "args.scaling: bad",
    }
    with pytest.raises(ScalingError, match=r"deployment failed: RUNNING: args\.scaling: bad"):
        scale_auto(api, "elastic", ReplicaRange(2, 3), timeout_s=60, on_progress=ignore)
    assert [request.method for request in dashboard.requests] == ["GET", "PUT", "GET"]
