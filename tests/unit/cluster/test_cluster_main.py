from __future__ import annotations

import json

import pytest
from dashboard_double import Dashboard

from cluster.__main__ import main


def test_status_shows_every_application(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", dashboard.address]) == 0
    printed = capsys.readouterr().out
    for text in ("router", "steady-1.5", "1/1", "auto 1-2", "fixed"):
        assert text in printed
    assert "broken: No module named 'm'" in printed


def test_status_json_is_complete_and_has_no_secrets(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json", "--address", dashboard.address]) == 0
    printed = capsys.readouterr().out
    assert "secret" not in printed
    applications = {application["name"]: application for application in json.loads(printed)}
    assert applications["elastic"]["deployments"][0]["autoscaling"] == {"minimum": 1, "maximum": 2}
    assert applications["steady-1.5"]["deployments"][0]["replicas"][0]["state"] == "RUNNING"


def test_watching_shows_the_same_until_it_is_interrupted(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    for command in (["top"], ["status", "--watch"]):
        slept.clear()
        assert main([*command, "--interval", "3", "--address", dashboard.address]) == 0
        assert slept == [3.0, 3.0]
        assert "steady-1.5" in capsys.readouterr().out


def test_watching_and_json_do_not_go_together(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--watch", "--json", "--address", dashboard.address]) == 2


def test_status_of_an_empty_ray(dashboard: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard.details = {"applications": {}}
    assert main(["status", "--address", dashboard.address]) == 0
    assert "nothing is deployed" in capsys.readouterr().out


def test_an_unreachable_dashboard_is_one_line_and_1(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", "http://127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "http://127.0.0.1:1" in error


def test_the_address_comes_from_the_variable_that_ray_reads(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", dashboard.address)
    assert main(["status"]) == 0


def test_scale_prints_what_it_did(dashboard: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scale", "steady-1.5", "2", "--address", dashboard.address]
    assert main(arguments) == 0
    assert "steady-1.5: 1 -> 2 running replicas" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replicas_after"] == 2


def test_scale_of_an_unknown_model_is_2_and_names_the_known(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale", "nix", "2", "--address", dashboard.address]) == 2
    assert "unknown model 'nix'; deployed models: steady-1.5" in capsys.readouterr().err


def test_scale_that_changed_nothing_is_1(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.scale_changes_target = False
    assert main(["scale", "steady-1.5", "2", "--address", dashboard.address]) == 1
    assert "its target is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "count",
    [[], ["--min", "1"], ["--max", "1"], ["2", "--min", "1", "--max", "2"], ["2", "--max", "3"]],
)
def test_scale_takes_a_number_or_bounds(
    count: list[str], dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale", "steady-1.5", *count, "--address", dashboard.address]) == 2
    assert "either a number of replicas, or both --min and --max" in capsys.readouterr().err
    assert dashboard.requests == []


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(
        command in printed for command in ("status", "top", "nodes", "scale", "logs", "up", "down")
    )
