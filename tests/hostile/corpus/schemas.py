"""JSON schemas for the answer: in `response_format`, in `structured_outputs`, in a tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hostile.cases import LENIENT, REJECTED, Case, Fields, RawJson, Right, table

Schema = Any


def response_format(schema: Schema, **more: Any) -> dict[str, Any]:
    """As OpenAI's clients send a schema."""
    json_schema = {"name": "x", "schema": schema, **more}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}


def strings(number: int, **more: Any) -> Schema:
    """An object of so many strings."""
    names = [f"p{i}" for i in range(number)]
    properties = {name: {"type": "string", **more} for name in names}
    return {"type": "object", "properties": properties, "required": names}


def doubling(keyword: str, depth: int) -> Schema:
    """Definitions that each name the one before twice: 2 ** depth ways in a short text."""
    definitions: dict[str, Any] = {"d0": {"type": "string", "maxLength": 3}}
    for i in range(1, depth):
        reference = {"$ref": f"#/$defs/d{i - 1}"}
        definitions[f"d{i}"] = {keyword: [reference, {"type": "array", "items": reference}]}
    return {"$ref": f"#/$defs/d{depth - 1}", "$defs": definitions}


def nested(depth: int) -> RawJson:
    """Arrays of arrays."""
    return RawJson('{"type":"array","items":' * depth + '{"type":"null"}' + "}" * depth)


def nested_objects(depth: int) -> RawJson:
    begin = '{"type":"object","required":["a"],"properties":{"a":'
    return RawJson(begin * depth + '{"type":"null"}' + "}}" * depth)


def cyclic(keyword: str) -> Schema:
    """A definition that leads to itself by a keyword, without an end."""
    return {"$ref": "#/$defs/n", "$defs": {"n": {keyword: [{"$ref": "#/$defs/n"}]}}}


REF_TO_ITSELF = {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}

SIZES: Mapping[str, Schema | Callable[[], Schema]] = {
    "min-items-1e9": {"type": "array", "minItems": 10**9},
    "min-items-2**63": {"type": "array", "minItems": 2**63},
    "min-items-1e30": {"type": "array", "minItems": 10**30},
    "min-items-1e5-typed": {"type": "array", "items": {"type": "integer"}, "minItems": 10**5},
    "max-items-1e9": {"type": "array", "items": {"type": "boolean"}, "maxItems": 10**9},
    "items-exactly-50000": {
        "type": "array",
        "items": strings(5),
        "minItems": 50_000,
        "maxItems": 50_000,
    },
    "min-items-nested": {
        "type": "array",
        "minItems": 1000,
        "items": {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}},
    },
    "min-length-1e9": {"type": "string", "minLength": 10**9},
    "max-length-1e9": {"type": "string", "maxLength": 10**9},
    "min-length-20000-x20": strings(20, minLength=20_000, maxLength=40_000),
    "min-properties-1e9": {"type": "object", "minProperties": 10**9},
    "enum-100k": lambda: {"enum": [f"value {i}" for i in range(100_000)]},
    "enum-of-objects": lambda: {"enum": [{"a": i, "b": [i]} for i in range(5_000)]},
    "enum-empty": {"enum": []},
    "const-1mb": lambda: {"const": "x" * 10**6},
    "const-deep": RawJson('{"const":' + "[" * 900 + "]" * 900 + "}"),
    "properties-10k": lambda: strings(10_000),
    "optional-300": lambda: {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(300)},
        "additionalProperties": False,
    },
    "property-name-1mb": lambda: {"type": "object", "properties": {"n" * 10**6: {}}},
    "required-10k-unknown": lambda: {"type": "object", "required": [f"r{i}" for i in range(10**4)]},
    "any-of-5000": lambda: {"anyOf": [{"const": i} for i in range(5_000)]},
    "all-of-1000": {"allOf": [{"type": "string", "maxLength": i} for i in range(1_000)]},
    "one-of-objects-500": {"oneOf": [strings(i % 20 + 1) for i in range(500)]},
    "prefix-items-10k": lambda: {"type": "array", "prefixItems": [{"type": "integer"}] * 10_000},
    "doubling-any-of": doubling("anyOf", 30),
    "doubling-one-of": doubling("oneOf", 30),
    "doubling-prefix": doubling("prefixItems", 30),
    "depth-200": nested(200),
    "depth-900": nested(450),
    "depth-objects-400": nested_objects(300),
    "depth-10k": nested(10_000),
    "depth-objects-10k": nested_objects(10_000),
    "definitions-5000": lambda: {
        "$ref": "#/$defs/d0",
        "$defs": {
            f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{(i + 1) % 5_000}"}}
            for i in range(5_000)
        },
    },
    "integer-range-1e18": {"type": "integer", "minimum": -(10**18), "maximum": 10**18},
    "integer-range-1e300": {"type": "integer", "minimum": 1, "maximum": 10**300},
    "number-range": {"type": "number", "exclusiveMinimum": -1e308, "exclusiveMaximum": 1e-308},
}

