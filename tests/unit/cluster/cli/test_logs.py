from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from dashboard_double import Dashboard

from cluster.__main__ import main


@pytest.fixture
def logs(dashboard: Dashboard) -> Dashboard:
    dashboard.logs = {"serve/replica_r1.log": "INFO first\nWARNING [second]\n"}
    return dashboard


def test_the_lines_of_one_model(logs: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "steady-1.5", "-n", "2", "--address", logs.address]) == 0
    assert capsys.readouterr().out == "INFO first\nWARNING [second]\n"
    (asked,) = (r for r in logs.requests if "/logs/" in r.path)
    query = parse_qs(urlsplit(asked.path).query)
    assert query == {"node_id": ["n1"], "filename": ["serve/replica_r1.log"], "lines": ["2"]}


def test_of_all_every_line_names_its_replica(
    logs: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "--address", logs.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "router: INFO first"
    assert "steady-1.5 r1: WARNING [second]" in lines


def test_following_goes_on_until_the_end(
    logs: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "router", "--follow", "--address", logs.address]) == 0
    assert capsys.readouterr().out == "INFO first\nWARNING [second]\n"
    (asked,) = (r for r in logs.requests if "/logs/" in r.path)
    assert asked.path.startswith("/api/v0/logs/stream?")


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_a_file_that_is_gone_is_an_error(
    dashboard: Dashboard, follow: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", "router", *follow, "--address", dashboard.address]) == 1
    assert "no file serve/replica_r1.log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [("nix", "unknown model 'nix'; deployed: router, steady-1.5"), ("broken", "no replica")],
)
def test_what_has_no_log_is_2(
    logs: Dashboard, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", name, "--address", logs.address]) == 2
    assert message in capsys.readouterr().err
