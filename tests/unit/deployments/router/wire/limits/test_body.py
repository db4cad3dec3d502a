from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.config.limits import Limits
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.limits import references
from deployments.router.wire.limits.body import (
    ENGINE_FIELDS,
    check_members,
    check_size,
    parse_bounded,
)
from deployments.router.wire.openai import ParsedRequest
from scheduler.errors import InvalidRequestError

CHAT: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
LIMITS = Limits()
CYCLE = {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}


def parse(body: Any, limits: Limits = LIMITS) -> ParsedRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_bounded(raw, None, limits)


def rejection(body: Any, limits: Limits = LIMITS) -> ApiError:
    with pytest.raises(ApiError) as raised:
        parse(body, limits)
    assert raised.value.status == 400
    assert raised.value.param is None or str(raised.value).startswith(raised.value.param)
    return raised.value


def with_schema(schema: Any) -> dict[str, Any]:
    """The schema in each of the places that the engine compiles one from."""
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "structured_outputs": {"json": schema},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
    }


def nested(levels: int) -> Any:
    return json.loads('{"items":' * levels + "{}" + "}" * levels)


POISON = {
    "many items": {"type": "array", "minItems": 1_000_000_000},
    "items as a float": {"type": "array", "minItems": 1e300},
    "long text": {"type": "string", "maxLength": 10**12},
    "repeated pattern": {"type": "string", "pattern": "^.{1,2000}$"},
    "nested repetitions": {"type": "string", "pattern": "((a{1,40}){2}b){1,40}"},
    "a property that is called default": {
        "type": "object",
        "properties": {"default": {"type": "array", "minItems": 10**9}},
    },
    "a pattern as a name": {"type": "object", "patternProperties": {"^.{5000}$": {}}},
    "deep": nested(100),
    "deeper than the encoder goes": nested(400),
    "many choices": {"enum": [str(index) for index in range(6000)]},
    "choices in several places": {"anyOf": [{"enum": list(range(3000))}] * 2},
    "many properties": {"properties": {f"p{index}": {} for index in range(6000)}},
    "circular": CYCLE,
    "circular over two": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}},
    },
    "circular to the root": {"allOf": [{"$ref": "#"}]},
}


@pytest.mark.parametrize("schema", POISON.values(), ids=POISON)
@pytest.mark.parametrize("place", ["response_format", "structured_outputs", "tools"])
def test_a_schema_beyond_the_limits_is_rejected_wherever_it_stands(place: str, schema: Any) -> None:
    error = rejection({**CHAT, place: with_schema(schema)[place]})
    assert (error.param or "").startswith(place)


@pytest.mark.parametrize("field", ["json", "structural_tag"])
def test_a_schema_that_comes_as_text_is_read(field: str) -> None:
    schema = json.dumps({"type": "array", "minItems": 10**9})
    text = schema if field == "json" else f'{{"structures": [{{"schema": {schema}}}]}}'
    assert "minItems: at most 10000, got" in str(
        rejection({**CHAT, "structured_outputs": {field: text}})
    )


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        ({"regex": "(a{1,100}b){1,100}"}, "structured_outputs.regex"),
        ({"regex": "a" * 20_000}, "structured_outputs.regex"),
        ({"regex": "(" * 100 + ")" * 100}, "structured_outputs.regex"),
        ({"regex": "a{" + "9" * 10_000 + "}"}, "structured_outputs.regex"),
        ({"grammar": 'root ::= ("x" | "y"){2000}'}, "structured_outputs.grammar"),
        ({"grammar": "root ::= " + "(" * 200 + '"x"' + ")" * 200}, "structured_outputs.grammar"),
        ({"choice": [str(index) for index in range(6000)]}, "structured_outputs.choice"),
        ({"grammar": 'root ::= "x"' + "\n" * 70_000}, "structured_outputs.grammar"),
        (
            {"json": {"allOf": [{"pattern": "a" * 16_000}] * 5}},
            "structured_outputs.json.allOf.0.pattern",
        ),
    ],
)
def test_an_expression_beyond_the_limits_is_rejected(
    constraint: dict[str, Any], field: str
) -> None:
    assert rejection({**CHAT, "structured_outputs": constraint}).param == field


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[A-Z]{2,40}$"}}},
        {"type": "array", "items": {"type": "string", "maxLength": 5000}, "maxItems": 1000},
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}}},
        {"properties": {"pattern": {"type": "string"}, "minItems": {"type": "integer"}}},
        {"type": "string", "default": {"minItems": 10**9}, "const": {"pattern": "a{5000}"}},
        {"type": "string", "pattern": r"\{5000\}[{5000}]"},
        {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}], "$defs": {"n": {"type": "string"}}},
    ],
)
def test_an_ordinary_schema_passes(schema: Any) -> None:
    parse({**CHAT, **with_schema(schema)})


