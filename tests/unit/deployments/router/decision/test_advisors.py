"""The optional features of decisions: each can be taken away, and dry runs leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, Site

from deployments.router.decision import decide
from deployments.router.decision.advisors import ADVISORS
from deployments.router.decision.advisors.bandit import BanditAdvisor
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.advisors.quality import QualityAdvisor
from deployments.router.decision.advisors.rules import RulesAdvisor
from deployments.router.decision.advisors.sessions import SessionsAdvisor
from scheduler.policies import POLICIES

EVERYTHING = {
    "models": [{"id": ACCURATE}, {"id": FRUGAL}],
    "rules": [
        {"name": "hush", "when": {"text": "secret"}, "then": {"exclude": [ACCURATE]}},
        {"name": "rest", "then": {"prefer": [FRUGAL]}},
    ],
    "canary": {"policy": "round_robin", "share": 1.0},
    "shadow": {"policy": "static"},
    "bandit": {"explorations_per_hour": 0},
    "cascade": [{"model": FRUGAL, "accept_above": -0.5}, {"model": ACCURATE}],
    "default_policy": "bandit",
}
EXPECTED: dict[str, tuple[str, Any]] = {
    "canary": ("canary", True),
    "rules": ("rules", ["rest"]),
    "sessions": ("session", {"model": None}),
    "bandit": ("bandit", {"explored": False}),
    "shadow": ("shadow", {"policy": "static"}),
}
"""Name of an advisor -> field of the decision, and some of what it says."""
ABSENT = {"canary": False, "rules": []}


def ask(site: Site, path: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    content = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]} | body
    answer = site.request("POST", path, json=content, headers={"x-session-id": "s"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def says(decision: dict[str, Any], name: str) -> bool:
    field, expected = EXPECTED[name]
    found = decision[field]
    if isinstance(expected, dict):
        return isinstance(found, dict) and expected.items() <= found.items()
    return bool(found == expected)


def test_all_features_at_once(site: Site) -> None:
    site.configure(**EVERYTHING)
    decision = ask(site, "/v1/route")
    assert {name: says(decision, name) for name in EXPECTED} == dict.fromkeys(EXPECTED, True)


@pytest.mark.parametrize("gone", [advisor.name for advisor in ADVISORS])
def test_without_one_advisor_everything_else_works(
    gone: str, start_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = tuple(advisor for advisor in ADVISORS if advisor.name != gone)
    assert len(rest) == len(ADVISORS) - 1
    monkeypatch.setattr(decide, "ADVISORS", rest)
    site = start_site()
    site.configure(**EVERYTHING)
    for decision in (ask(site, "/v1/route"), recorded(site, ask(site))):
        assert {name: says(decision, name) for name in EXPECTED} == {
            name: name != gone for name in EXPECTED
        }
        if gone in EXPECTED:
            field = EXPECTED[gone][0]
            assert decision[field] == ABSENT.get(gone)
    for policy in POLICIES:
        asked = ask(site, "/v1/route", routing={"policy": policy} if policy != "utility" else {})
        assert asked["model"] in (ACCURATE, FRUGAL)
    pinned = ask(site, model=ACCURATE)
    assert pinned["routing"]["model"] == ACCURATE
    decision_id = pinned["routing"]["decision_id"]
    rated = {"decision_id": decision_id, "score": 1.0}
    assert site.request("POST", "/v1/feedback", json=rated).status_code == 200
    site.runner.run(site.router.refresh())
    assert site.get("/health")["status"] == "ok"


def recorded(site: Site, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = site.get(f"/v1/decisions/{answer['routing']['decision_id']}")
    return found


def test_a_dry_run_changes_no_state(site: Site) -> None:
    models = EVERYTHING["models"]
    site.configure(models=models, cascade=EVERYTHING["cascade"])
    bandit, sessions = site.advisor(BanditAdvisor), site.advisor(SessionsAdvisor)
    before = site.get("/health")["requests"]
    for policy in POLICIES:
        if policy != "utility":
            ask(site, "/v1/route", routing={"policy": policy})
    assert not bandit.source.used
    assert len(sessions) == 0
    assert site.get("/health")["requests"] == before
    # The next decision is as if there had been no dry run, down to what is reported of it.
    assert recorded(site, ask(site))["bandit"] is None
    ask(site, routing={"policy": "bandit"})
    assert bandit.source.used
    assert recorded(site, ask(site))["bandit"] is not None


def test_a_dry_run_of_the_bandit_shows_what_would_be_decided(site: Site) -> None:
    dry = ask(site, "/v1/route", routing={"policy": "bandit"})
    again = ask(site, "/v1/route", routing={"policy": "bandit"})
    assert dry["bandit"]["context"] == again["bandit"]["context"]
    real = recorded(site, ask(site, routing={"policy": "bandit"}))
    assert real["bandit"]["context"] == dry["bandit"]["context"]


def test_names_are_distinct_and_parts_are_optional() -> None:
    names = [advisor.name for advisor in ADVISORS]
    assert len(set(names)) == len(names)

    class Silent(Advisor):
        name = "silent"

    assert Silent.advise is Advisor.advise
    assert {RulesAdvisor, QualityAdvisor} <= set(ADVISORS)


@pytest.mark.parametrize("part", ["shadow", "canary"])
def test_a_policy_that_is_tried_out_needs_its_settings_too(site: Site, part: str) -> None:
    tried = {"policy": "cascade"} | ({"share": 0.5} if part == "canary" else {})
    site.configure(models=EVERYTHING["models"], **{part: tried})
    (fault,) = site.get("/health")["faults"]
    assert f"{part}.policy 'cascade' needs `cascade`" in fault
