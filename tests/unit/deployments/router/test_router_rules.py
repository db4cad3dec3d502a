"""Rules over HTTP: what they do to requests, and what the router says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_serve import ACCURATE, FRUGAL, Site

from deployments.router.access.keys import hash_of

MODELS = [{"id": ACCURATE}, {"id": FRUGAL}]


def route(site: Site, headers: dict[str, str] | None = None, **body: Any) -> Any:
    json = {"model": "auto", "prompt": "Hello"} | body
    return site.request("POST", "/v1/route", json=json, headers=headers or {})


def test_the_rule_that_fits_decides_and_is_named(site: Site) -> None:
    rules = [
        {"name": "team", "when": {"header": {"X-Team": "ops"}}, "then": {"require": ACCURATE}},
        {"name": "secret", "when": {"text": "(?i)secret"}, "then": {"exclude": ACCURATE}},
    ]
    site.configure(models=MODELS, rules=rules)
    asked = route(site, {"x-team": "ops"}, prompt="A secret").json()
    assert (asked["model"], asked["rules"]) == (ACCURATE, ["team"])
    (excluded,) = asked["excluded"]
    assert (excluded["model"], excluded["kind"], excluded["field"]) == (FRUGAL, "rule", None)
    assert excluded["reason"] == f"rule 'team' requires {ACCURATE}"
    hidden = site.complete(prompt="A SECRET", routing={"weights": {"accuracy": 1}}).json()
    assert (hidden["model"], hidden["routing"]["rules"]) == (FRUGAL, ["secret"])
    plain = site.complete(routing={"weights": {"accuracy": 1}}).json()
    assert (plain["model"], plain["routing"]["rules"]) == (ACCURATE, [])
    assert site.get("/v1/decisions")["data"][1]["rules"] == ["secret"]


def test_what_a_rule_bars_nobody_gets(site: Site) -> None:
    site.configure(models=MODELS, rules=[{"name": "r", "then": {"exclude": ACCURATE}}])
    for body in ({"model": ACCURATE}, {"routing": {"models": [ACCURATE]}}):
        answer = site.complete(**body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (
            403,
            "barred_by_rules",
            "model",
        )
        assert "rule 'r' excludes it" in error["message"]
    assert site.complete(model=FRUGAL).status_code == 200


def test_weights_policy_and_constraints_of_a_rule(site: Site) -> None:
    effects = {
        "weights": {"energy": 1},
        "policy": "random",
        "constraints": {"max_latency_s": 1e-9},
    }
    site.configure(models=MODELS, rules=[{"name": "r", "then": effects}])
    refused = route(site)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "constraints_not_met")
    assert "(limits of rule 'r')" in refused.json()["error"]["message"]
    del effects["constraints"]
    asked = {"weights": {"accuracy": 1}, "policy": "weighted"}
    for override, policy, energy in ((False, "weighted", 0), (True, "random", 1)):
        then = effects | {"override": override}
        site.configure(models=MODELS, rules=[{"name": "r", "then": then}])
        decision = route(site, routing=asked).json()
        assert (decision["policy"], decision["weights"]["energy"]) == (policy, energy)
    site.configure(models=MODELS, rules=[{"name": "r", "then": effects}])
    assert route(site).json()["policy"] == "random"


def test_task_language_tokens_and_health(site: Site) -> None:
    when = {
        "task": "translation",
        "language": "en",
        "input_tokens": {"min": 5},
        "unavailable": "gone",
        "time": {"zone": "Europe/Berlin"},
    }
    site.configure(
        models=[*MODELS, {"id": "gone"}], rules=[{"name": "r", "when": when}, {"name": "rest"}]
    )
    text = "Please translate this sentence about the weather for my friends into German."
    assert route(site, prompt=text).json()["rules"] == ["r"]
    assert route(site, prompt=text, routing={"task": "chat"}).json()["rules"] == ["rest"]
    assert route(site, prompt="translate").json()["rules"] == ["rest"]


def test_all_messages_and_prompts_are_searched(site: Site) -> None:
    rules = [{"name": "secret", "when": {"text": "secret"}, "then": {"exclude": ACCURATE}}]
    site.configure(models=MODELS, rules=rules)
    parts = [{"type": "text", "text": "a secret"}, {"type": "image_url"}]
    conversations: list[list[dict[str, Any]]] = [
        [{"role": "system", "content": "This is secret."}, {"role": "user", "content": "Hello"}],
        [{"role": "user", "content": parts}, {"role": "user", "content": "Hello"}],
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": None}],
    ]
    for messages, names in zip(conversations, (["secret"], ["secret"], []), strict=True):
        body = {"model": "auto", "messages": messages}
        assert site.request("POST", "/v1/route", json=body).json()["rules"] == names
    for prompt, names in ((["Hello", "secret"], ["secret"]), ([1, 2], []), ([[1], [2]], [])):
        assert route(site, prompt=prompt).json()["rules"] == names


def test_rules_for_keys(start_site: Callable[..., Site], tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([{"name": n, "sha256": hash_of(n)} for n in ("ann", "bob")]))
    site = start_site(keys_file=str(path))
    rules = [
        {"name": "ann's", "when": {"key": "ann"}, "then": {"require": FRUGAL}},
        {"name": "nobody", "when": {"key": "eve"}},
    ]
    rules[0]["name"] = "of ann"
    site.configure(models=MODELS, rules=rules)
    names = [route(site, {"authorization": f"Bearer {n}"}).json()["rules"] for n in ("ann", "bob")]
    assert names == [["of ann"], []]
    warnings = site.get("/health", headers={"authorization": "Bearer ann"})["warnings"]
    assert "rule 'nobody': when.key: no API key is named 'eve', never fits" in warnings


def test_odd_rules_are_told_at_start(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    rules = [{"name": "all"}, {"name": "late", "then": {"exclude": "huge"}}]
    caplog.set_level(logging.WARNING, "ray.serve")
    logging.getLogger("ray.serve").addHandler(caplog.handler)
    site.configure(models=MODELS, rules=rules)
    site.configure(models=MODELS, rules=rules)
    logging.getLogger("ray.serve").removeHandler(caplog.handler)
    health = site.get("/health")
    told = [w for w in health["warnings"] if w.startswith("rule ")]
    assert len(told) == 2
    assert "then.exclude: no model 'huge'" in told[0]
    assert "never fits, rule 'all'" in told[1]
    assert health["status"] == "ok"
    # Each once, however often the same configuration comes.
    assert [r.message for r in caplog.records if r.message in told] == told


def test_wrong_rules_leave_those_of_before(site: Site) -> None:
    site.configure(models=MODELS, rules=[{"name": "good"}])
    site.configure(models=MODELS, rules=[{"name": "bad", "when": {"text": "("}}])
    health = site.get("/health")
    assert health["status"] == "degraded"
    assert "rules.0: rule 'bad': when.text" in health["faults"][0]
    assert route(site).json()["rules"] == ["good"]