def test_quoted_text_of_a_grammar_repeats_nothing() -> None:
    grammar = 'root ::= "year {2024}" [a-z{5000}]{3,4} "\\"{3000}"'
    parse({**CHAT, "structured_outputs": {"grammar": grammar}})


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
        ({"tools": [{}] * 257}, "tools"),
        ({"n": 65}, "n"),
        ({"n": "65"}, "n"),
        ({"n": 65.0}, "n"),
        ({"best_of": 65}, "best_of"),
        ({"n": 17, "use_beam_search": True}, "n"),
        ({"n": "17", "use_beam_search": True}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"stop": ["x"] * 33}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"stop": ["y", "x" * 1025]}, "stop.1"),
        ({"bad_words": ["x"] * 257}, "bad_words"),
        ({"bad_words": ["x" * 1025]}, "bad_words.0"),
        ({"logit_bias": {str(index): 1 for index in range(1025)}}, "logit_bias"),
        ({"allowed_token_ids": [1] * 1025}, "allowed_token_ids"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"min_tokens": 10**9}, "min_tokens"),
        ({"thinking_token_budget": 10**9}, "thinking_token_budget"),
        ({"truncate_prompt_tokens": 10**9}, "truncate_prompt_tokens"),
        (
            {"repetition_detection": {"max_pattern_size": 200, "min_count": 2}},
            "repetition_detection.max_pattern_size",
        ),
        (
            {"repetition_detection": {"max_pattern_size": "20", "min_count": 20.0}},
            "repetition_detection.max_pattern_size",
        ),
        ({"messages": [{"role": "user", "content": ["x"] * 8193}]}, "messages.0.content"),
    ],
)
def test_a_member_beyond_its_limit_is_rejected_by_name(members: dict[str, Any], field: str) -> None:
    error = rejection({**CHAT, **members})
    assert (error.param, error.code) == (field, "limit_exceeded")


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x", 5]}]}, "messages.0.content.1"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages.0.role"),
        ({"documents": [{"title": "x", "text": 5}]}, "documents.0.text"),
        ({"documents": ["x"]}, "documents.0"),
    ],
)
def test_what_no_engine_reads_is_rejected_before_one_tries(
    members: dict[str, Any], field: str
) -> None:
    error = rejection({**CHAT, **members})
    assert (error.param, error.code) == (field, "invalid_value")


def test_members_are_counted_without_token_ids_and_commas_in_texts() -> None:
    limits = Limits(members=1_000)
    parse({"model": "x", "prompt": [7] * 5_000}, limits)
    parse({"model": "x", "prompt": [[7] * 600] * 5}, limits)
    parse({"model": "x", "prompt": "a," * 5_000}, limits)
    for field in ("input", "tokens"):
        data = {"model": "x", field: [7] * 5_000}
        raw = json.dumps(data).encode()
        check_members(raw, data, check_size(raw, limits)[1], limits)
    error = rejection({"model": "x", "prompt": [7] * 5_000, "user": [7] * 1_100}, limits)
    assert str(error).startswith("body: at most 1000 members and items beside token ids, got 110")
    mixed = rejection({"model": "x", "prompt": [7] + ["x"] * 1_100}, limits)
    assert "beside token ids" in str(mixed)
    many = {f"x{index}": 1 for index in range(300)}
    assert str(rejection({**CHAT, **many})) == "body: at most 256 members, got 302"