PATTERNS: Mapping[str, Schema] = {
    "pattern-2000": {"type": "string", "pattern": "^.{1,2000}$"},
    "pattern-2000-x4": strings(4, pattern="^.{1,2000}$"),
    "pattern-5000-x8": strings(8, pattern="^[a-zA-Z ]{1,5000}$"),
    "pattern-counted-nested": {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "pattern-backtracking": {"type": "string", "pattern": "^(a+)+$"},
    "pattern-alternatives": {"type": "string", "pattern": "^(a|a?)+(b|b?)+$"},
    "pattern-invalid": {"type": "string", "pattern": "["},
    "pattern-bounds-reversed": {"type": "string", "pattern": "a{5,1}"},
    "pattern-lookahead": {"type": "string", "pattern": "^(?=.*a)(?!.*b).{1,50}$"},
    "pattern-backreference": {"type": "string", "pattern": "^(a|b)\\1$"},
    "pattern-unicode": {"type": "string", "pattern": "^\\p{L}{1,500}$"},
    "pattern-1e9": {"type": "string", "pattern": "a{1000000000}"},
    "pattern-no-text": {"type": "string", "pattern": 5},
    "pattern-empty": {"type": "string", "pattern": ""},
    "pattern-parentheses": {"type": "string", "pattern": "(" * 5_000 + "a" + ")" * 5_000},
    "pattern-properties": {
        "type": "object",
        "patternProperties": {"^.{1,2000}$": {"type": "integer"}, "(a+)+$": {"type": "string"}},
    },
    "pattern-property-names": {"type": "object", "propertyNames": {"pattern": "^.{1,2000}$"}},
    "pattern-1mb": {"type": "string", "pattern": "a|" * 500_000},
    "format-date-time-x50": strings(50, format="date-time"),
    "format-uri-x50": strings(50, format="uri"),
    "format-regex": {"type": "string", "format": "regex"},
    "format-unknown": {"type": "string", "format": "no such format"},
    "format-no-text": {"type": "string", "format": 3},
}

REFERENCES: Mapping[str, Schema] = {
    "ref-root": {"$ref": "#"},
    "ref-itself": REF_TO_ITSELF,
    "ref-chain-shared": {
        "anyOf": [{"$ref": "#/$defs/d0"}] * 9_000,
        "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(250)}
        | {"d250": {"type": "string"}},
    },
    "ref-two": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "ref-cycle-all-of": cyclic("allOf"),
    "ref-cycle-any-of": cyclic("anyOf"),
    "ref-cycle-one-of": cyclic("oneOf"),
    "ref-cycle-prefix": {
        "$ref": "#/$defs/n",
        "$defs": {
            "n": {"type": "array", "prefixItems": [{"$ref": "#/$defs/n"}], "minItems": 1},
        },
    },
    "ref-cycle-required": {
        "$ref": "#/$defs/n",
        "$defs": {
            "n": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/n"}},
                "required": ["next"],
            }
        },
    },
    "ref-list": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    },
    "ref-not": {"not": {"$ref": "#"}},
    "ref-missing": {"$ref": "#/$defs/nowhere"},
    "ref-http": {"$ref": "http://127.0.0.1:9/schema.json"},
    "ref-file": {"$ref": "file:///etc/passwd"},
    "ref-no-text": {"$ref": 5},
    "ref-pointer": {"$ref": "#/properties/~2/%ZZ"},
    "ref-dynamic": {"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n"}}},
    "ref-deep-pointer": {"$ref": "#" + "/a" * 20_000},
}

