"""Structured outputs of the other kinds: grammars, regular expressions, choices, tags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hostile.cases import LENIENT, REJECTED, Case, Fields, Right, table
from hostile.corpus.schemas import REF_TO_ITSELF, strings


def _exponential(depth: int) -> str:
    rules = [f"r{i} ::= r{i + 1} r{i + 1}" for i in range(depth)]
    return "\n".join(["root ::= r0", *rules, f'r{depth} ::= "a" | "aa"'])


GRAMMARS: Mapping[str, str] = {
    "digits-without-end": "root ::= a{" + "1" * 60_000,
    "groups-60k": "root ::= " + "()" * 30_000,
    "root-is-root": "root ::= root",
    "left-recursion": 'root ::= root "a" | "a"',
    "mutual-recursion": "root ::= a\na ::= b\nb ::= a",
    "hidden-left-recursion": 'root ::= e root "a" | "a"\ne ::= ""',
    "exponential": _exponential(40),
    "ambiguous": 'root ::= root root | "a" | ""',
    "empty": "",
    "blank": " \n\n ",
    "no-root": 'start ::= "a"',
    "undefined-rule": "root ::= nowhere",
    "unterminated": 'root ::= "abc',
    "unterminated-class": "root ::= [a-",
    "counted-nested": 'root ::= ((("a"{1,1000}){1,1000}){1,1000}){1,1000}',
    "counted-1e9": 'root ::= "a"{1000000000}',
    "counted-reversed": 'root ::= "a"{5,2}',
    "parentheses": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
    "rules-20k": "root ::= r0\n" + "\n".join(f'r{i} ::= "{i}" r{i + 1}' for i in range(20_000)),
    "alternatives-1mb": "root ::= " + " | ".join(f'"w{i}"' for i in range(110_000)),
    "literal-1mb": f'root ::= "{"a" * 10**6}"',
    "lark": 'start: "a" start | "b"\n%ignore " "',
    "nul": 'root ::= "\0"',
    "surrogate": 'root ::= "\ud800"',
    "big-escape": 'root ::= "\\U7fffffff"',
    "class-of-everything": "root ::= [\\x00-\\U0010ffff]{20000}",
    "no-grammar": "}}}}}",
    "empty-loop": 'root ::= ("")*',
    "empty-loop-nested": 'root ::= (("" | "a"*)*)+',
}

REGEXES: Mapping[str, str] = {
    "counted-nested": "(((a{1,100}){1,100}){1,100}){1,100}",
    "counted-nested-2": "(a{1,1000}){1,1000}",
    "dot-100000": ".{1,100000}",
    "digits-1e9": "\\d{1000000000}",
    "backtracking": "(a+)+$",
    "stars": "((.*)*)*",
    "optional-500": "a?" * 500 + "a" * 500,
    "invalid-bracket": "[",
    "invalid-parenthesis": "(a",
    "invalid-star": "*a",
    "reversed": "a{2,1}",
    "range-reversed": "[z-a]",
    "lookahead": "(?=a)a.*",
    "negative-lookahead": "^(?!foo).{1,20}$",
    "lookbehind": "(?<=a)b",
    "backreference": "(a)\\1",
    "named-group": "(?P<n>a)(?P=n)",
    "flags": "(?i)abc",
    "atomic": "(?>a+)b",
    "recursive": "(a(?R)?b)",
    "unicode-class": "\\p{L}{1,300}",
    "unicode-class-unknown": "\\p{Nowhere}",
    "every-character": "[\\u0000-\\U0010ffff]{5000}",
    "negated": "[^a]{3000}",
    "digits-without-end": "a{" + "1" * 16_000,
    "parentheses": "(" * 20_000 + "a" + ")" * 20_000,
    "alternatives": "|".join(f"w{i}" for i in range(50_000)),
    "1mb": "ab" * 500_000,
    "nul": "a\0b",
    "surrogate": "\ud800",
    "empty": "",
    "anchors": "$^",
    "nothing-matches": "[^\\s\\S]",
}

# The first tokens cost nothing, the hundredth seconds; sent with as many tokens as that takes.
GROWING: Mapping[str, Any] = {
    "stars": {"regex": "((.*)*)*"},
    "stars-late": {"regex": "[a-z ]{60}((.*)*)*"},
    "splits": {"grammar": "root ::= s\ns ::= s s | [a-z]"},
    "splits-late": {"grammar": "root ::= [a-z]{40} s\ns ::= s s | [a-z]"},
    "class-stars": {"grammar": "root ::= (([a-z]*)*)*"},
    "alternatives": {"grammar": "root ::= (" + " | ".join(["[a-z] [a-z]*"] * 200) + ")*"},
    "counted-twice": {"regex": "(.{0,200}){0,200}"},
}
LONG = 400

# What vLLM refuses today or may learn to answer; none of it may do harm.
OTHERS: Mapping[str, Any] = {
    "json-ref": {"json": REF_TO_ITSELF},
    "json-min-items": {"json": {"type": "array", "minItems": 10**9}},
    "json-text": {"json": json.dumps(strings(4, pattern="^.{1,2000}$"))},
    "json-no-json": {"json": "{"},
    "json-whitespace": {"json": {"type": "object"}, "whitespace_pattern": "(\\s+)+{1,100000}"},
    "choice-100k": {"choice": [f"choice {i}" for i in range(100_000)]},
    "choice-1mb": {"choice": ["a" * 10**6, "b"]},
    "choice-same": {"choice": ["a"] * 1000},
    "choice-empty-text": {"choice": [""]},
    "choice-controls": {"choice": ["\0", "\n", '"', "\\"]},
    "tag-schema": {
        "structural_tag": json.dumps(
            {
                "type": "structural_tag",
                "format": {
                    "type": "triggered_tags",
                    "triggers": ["<f"],
                    "tags": [
                        {
                            "begin": "<f>",
                            "content": {"type": "json_schema", "json_schema": REF_TO_ITSELF},
                            "end": "</f>",
                        }
                    ],
                },
            }
        )
    },
    "tag-legacy": {
        "structural_tag": json.dumps(
            {
                "structures": [
                    {"begin": f"<f{i}>", "schema": {"type": "array", "minItems": 10**9}, "end": "x"}
                    for i in range(100)
                ],
                "triggers": ["<f"],
            }
        )
    },
    "tag-nested": {
        "structural_tag": '{"type":"structural_tag","format":'
        + '{"type":"sequence","elements":[' * 300
        + '{"type":"any_text"}'
        + "]}" * 300
        + "}"
    },
    "tag-no-json": {"structural_tag": "<"},
    "tag-empty": {"structural_tag": "{}"},
    "json-object": {"json_object": True},
}

WRONG: Mapping[str, Any] = {
    "two-kinds": {"regex": "a", "choice": ["a"]},
    "choice-empty": {"choice": []},
    "choice-numbers": {"choice": [1, 2]},
    "choice-text": {"choice": "abc"},
    "regex-number": {"regex": 5},
    "regex-list": {"regex": ["a"]},
    "grammar-number": {"grammar": 1},
    "grammar-object": {"grammar": {"root": "a"}},
    "text": "x",
    "list": [],
    "number": 3,
}


def _named(field: str, value: Any) -> Fields:
    return {"structured_outputs": {field: value}}


def cases() -> list[Case]:
    """Of these families."""
    grammars = {name: _named("grammar", text) for name, text in GRAMMARS.items()}
    regexes = {name: _named("regex", text) for name, text in REGEXES.items()}
    legacy: dict[str, Fields] = {
        "guided-json": {"guided_json": {"type": "array", "minItems": 10**9}},
        "guided-regex": {"guided_regex": "(a{1,1000}){1,1000}"},
        "guided-grammar": {"guided_grammar": "root ::= root"},
        "guided-backend": {"guided_decoding_backend": "outlines", "guided_choice": ["a"]},
    }
    others = {name: {"structured_outputs": value} for name, value in OTHERS.items()}
    growing: dict[str, Fields] = {
        f"growing-{name}": {"structured_outputs": value, "max_tokens": LONG, "ignore_eos": True}
        for name, value in GROWING.items()
    }
    wrong = {name: {"structured_outputs": value} for name, value in WRONG.items()}
    lenient, rejected = Right(LENIENT), Right(REJECTED)
    return [
        *table(
            "grammars",
            grammars,
            lenient,
            thorough=True,
            short=("root-is-root", "exponential", "unterminated", "empty-loop"),
        ),
        *table(
            "regexes",
            regexes,
            lenient,
            thorough=True,
            short=("counted-nested", "invalid-bracket", "lookahead", "backtracking"),
        ),
        *table(
            "structured",
            others,
            lenient,
            thorough=True,
            short=("choice-100k", "tag-schema", "json-min-items"),
        ),
        *table("structured", legacy, lenient),
        *table("structured", growing, lenient, thorough=True, short=("growing-splits",)),
        *table("structured-wrong", wrong, rejected, short=("two-kinds", "choice-empty")),
    ]
