from __future__ import annotations

from dataclasses import fields
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from scheduler.rules.checks import KnownNames, check_rules, covers
from scheduler.rules.expressions import Expression
from scheduler.rules.rules import Conditions, Rule, Window

KNOWN = KnownNames(models=("small", "large"), tasks=("code", "chat"), keys=("ann",))
CODE = frozenset({"code"})


@pytest.mark.parametrize(
    ("rule", "sayings"),
    [
        (Rule("r", require=("small",), prefer=("small",)), []),
        (Rule("r", Conditions(tasks=CODE, keys=frozenset({"ann"})), exclude=("small",)), []),
        (Rule("r", prefer=("huge",)), ["then.prefer: no model 'huge', known: small, large"]),
        (
            Rule("r", Conditions(unavailable=frozenset({"huge"}))),
            ["when.unavailable: no model 'huge'", "when.unavailable: never fits"],
        ),
        (Rule("r", Conditions(tasks=frozenset({"poetry"}))), ["when.task: no prompt is found"]),
        (
            Rule("r", Conditions(keys=frozenset({"bob"}))),
            ["when.key: no API key is named 'bob', never fits"],
        ),
        (
            Rule("r", require=("small", "large"), exclude=("large",)),
            ["then.require, then.exclude: both name 'large'"],
        ),
        (
            Rule("r", require=("small",), exclude=("small",)),
            ["both name 'small'", "then: leaves no model"],
        ),
        (Rule("r", exclude=("small", "large")), ["then: leaves no model"]),
        (Rule("r", require=("huge",)), ["no model 'huge'", "then: leaves no model"]),
        (Rule("r", require=("small",), prefer=("large",)), ["then.prefer: 'large' may not answer"]),
    ],
)
def test_what_looks_wrong_in_one_rule(rule: Rule, sayings: list[str]) -> None:
    found = check_rules([rule], KNOWN)
    assert len(found) == len(sayings), found
    for warning, saying in zip(found, sayings, strict=True):
        assert warning.startswith("rule 'r': ")
        assert saying in warning


def test_keys_that_are_not_known_are_not_missed() -> None:
    unread = KnownNames(KNOWN.models, KNOWN.tasks, None)
    assert check_rules([Rule("r", Conditions(keys=frozenset({"bob"})))], unread) == []


def test_a_rule_behind_a_wider_one_never_fits() -> None:
    rules = [
        Rule("all code", Conditions(tasks=CODE)),
        Rule("long code", Conditions(tasks=CODE, least_input_tokens=9)),
    ]
    assert check_rules(rules, KNOWN) == [
        "rule 'long code': never fits, rule 'all code' before it takes every request that it is for"
    ]
    assert check_rules(rules[::-1], KNOWN) == []
    going_on = Rule("all code", Conditions(tasks=CODE), goes_on=True)
    assert check_rules([going_on, rules[1]], KNOWN) == []


BERLIN = ZoneInfo("Europe/Berlin")
WORK = {"window": Window(BERLIN, 8 * 60, 18 * 60, frozenset(range(5)))}


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ({}, {"tasks": CODE}, True),
        ({"tasks": CODE}, {}, False),
        ({"tasks": CODE | {"chat"}}, {"tasks": CODE}, True),
        ({"tasks": CODE}, {"tasks": CODE | {"chat"}}, False),
        ({"least_input_tokens": 5}, {"least_input_tokens": 5}, True),
        ({"least_input_tokens": 6}, {"least_input_tokens": 5}, False),
        ({"most_input_tokens": 5}, {"most_input_tokens": 4}, True),
        ({"most_input_tokens": 5}, {}, False),
        ({"text": Expression("a")}, {"text": Expression("a")}, True),
        ({"text": Expression("a")}, {"text": Expression("ab")}, False),
        ({"text": Expression(".*")}, {"text": Expression("ab")}, True),
        ({"headers": ((b"x", Expression(".*")),)}, {"headers": ((b"x", Expression("1")),)}, True),
        ({"headers": ((b"x", Expression("1")),)}, {"headers": ((b"y", Expression("1")),)}, False),
        ({"unavailable": frozenset("ab")}, {"unavailable": frozenset("a")}, True),
        (WORK, {"window": Window(BERLIN, 9 * 60, 18 * 60, frozenset({0}))}, True),
        (WORK, {"window": Window(BERLIN, 7 * 60, 9 * 60, frozenset({0}))}, False),
        (WORK, {"window": Window(BERLIN, 9 * 60, 10 * 60)}, False),
        (WORK, {"window": Window(UTC, 9 * 60, 10 * 60, frozenset({0}))}, False),
        (WORK, {}, False),
        ({"window": Window(UTC, 1320, 360)}, {"window": Window(UTC, 1380, 300)}, True),
        ({"window": Window(UTC, 1320, 360)}, {"window": Window(UTC, 1380, 420)}, False),
    ],
)
def test_wider_conditions(wide: dict[str, Any], narrow: dict[str, Any], expected: bool) -> None:
    assert covers(Conditions(**wide), Conditions(**narrow)) is expected


NARROW: dict[str, Any] = WORK | {
    "tasks": CODE,
    "least_input_tokens": 1,
    "most_input_tokens": 9,
    "languages": frozenset({"de"}),
    "text": Expression("a"),
    "headers": ((b"x", Expression("1")),),
    "keys": frozenset({"ann"}),
    "unavailable": frozenset({"small"}),
    "available": frozenset({"small"}),
}


@pytest.mark.parametrize("condition", [field.name for field in fields(Conditions)])
def test_every_condition_is_compared(condition: str) -> None:
    only = Conditions(**{condition: NARROW[condition]})
    assert not covers(only, Conditions())
    assert covers(only, only)
