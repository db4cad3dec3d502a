from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.router.blame.fingerprints import Fingerprint, fingerprint

SCHEMA = {"type": "array", "minItems": 1_000_000_000}


def of(key: str | None = None, **fields: Any) -> Fingerprint:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]} | fields
    return fingerprint(json.dumps(body).encode(), key)


def wanted(schema: Any, name: str = "x") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "named"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"seed": 7},
        {"user": "u", "metadata": {"a": "b"}, "request_id": "r", "safety_identifier": "s"},
        {"routing": {"weights": {"energy": 1}}},
        {"temperature": 0.3, "top_p": 0.9, "max_tokens": 7, "n": 2, "presence_penalty": 1},
        {"cache_salt": "x", "priority": 3, "session_id": "s", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "auto", "stop": None},
    ],
)
def test_what_clients_vary_is_the_same_kind(fields: dict[str, Any]) -> None:
    assert of(**fields) == of()
    poison: dict[str, Any] = {"response_format": wanted(SCHEMA)}
    assert of(**poison, **{k: v for k, v in fields.items() if k != "response_format"}) == of(
        **poison
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "Ho"}]},
        {"stop": ["x"]},
        {"temperature": 1e300},
        {"n": 10_000},
        {"top_k": "many"},
        {"logprobs": True},
    ],
)
def test_other_text_and_odd_numbers_are_another_whole(fields: dict[str, Any]) -> None:
    assert of(**fields).whole != of().whole
    assert of(**fields).shape is None


# What breaks an engine with one of these must not keep away the same text without it.
ODD: list[dict[str, Any]] = [
    {"structured_outputs": "x"},
    {"structured_outputs": ["x"]},
    {"response_format": "x"},
    {"response_format": [1]},
    {"response_format": {"type": "text", "json_schema": 5}},
    {"tool_choice": {"type": 3}},
    {"stream": "x"},
    {"stream_options": "x"},
    {"seed": 2**70},
    {"user": {"a": 1}},
    {"use_beam_search": True},
    {"logprob_token_ids": [10**9]},
    {"x-none-of-ours": 4},
    {"messages": [{"role": "user", "content": "Hi", "name": {"a": 1}}]},
    {"messages": [{"role": "user", "content": "Hi", "name": "n" * 10**5}]},
]


@pytest.mark.parametrize("fields", ODD)
def test_what_is_odd_is_never_the_same_as_what_is_ordinary(fields: dict[str, Any]) -> None:
    assert not {*of(**fields).hashes} & {*of().hashes}


def test_members_that_nobody_knows_make_one_other_request_of_it() -> None:
    assert of(a=1) == of(b=[2], c="x")
    assert of("mine", a=1) != of("yours", a=1)
    assert of("mine") == of("yours")


@pytest.mark.parametrize("note", [{"title": 5}, {"description": ["d"]}, {"$id": {}}])
def test_an_annotation_of_no_such_form_counts(note: dict[str, Any]) -> None:
    odd = of(response_format=wanted({**SCHEMA, **note}))
    assert not {*odd.hashes} & {*of(response_format=wanted(SCHEMA)).hashes}


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": wanted(SCHEMA)},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"grammar": "root ::= root"}},
        {"guided_regex": "a{1,2000}"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
        {"logit_bias": {"1": 100}},
        {"chat_template": "{% for i in range(10) %}{% endfor %}"},
        {"allowed_token_ids": [1]},
    ],
)
def test_what_an_engine_compiles_has_a_shape_under_every_message(fields: dict[str, Any]) -> None:
    one, other = of(**fields), of(**fields, messages=[{"role": "user", "content": "Ho"}])
    assert one.shape is not None
    assert one.shape == other.shape
    assert one.whole != other.whole
    assert of(**fields, key="mine").shape not in (one.shape, of(**fields, key="yours").shape)


def test_the_same_schema_has_one_shape_wherever_it_stands() -> None:
    noted = {**SCHEMA, "title": "t", "description": "d", "$comment": "c"}
    shapes = {
        of(response_format=wanted(SCHEMA)).shape,
        of(response_format=wanted(noted, name="y")).shape,
        of(structured_outputs={"json": SCHEMA}).shape,
        of(structured_outputs={"json": json.dumps(SCHEMA)}).shape,
        of(guided_json=SCHEMA).shape,
        of(guided_json=json.dumps(SCHEMA, indent=2)).shape,
    }
    assert len(shapes) == 1


def test_a_property_may_be_called_title() -> None:
    def schema(kind: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"title": {"type": kind}}}

    one, other = (of(response_format=wanted(schema(kind))) for kind in ("string", "integer"))
    assert one.shape != other.shape


def test_blanks_in_a_grammar_do_not_matter() -> None:
    one = of(structured_outputs={"grammar": "root ::= root"})
    assert of(structured_outputs={"grammar": " root  ::=\n root\n"}).shape == one.shape


def test_ids_in_messages_do_not_matter() -> None:
    def messages(number: str) -> list[dict[str, Any]]:
        call = {"id": number, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": number, "content": "x"},
        ]

    assert of(messages=messages("1")) == of(messages=messages("2"))


@pytest.mark.parametrize("deep", [300, 900])
@pytest.mark.parametrize("field", ["response_format", "messages", "logit_bias"])
def test_nesting_costs_nothing(deep: int, field: str) -> None:
    nested = "[" * deep + "]" * deep
    value = {
        "response_format": f'{{"type": "json_schema", "json_schema": {{"schema": {nested}}}}}',
        "messages": f'[{{"role": "user", "content": {nested}}}]',
        "logit_bias": nested,
    }[field]
    body = f'{{"{field}": {value}}}'.encode()
    assert fingerprint(body) == fingerprint(body)


@pytest.mark.parametrize("body", [b"[1]", b"{}", b'{"messages": "x", "tools": 3, "n": {}}'])
def test_any_json_has_one(body: bytes) -> None:
    assert fingerprint(body).whole


def pooled(**fields: Any) -> Fingerprint:
    return fingerprint(json.dumps({"model": "m"} | fields).encode(), pooled=True)


@pytest.mark.parametrize(
    "name", ["input", "query", "documents", "items", "queries", "text_1", "text_2", "data_1"]
)
def test_texts_to_embed_or_score_are_told_apart(name: str) -> None:
    assert pooled(**{name: "a"}).whole != pooled(**{name: "b"}).whole
    assert pooled(**{name: "a"}) == pooled(**{name: "a"}, user="u")


def test_what_another_route_reads_is_of_those_that_nobody_knows() -> None:
    assert of(input="a", query="b") == of(input="c") != of()
    assert pooled(input="a", prompt="x", messages=["y"]) == pooled(input="a", prompt="z")