CONTRADICTIONS: Mapping[str, Schema] = {
    "bounds-reversed": {"type": "integer", "minimum": 10, "maximum": 1},
    "items-reversed": {"type": "array", "minItems": 5, "maxItems": 1},
    "length-reversed": {"type": "string", "minLength": 5, "maxLength": 1},
    "items-negative": {"type": "array", "minItems": -1},
    "nothing": {"type": "string", "enum": [1, 2]},
    "required-forbidden": {
        "type": "object",
        "properties": {"a": False},
        "required": ["a"],
        "additionalProperties": False,
    },
    "multiple-of-0": {"type": "integer", "multipleOf": 0},
    "multiple-of-tiny": {"type": "number", "multipleOf": 1e-300},
    "all-of-two-types": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "not-everything": {"not": {}},
    "if-then-else": {"if": {"type": "string"}, "then": {"minLength": 3}, "else": False},
    "dependent": {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    "unevaluated-properties": {"type": "object", "unevaluatedProperties": False},
    "unevaluated-items": {"type": "array", "unevaluatedItems": {"type": "array"}, "contains": {}},
    "unique-items": {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"enum": [1]}},
    "true": True,
    "false": False,
    "empty": {},
    "nan": {"type": "number", "minimum": float("nan")},
    "surrogate": {"type": "object", "properties": {"\ud800": {"type": "string"}}},
    "nul": {"const": "a\0b"},
}

WRONG_TYPES: Mapping[str, Schema] = {
    "type-unknown": {"type": "strange"},
    "type-number": {"type": 5},
    "type-object": {"type": {"a": 1}},
    "properties-list": {"type": "object", "properties": ["a"]},
    "required-text": {"type": "object", "required": "a"},
    "enum-text": {"enum": "abc"},
    "items-number": {"type": "array", "items": 7},
    "any-of-object": {"anyOf": {"type": "string"}},
    "definitions-list": {"$ref": "#/$defs/0", "$defs": [{"type": "string"}]},
    "min-items-text": {"type": "array", "minItems": "many"},
    "schema-list": [],
    "schema-text": "{",
    "schema-number": 5,
}

FORMS: Mapping[str, Fields] = {
    "no-schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    "no-json-schema": {"response_format": {"type": "json_schema"}},
    "list": {"response_format": [{"type": "json_object"}]},
    "text": {"response_format": "json"},
    "type-unknown": {"response_format": {"type": "xml"}},
    "type-number": {"response_format": {"type": 1}},
}


def _lazily(schema: Any) -> Fields:
    if callable(schema):
        return lambda: response_format(schema())
    return response_format(schema)


def cases() -> list[Case]:
    """Of this family."""
    groups: list[tuple[Mapping[str, Any], tuple[str, ...]]] = [
        (SIZES, ("min-items-1e9", "enum-100k", "doubling-any-of", "depth-200")),
        (PATTERNS, ("pattern-2000-x4", "pattern-counted-nested", "pattern-invalid")),
        (REFERENCES, ("ref-itself", "ref-cycle-all-of", "ref-cycle-required", "ref-http")),
        (CONTRADICTIONS, ("false", "items-reversed")),
        (WRONG_TYPES, ("type-unknown", "schema-list")),
    ]
    made: list[Case] = []
    for group, short in groups:
        rows = {name: _lazily(schema) for name, schema in group.items()}
        made += table("schemas", rows, Right(LENIENT), thorough=True, short=short)
    made += table("response_format", FORMS, Right(REJECTED), short=("no-schema",))
    return made
