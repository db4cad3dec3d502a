"""The corpus is data: every row can be built and sent, and its bodies are what they claim to be."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from hostile.__main__ import chosen
from hostile.cases import (
    ABSENT,
    CHAT,
    COMPLETIONS,
    ROUTE,
    Case,
    RawJson,
    Target,
    Variant,
    body_of,
    table,
)
from hostile.cases import Right as RightAnswer
from hostile.corpus import corpus

TARGET = Target(("127.0.0.1", 1), ("a", "b"))


def test_names_are_unique_and_have_a_family() -> None:
    names = [case.name for case in corpus()]
    assert len(names) == len(set(names)) > 500
    assert all(name.count("/") >= 1 for name in names)


def test_every_family_has_a_part_in_the_short_form() -> None:
    families = {case.family for case in corpus()}
    short = {case.family for case in corpus() if case.short}
    assert families - short <= {"routes", "templates-wrong"}
    assert len([case for case in corpus() if case.short]) < 100


def test_a_thorough_case_goes_to_every_model_and_route() -> None:
    (case,) = table("f", {"x": {}}, RightAnswer(), thorough=True)
    forms = case.variants(TARGET, 99, 0)
    assert len(forms) == len(set(forms)) == 13
    assert {form.model for form in forms} == {"auto", "a", "b"}
    assert {form.path for form in forms} == {CHAT, COMPLETIONS, ROUTE}
    without_router = Target(("127.0.0.1", 1), ("a",), auto=None, routes=False)
    assert {form.model for form in case.variants(without_router, 99, 0)} == {"a"}
    assert ROUTE not in {form.path for form in case.variants(without_router, 99, 0)}


def test_cases_that_are_sent_in_some_forms_cover_all_of_them_together() -> None:
    (case,) = table("f", {"x": {}}, RightAnswer())
    seen = {form for seed in range(20) for form in case.variants(TARGET, 2, seed)}
    assert seen == set(case.variants(TARGET, 99, 0))


def test_a_thorough_case_that_is_sent_once_goes_where_it_harms_most() -> None:
    (case,) = table("f", {"x": {}}, RightAnswer(), thorough=True)
    seen = {form for seed in range(20) for form in case.variants(TARGET, 1, seed)}
    assert {form.model for form in seen} == {"auto"}
    assert {(form.path, form.stream) for form in seen} == {
        (path, stream) for path in (CHAT, COMPLETIONS) for stream in (True, False)
    }


def test_a_body_is_an_ordinary_one_with_the_fields_of_the_case() -> None:
    chat, plain = Variant(CHAT, "auto", False), Variant(COMPLETIONS, "a", True)
    assert json.loads(body_of(chat, {"n": 2}))["messages"]
    body = json.loads(body_of(plain, {"max_tokens": float("nan"), "stream": ABSENT}))
    assert body["prompt"]
    assert math.isnan(body["max_tokens"])
    assert "stream" not in body
    # What no library writes.
    raw = body_of(plain, {"a": [RawJson("1e400")], "b": RawJson("[" * 5), "c": "\ud800"})
    assert b'"a": [1e400]' in raw
    assert b'"b": [[[[[' in raw
    assert b'"c": "\\ud800"' in raw


def test_a_function_gives_what_is_big() -> None:
    assert len(body_of(Variant(CHAT, "a", False), lambda: {"x": "y" * 10**6})) > 10**6


def test_a_short_form_that_names_no_row_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="'z'"):
        table("f", {"x": {}}, RightAnswer(), short=("z",))


def test_patterns_choose_cases() -> None:
    cases = corpus()
    picked = chosen(cases, "grammars/root-is-root,headers/*ff", short=False)
    assert {case.family for case in picked} == {"grammars", "headers"}
    assert picked[0].family == "grammars"
    assert all(case.short for case in chosen(cases, None, short=True))
    assert chosen(cases, "nothing/*", short=False) == []


def test_every_case_can_be_sent() -> None:
    async def sent(case: Case) -> int:
        # Nobody listens there: what is sent is built, and the connection refused.
        answers = await case.act(TARGET, case.variants(TARGET, 1, 0)[0])
        assert all(answer.status is None for answer in answers)
        return len(answers)

    async def run() -> None:
        for case in corpus():
            # Those of whole seconds or hundreds of connections.
            if case.family not in ("floods", "leaving"):
                assert await sent(case) > 0, case.name

    asyncio.run(run())