@pytest.mark.parametrize("n", [3, "3", 3.0])
def test_choices_are_counted_as_the_engine_reads_them(n: object) -> None:
    assert parse({**CHAT, "n": n}).choices == 3


def test_digits_without_a_closing_bracket_are_read_once() -> None:
    """Where each was tried again with all behind it, this took minutes."""
    parse(
        {**CHAT, "structured_outputs": {"regex": "a{" + "1" * 200_000}},
        Limits(pattern_length=10**6, grammar_length=10**6),
    )


def test_references_that_share_a_chain_follow_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []
    resolve = references.resolve

    def counted(reference: str, root: Any) -> Any:
        followed.append(reference)
        return resolve(reference, root)

    monkeypatch.setattr(references, "resolve", counted)
    chain: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(200)}
    chain["d200"] = {"type": "string"}
    schema = {"$defs": chain, "anyOf": [{"$ref": "#/$defs/d0"}] * 500}
    parse({**CHAT, "structured_outputs": {"json": schema}})
    assert len(followed) == 700


def test_a_chain_is_as_long_as_what_it_shares_with_others() -> None:
    chain: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(250)}
    chain["d250"] = {"type": "string"}
    before = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(10)}
    schema = {"$defs": {**chain, **before, "a10": {"$ref": "#/$defs/d0"}}, "$ref": "#/$defs/a0"}
    error = rejection({**CHAT, "structured_outputs": {"json": schema}})
    assert "leads over more than 256 others" in str(error)


@pytest.mark.parametrize("field", ENGINE_FIELDS)
def test_members_for_the_inside_of_an_engine_need_the_operators_word(field: str) -> None:
    error = rejection({**CHAT, field: {"a": 1}})
    assert (error.param, error.code) == (field, "field_not_allowed")
    parse({**CHAT, field: {"a": 1}}, Limits(engine_fields=(field,)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "auto", "prompt": [' + b"[1]," * 1_000_000 + b"[1]]}",
        b'{"model": "auto", "prompt": [' + b"1," * 2_000_000 + b"1]}",
        b'{"model": "auto", "prompt": [' + b'"a",' * 1_000_000 + b'"a"]}',
        b'{"model": "auto", "messages": ' + b"[" * 900 + b"]" * 900 + b"}",
        orjson.dumps({**CHAT, "messages": CHAT["messages"] * 130_000}),
        orjson.dumps({**CHAT, "metadata": [[]] * 40_000}),
    ],
    ids=["lists", "numbers", "texts", "deep", "messages", "members that nothing reads"],
)
def test_a_body_of_many_values_is_rejected_before_it_costs_time(body: bytes) -> None:
    started = time.process_time()
    rejection(body)
    assert time.process_time() - started < 0.25


def test_brackets_in_texts_are_not_counted() -> None:
    text = '{"a": [1, 2, \\"x\\"]}' * 40_000
    parse({"model": "auto", "messages": [{"role": "user", "content": text}]})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["#/$defs/n", "#", "a{1,9}", "((", "[", "\\", "{", "#/0", "{2,}", '"']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "$ref",
                    "$defs",
                    "n",
                    "properties",
                    "pattern",
                    "enum",
                    "allOf",
                    "schema",
                    "json",
                    "regex",
                    "grammar",
                    "minItems",
                    "structural_tag",
                    "patternProperties",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
members = st.dictionaries(
    st.sampled_from(
        [
            "response_format",
            "structured_outputs",
            "tools",
            "stop",
            "logit_bias",
            "n",
            "prompt",
            "messages",
            "bad_words",
            "prompt_logprobs",
            "use_beam_search",
            "kv_transfer_params",
        ]
    ),
    values,
)


@settings(max_examples=250, deadline=None)
@given(members)
def test_no_body_raises_anything_but_a_rejection(body: dict[str, Any]) -> None:
    with suppress(ApiError, InvalidRequestError):
        parse(json.dumps({**CHAT, **body}).encode())
