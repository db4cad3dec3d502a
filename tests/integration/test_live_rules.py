"""The operator's rules at a live router: deployed, redeployed, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browser import Visitor, running_browser
from live_cluster import Cluster
from playwright.sync_api import expect

pytestmark = pytest.mark.integration

CODE = "Write a Python function that sorts a list of numbers."
RULES = [
    {
        "name": "research takes the large one",
        "when": {"header": {"x-team": "research|ops"}},
        "then": {"require": "tiny-phi3"},
    },
    {"name": "code stays cheap", "when": {"task": "code"}, "then": {"exclude": "tiny-phi3"}},
]
ACCURATE = {"weights": {"accuracy": 1}}


@pytest.fixture(scope="module")
def ruled(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with rules, and afterwards as it was."""
    settings = user_config(cluster)
    pids = [process.pid for process in cluster.routers()]
    settings["rules"] = RULES
    cluster.deploy()
    cluster.wait_until("the rules hold", lambda: route(cluster)["rules"])
    assert [process.pid for process in cluster.routers()] == pids
    yield cluster
    del settings["rules"]
    cluster.deploy()
    cluster.wait_until("no rules hold", lambda: not route(cluster)["rules"])


def user_config(cluster: Cluster) -> dict[str, Any]:
    (router,) = cluster.config["applications"][0]["deployments"]
    settings: dict[str, Any] = router["user_config"]
    return settings


def route(cluster: Cluster, prompt: str = CODE, team: str | None = None) -> dict[str, Any]:
    response = ask(cluster, "/v1/route", prompt, team)
    assert response.status_code == 200, response.text
    decision: dict[str, Any] = response.json()
    return decision


def ask(cluster: Cluster, path: str, prompt: str, team: str | None = None) -> httpx.Response:
    body = {"model": "auto", "prompt": prompt, "max_tokens": 8, "routing": ACCURATE}
    headers = {"x-team": team} if team else {}
    return httpx.post(f"{cluster.url}{path}", json=body, headers=headers, timeout=60)


def test_the_dry_run_says_what_was_found_and_why(ruled: Cluster) -> None:
    decision = route(ruled)
    assert (decision["task"], decision["rules"]) == ("code", ["code stays cheap"])
    assert decision["model"] == "tiny-mistral"
    (excluded,) = decision["excluded"]
    assert excluded["model"] == "tiny-phi3"
    assert "code stays cheap" in excluded["reason"]


@pytest.mark.parametrize(
    ("prompt", "team", "rules", "model"),
    [
        (CODE, None, ["code stays cheap"], "tiny-mistral"),
        (CODE, "research", ["research takes the large one"], "tiny-phi3"),
        (CODE, "researchers", ["code stays cheap"], "tiny-mistral"),
        ("Good morning! How are you?", None, [], "tiny-phi3"),
    ],
)
def test_answers_come_from_the_model_that_the_rules_leave(
    ruled: Cluster, prompt: str, team: str | None, rules: list[str], model: str
) -> None:
    answer = ask(ruled, "/v1/completions", prompt, team)
    assert answer.headers["x-routed-model"] == model
    assert answer.json()["routing"]["rules"] == rules


def test_the_page_names_the_rule(ruled: Cluster) -> None:
    with running_browser() as browser:
        visitor = Visitor(browser, ruled.url)
        page = visitor.open()
        page.locator("#prompt").fill(CODE)
        expect(page.locator("main")).to_contain_text("By the operator's rule code stays cheap.")
        expect(page.locator("main")).to_contain_text("tiny-phi3")
        visitor.check()
        visitor.leave()


def test_a_rule_that_is_wrong_changes_nothing(ruled: Cluster) -> None:
    settings = user_config(ruled)
    settings["rules"] = [{"name": "broken", "when": {"text": "("}, "then": {"exclude": "x"}}]
    ruled.deploy()
    try:
        ruled.wait_until("it is told", lambda: "broken" in str(ruled.get("/health")))
        (fault,) = ruled.get("/health")["faults"]
        assert "when.text" in fault
        assert route(ruled)["rules"] == ["code stays cheap"]
    finally:
        settings["rules"] = RULES
        ruled.deploy()
    ruled.wait_until("all is well", lambda: ruled.get("/health")["status"] == "ok")
