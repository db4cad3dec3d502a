from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.preferences import Constraints, Weights
from scheduler.prompts.language import language_of
from scheduler.rules.expressions import Expression
from scheduler.rules.rules import NO_RULING, Conditions, Facts, Rule, Ruling, Window, apply_rules

# A Friday.
NOON = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)
FACTS = Facts(
    text="Please translate this.\nBest regards",
    task="translation",
    input_tokens=100,
    now=NOON,
    language="en",
    headers=((b"x-team", b"research"), (b"x-team", b"ops")),
    key="ann",
    unavailable=frozenset({"large"}),
)
ACCURATE, FRUGAL = Weights(1, 0, 0), Weights(0, 1, 0)


@pytest.mark.parametrize(
    ("conditions", "fit"),
    [
        ({}, True),
        ({"tasks": frozenset({"code", "translation"})}, True),
        ({"tasks": frozenset({"code"})}, False),
        ({"least_input_tokens": 100, "most_input_tokens": 100}, True),
        ({"least_input_tokens": 101}, False),
        ({"most_input_tokens": 99}, False),
        ({"languages": frozenset({"de", "en"})}, True),
        ({"languages": frozenset({"de"})}, False),
        ({"text": Expression("(?i)TRANSLATE|summarize")}, True),
        ({"text": Expression("^translate")}, False),
        ({"headers": ((b"x-team", Expression("ops")),)}, True),
        # As a whole, and of one header.
        ({"headers": ((b"x-team", Expression("op")),)}, False),
        ({"headers": ((b"x-other", Expression(".*")),)}, False),
        ({"keys": frozenset({"ann", "bob"})}, True),
        ({"keys": frozenset({"bob"})}, False),
        ({"unavailable": frozenset({"large", "small"})}, True),
        ({"unavailable": frozenset({"small"})}, False),
        ({"available": frozenset({"large", "small"})}, True),
        ({"available": frozenset({"large"})}, False),
        ({"window": Window(UTC, 11 * 60, 13 * 60)}, True),
        ({"tasks": frozenset({"translation"}), "keys": frozenset({"bob"})}, False),
    ],
)
def test_all_conditions_must_hold_and_any_value_of_each(
    conditions: dict[str, Any], fit: bool
) -> None:
    assert Conditions(**conditions).hold(FACTS) is fit


def test_who_has_no_key_fits_no_condition_on_keys() -> None:
    assert not Conditions(keys=frozenset({"ann"})).hold(replace(FACTS, key=None))


@pytest.mark.parametrize(
    ("hour", "minute", "inside"),
    [(21, 59, False), (22, 0, True), (0, 0, True), (5, 59, True), (6, 0, False), (12, 0, False)],
)
def test_a_window_over_midnight(hour: int, minute: int, inside: bool) -> None:
    window = Window(UTC, 22 * 60, 6 * 60)
    assert window.holds(NOON.replace(hour=hour, minute=minute)) is inside


def test_a_window_belongs_to_the_day_that_it_begins_on() -> None:
    window = Window(UTC, 22 * 60, 6 * 60, days=frozenset({4}))
    assert window.holds(NOON.replace(hour=23))
    assert window.holds(NOON.replace(day=7, hour=5))
    assert not window.holds(NOON.replace(hour=5))
    assert not window.holds(NOON.replace(day=7, hour=23))


def test_the_clock_of_the_zone_counts_summer_time_included() -> None:
    window = Window(ZoneInfo("Europe/Berlin"), 8 * 60, 18 * 60)
    # One hour ahead of UTC in winter, two in summer.
    assert not window.holds(datetime(2026, 1, 5, 6, 59, tzinfo=UTC))
    assert window.holds(datetime(2026, 1, 5, 7, 0, tzinfo=UTC))
    assert window.holds(datetime(2026, 7, 6, 6, 0, tzinfo=UTC))
    assert not window.holds(datetime(2026, 7, 6, 16, 0, tzinfo=UTC))


def test_the_first_that_fits_counts() -> None:
    never = Conditions(tasks=frozenset({"code"}))
    rules = [Rule("never", never), Rule("first"), Rule("second")]
    assert apply_rules(rules, FACTS).names == ("first",)
    assert apply_rules(rules[:1], FACTS) is NO_RULING


def test_rules_that_go_on_add_up() -> None:
    rules = [
        Rule("a", exclude=("x",), weights=ACCURATE, goes_on=True),
        Rule("b", require=("y", "x"), prefer=("y",), weights=FRUGAL, policy="random", goes_on=True),
        Rule("c", prefer=("z",), policy="static"),
        Rule("d", exclude=("y",)),
    ]
    ruling = apply_rules(rules, FACTS)
    assert ruling.names == ("a", "b", "c")
    assert ruling.bars("x") == "rule 'a' excludes it"
    assert ruling.bars("z") == "rule 'b' requires y or x"
    assert ruling.bars("y") is None
    assert ruling.preferred == ("y",)
    assert ruling.weights(None, Weights()) == ACCURATE
    assert ruling.policy(None, "weighted") == "random"


def test_a_request_has_its_own_weights_and_policy_unless_a_rule_overrides() -> None:
    gentle = Ruling((Rule("r", weights=FRUGAL, policy="static"),))
    assert gentle.weights(ACCURATE, Weights()) == ACCURATE
    assert gentle.policy("random", "weighted") == "random"
    assert gentle.weights(None, Weights()) == FRUGAL
    strict = Ruling((replace(gentle.rules[0], override=True),))
    assert strict.weights(ACCURATE, Weights()) == FRUGAL
    assert strict.policy("random", "weighted") == "static"
    assert NO_RULING.weights(None, ACCURATE) == ACCURATE
    assert NO_RULING.policy(None, "weighted") == "weighted"


def test_constraints_of_rule_and_request_both_hold() -> None:
    rules = (
        Rule("r", constraints=Constraints(max_latency_s=5, min_accuracy=0.5)),
        Rule("s", constraints=Constraints(max_latency_s=7, confidence=0.8)),
    )
    asked = Constraints(max_latency_s=9, max_energy_joules=3, min_accuracy=0.6)
    assert Ruling(rules).constraints(asked) == Constraints(5, 3, 0.6, 0.8)
    assert NO_RULING.constraints(asked) is asked
    assert Ruling(rules).constraining == ("r", "s")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("(a", "missing )"),
        (r"(a)\1", "invalid escape"),
        ("(?=a)", "invalid perl operator"),
        ("(a{1000}){1000}", "invalid repetition size"),
        ("\ud800", "surrogates"),
    ],
)
def test_what_could_run_away_is_no_expression(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(")", r"\)")):
        Expression(source)


def test_a_hostile_expression_on_a_hostile_text_ends() -> None:
    # Exponential in a backtracking engine.
    assert not Expression(r"^(a+)+$").matches(b"a" * 100_000 + b"b")
    assert not Expression(r"(x+x+)+y").found_in(b"x" * 100_000)


@given(st.text())
def test_any_text_can_be_searched(text: str) -> None:
    facts = replace(FACTS, text=text)
    assert Conditions(text=Expression("(?s)^.*$")).hold(facts)
    language_of(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Schreibe mir bitte einen kurzen Brief an meinen Vermieter.", "de"),
        ("Please write a short letter to my landlord.", "en"),
        ("Напиши письмо моему хозяину", "ru"),
        ("法国的首都是什么?", "zh"),
        ("מהי בירת צרפת?", "he"),
        ("\x00Please write a short letter to my landlord.", "en"),
        ("12 + 17 =", ""),
        ("\ud800", ""),
        ("", ""),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language
