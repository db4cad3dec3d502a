from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deployments.config.app import RouterConfig
from deployments.config.base import describe_errors
from deployments.router.decision.advisors.rules import RuleBook
from scheduler.preferences import Constraints, Weights

FULL = """
- name: night
  when:
    task: [code, mathematics]
    input_tokens: {min: 10, max: 2000}
    language: de
    text: '(?i)urgent'
    header: {X-Team: research|ops}
    key: ann
    time: {zone: Europe/Berlin, days: [fri, sat], from: "22:00", to: "6:00"}
    available: small
    unavailable: [large]
  then:
    require: [small]
    exclude: large
    prefer: small
    weights: {accuracy: 0.7, energy: 0.3}
    policy: constrained
    constraints: {max_latency_s: 5, confidence: 0.9}
    override: true
  continue: true
- name: rest
"""


def configured(rules: Any) -> RouterConfig:
    return RouterConfig.model_validate(
        {"models": [{"id": "small"}, {"id": "large"}], "rules": rules}
    )


def test_a_rule_says_what_the_scheduler_does() -> None:
    night, rest = RuleBook.of(configured(yaml.safe_load(FULL))).rules
    when = night.when
    assert when.tasks == {"code", "mathematics"}
    assert (when.least_input_tokens, when.most_input_tokens) == (10, 2000)
    assert when.languages == {"de"}
    assert when.keys == {"ann"}
    assert when.text is not None
    assert when.text.source == "(?i)urgent"
    assert [(name, value.source) for name, value in when.headers] == [(b"x-team", "research|ops")]
    window = when.window
    assert window is not None
    assert (str(window.zone), window.start, window.end) == ("Europe/Berlin", 1320, 360)
    assert window.days == {4, 5}
    assert when.available == {"small"}
    assert when.unavailable == {"large"}
    assert (night.require, night.exclude, night.prefer) == (("small",), ("large",), ("small",))
    assert night.weights == Weights(0.7, 0.3, 0.0)
    assert (night.policy, night.override, night.goes_on) == ("constrained", True, True)
    assert night.constraints == Constraints(max_latency_s=5, confidence=0.9)
    assert (rest.name, rest.goes_on, rest.weights) == ("rest", False, None)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"when": {"text": "(a"}}, "when.text: Value error, no regular expression of RE2"),
        ({"when": {"header": {"x": "(?=a)"}}}, "when.header.x: Value error, no regular"),
        ({"when": {"header": {"x y": "a"}}}, "no name of a header"),
        ({"when": {"time": {"zone": "Mars/Phobos"}}}, "when.time.zone: Value error, no IANA"),
        ({"when": {"time": {"zone": "../../etc/passwd"}}}, "no IANA time zone"),
        ({"when": {"time": {"from": 1320}}}, "when.time.from: Value error, must be a time of day"),
        ({"when": {"time": {"to": "25:00"}}}, "when.time.to"),
        ({"when": {"time": {"from": "8:00", "to": "08:00"}}}, "from and to are both"),
        ({"when": {"time": {"days": ["monday"]}}}, "when.time.days.0"),
        ({"when": {"language": "english"}}, "when.language.0: Value error, no ISO 639"),
        ({"when": {"input_tokens": {"min": 9, "max": 8}}}, "min 9 is above max 8"),
        ({"when": {"task": []}}, "when.task"),
        ({"when": {"taks": ["code"]}}, "when.taks: Extra inputs are not permitted"),
        ({"then": {"policy": "psychic"}}, "then.policy: Value error, unknown policy"),
        ({"then": {"weights": {"energy": -1}}}, "weights.energy: must be a finite number"),
        ({"then": {"weights": {}}}, "at least one weight must be above 0"),
        ({"then": {"constraints": {"min_accuracy": 2}}}, "constraints.min_accuracy: must be in"),
        ({"then": {"require": []}}, "then.require"),
        ({"goes_on": True}, "goes_on: Extra inputs"),
    ],
)
def test_an_error_names_rule_and_field(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        configured([{"name": "first"}, {"name": "broken", **rule}])
    told = describe_errors(raised.value)
    assert told.startswith("rules.1: rule 'broken': ")
    assert message in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"when": {}}], "rules.0: rule None: name: Field required"),
        (["night"], "rules.0: rule None"),
        ([{"name": "{a}", "when": {"text": "("}}], "'{a}'"),
        ([{"name": "a"}, {"name": "a"}], "two rules are named 'a'"),
        ([{"name": "a", "then": {"policy": "cascade"}}], "rule 'a': then.policy 'cascade' needs"),
    ],
)
def test_rules_without_a_name_of_their_own(rules: Any, message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        configured(rules)
    assert message in describe_errors(raised.value)
