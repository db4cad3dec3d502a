"""What stands in a conversation: messages, tools, chat templates, and answers with calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hostile.cases import ABSENT, CHAT, LENIENT, REJECTED, Case, Fields, RawJson, Right, table
from hostile.corpus.schemas import REF_TO_ITSELF, doubling, strings

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)


def user(content: Any, **more: Any) -> dict[str, Any]:
    """A conversation of one message."""
    return {"messages": [{"role": "user", "content": content, **more}]}


def parts(*content: Any) -> dict[str, Any]:
    return user([*content])


def image(url: Any) -> dict[str, Any]:
    return parts({"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": url})


def tool(name: Any = "f", parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "parameters": parameters or {"type": "object"}, **more}
    return {"type": "function", "function": function}


MESSAGES_WRONG: Mapping[str, Fields] = {
    "none": {"messages": []},
    "null": {"messages": None},
    "absent": {"messages": ABSENT},
    "text": {"messages": "Hi"},
    "object": {"messages": {"role": "user", "content": "Hi"}},
    "numbers": {"messages": [1, 2]},
    "lists": {"messages": [[]]},
    "content-number": user(5),
    "content-object": user({"text": "Hi"}),
    "part-no-type": parts({"text": "Hi"}),
    "part-unknown": parts({"type": "smell", "smell": "x"}),
    "part-number": parts(5),
    "parts-nested": parts([[{"type": "text", "text": "Hi"}]]),
    "part-text-number": parts({"type": "text", "text": 5}),
    "image-data": image({"url": PIXEL}),
    "image-no-data": image({"url": "data:image/png;base64,!!!!"}),
    "image-loopback": image({"url": "http://127.0.0.1:9/a.png"}),
    "image-file": image({"url": "file:///etc/passwd"}),
    "image-null": image(None),
    "audio": parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    "video": parts({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}),
    "image-embeds": parts({"type": "image_embeds", "image_embeds": "AAAA"}),
    "role-absent": {"messages": [{"content": "Hi"}]},
    "role-number": {"messages": [{"role": 5, "content": "Hi"}]},
    "part-numbers-60k": parts(*[5] * 60_000),
    "documents-numbers": lambda: user("Hi") | {"documents": [{f"k{i}": i for i in range(60_000)}]},
    "too-deep": user(RawJson("[" * 10_000 + "]" * 10_000)),
}

MESSAGES: Mapping[str, Fields] = {
    "100k": lambda: {"messages": [{"role": "user", "content": "a"}] * 100_000},
    "alternating-20k": lambda: {
        "messages": [
            {"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(20_000)
        ]
    },
    "parts-50k": lambda: parts(*[{"type": "text", "text": "a"}] * 50_000),
    "part-texts-8k": lambda: parts(*["a"] * 8_000),
    "empty-4k": {"messages": [{}] * 4_096},
    "content-null": user(None),
    "content-empty": user(""),
    "parts-none": user([]),
    "role-unknown": {"messages": [{"role": "emperor", "content": "Hi"}]},
    "role-1mb": lambda: {"messages": [{"role": "r" * 10**6, "content": "Hi"}]},
    "name-1mb": lambda: user("Hi", name="n" * 10**6),
    "system-only": {"messages": [{"role": "system", "content": "Hi"}]},
    "assistant-only": {"messages": [{"role": "assistant", "content": "Hi"}]},
    "tool-without-call": {"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]},
    "calls-no-json": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}
                ],
            },
        ]
    },
    "calls-deep": {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "f", "arguments": "[" * 5000 + "]" * 5000},
                    }
                ],
            }
        ]
    },
    "calls-no-list": {"messages": [{"role": "assistant", "tool_calls": {"a": 1}}]},
    "surrogate": user("\ud800"),
    "surrogates-reversed": user("\udc00\ud800"),
    "nul": user("a\0b"),
    "controls": user("".join(map(chr, range(32)))),
    "deep": user("Hi", x=RawJson("[" * 900 + "]" * 900)),
    "one-letter-1mb": lambda: user("a" * 10**6),
    "spaces-1mb": lambda: user(" " * 10**6),
    "digits-1mb": lambda: user("1" * 10**6),
    "punctuation-1mb": lambda: user("." * 10**6),
    "emoji-1mb": lambda: user("\U0001f468\u200d\U0001f469" * 100_000),
    "combining-500kb": lambda: user("a" + "\u0301" * 250_000),
    "cjk-no-spaces": lambda: user("\u4e00" * 300_000),
    "newlines-1mb": lambda: user("\n" * 10**6),
    "special-tokens": lambda: user("<|im_end|><|im_start|>system\n<|endoftext|>" * 20_000),
    "template-in-content": user("{{ 7*7 }}{% for i in range(10**9) %}x{% endfor %}"),
    "continue-and-generate": {"add_generation_prompt": True, "continue_final_message": True},
    "continue-user": {"add_generation_prompt": False, "continue_final_message": True},
    "extra-fields": lambda: user("Hi", **{f"x{i}": i for i in range(20_000)}),
}

TEMPLATES: Mapping[str, str | Any] = {
    "endless": "{% for i in range(1000000000) %}{% endfor %}x",
    "endless-nested": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
    "{% endfor %}x",
    "memory": "{{ 'a' * 10000000000 }}",
    "memory-doubling": "{% set x = namespace(v='a') %}{% for i in range(60) %}"
    "{% set x.v = x.v + x.v %}{% endfor %}{{ x.v }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "recursive-macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.listdir('/') }}",
    "unterminated": "{% for m in messages %}{{ m",
    "raises": "{{ raise_exception('no') }}",
    "undefined": "{{ nowhere.at.all }}",
    "division": "{{ 1 / 0 }}",
    "nothing": "{{ '' }}",
    "1mb": "a" * 10**6,
    "width": "{{ '%999999999d' % 1 }}",
    "format": "{{ '{:>999999999}'.format(1) }}",
    "backtracking": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "deep": "{{ " + "(" * 2_000 + "1" + ")" * 2_000 + " }}",
}

TEMPLATE_FIELDS: Mapping[str, Fields] = {
    "kwargs-template": {"chat_template_kwargs": {"chat_template": TEMPLATES["endless"]}},
    "kwargs-messages": {"chat_template_kwargs": {"messages": [], "tools": 5, "tokenize": True}},
    "kwargs-tokenize": {"chat_template_kwargs": {"tokenize": True, "return_dict": True}},
    "kwargs-deep": {"chat_template_kwargs": {"a": RawJson("[" * 900 + "]" * 900)}},
    "kwargs-20k": lambda: {"chat_template_kwargs": {f"k{i}": i for i in range(20_000)}},
    "kwargs-conversation": {"chat_template_kwargs": {"conversation": "x", "self": 1}},
    "kwargs-dunder": {"chat_template_kwargs": {"__class__": 1, "": 2, "a b": 3}},
    "documents-10k": lambda: {"documents": [{"title": "t", "text": "x"}] * 10_000},
}

TEMPLATES_WRONG: Mapping[str, Fields] = {
    "number": {"chat_template": 5},
    "list": {"chat_template": ["a"]},
    "kwargs-text": {"chat_template_kwargs": "x"},
    "kwargs-list": {"chat_template_kwargs": [1]},
    "documents-text": {"documents": "x"},
}

TOOLS: Mapping[str, Fields] = {
    "1000": lambda: {"tools": [tool(f"f{i}", strings(5)) for i in range(1_000)]},
    "1000-required": lambda: {
        "tools": [tool(f"f{i}", strings(5)) for i in range(1_000)],
        "tool_choice": "required",
    },
    "ref-auto": {"tools": [tool(parameters=REF_TO_ITSELF)], "tool_choice": "auto"},
    "ref-required": {"tools": [tool(parameters=REF_TO_ITSELF)], "tool_choice": "required"},
    "min-items-required": {
        "tools": [
            tool(
                parameters={
                    "type": "object",
                    "properties": {"a": {"type": "array", "minItems": 10**9}},
                    "required": ["a"],
                }
            )
        ],
        "tool_choice": "required",
    },
    "pattern-named": {
        "tools": [tool(parameters=strings(4, pattern="^.{1,2000}$"))],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    "doubling-named": {
        "tools": [tool(parameters=doubling("anyOf", 30))],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    "strict-auto": {"tools": [tool(parameters=REF_TO_ITSELF, strict=True)]},
    "name-1mb": lambda: {"tools": [tool("n" * 10**6)], "tool_choice": "required"},
    "name-quote": {"tools": [tool('"}], "x": [{"')], "tool_choice": "required"},
    "description-1mb": lambda: {"tools": [tool(description="d" * 10**6)]},
    "same-twice": {"tools": [tool(), tool()], "tool_choice": "required"},
    "none-chosen": {"tools": [tool(parameters=REF_TO_ITSELF)], "tool_choice": "none"},
    "none-there": {"tools": []},
    "with-schema": {
        "tools": [tool()],
        "tool_choice": "required",
        "response_format": {"type": "json_object"},
    },
}

TOOLS_WRONG: Mapping[str, Fields] = {
    "text": {"tools": "f"},
    "null-tool": {"tools": [None]},
    "no-function": {"tools": [{"type": "function"}]},
    "name-number": {"tools": [tool(5)]},
    "parameters-list": {"tools": [tool(parameters=[1])], "tool_choice": "required"},
    "choice-unknown-tool": {
        "tools": [tool()],
        "tool_choice": {"type": "function", "function": {"name": "other"}},
    },
    "choice-unknown": {"tools": [tool()], "tool_choice": "perhaps"},
    "choice-without-tools": {"tool_choice": "required"},
    "choice-number": {"tools": [tool()], "tool_choice": 5},
}

NESTED = {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1, "maxItems": 1}}
BROKEN_CALLS: Mapping[str, str] = {
    "null": "<|tool_call|>[null]",
    "number": "<|tool_call|>5",
    "object": '<|tool_call|>{"name": "f", "arguments": {}}',
    "name-null": '<|tool_call|>[{"name": null, "arguments": null}]',
    "name-object": '<|tool_call|>[{"name": {}, "arguments": [[]]}]',
    "arguments-text": '<|tool_call|>[{"name": "f", "arguments": "{"}]',
    "unknown-tool": '<|tool_call|>[{"name": "g", "arguments": {"a": 1e999}}]',
    "unclosed": '<|tool_call|>[{"name": "f", "arguments": {"a": "',
    "twice": '<|tool_call|>[{"name": "f"}]<|tool_call|>[{"name": "f"}]',
    "glm-empty": "<tool_call></tool_call>",
    "glm-nameless": "<tool_call>\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n</tool_call>",
    "glm-values-only": "<tool_call>f\n<arg_value></arg_value></arg_value></tool_call>",
    "glm-in-value": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value><tool_call></arg_value>",
}
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "calls-opened": {
        "structured_outputs": {"regex": "(<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x ){1,90}"}
    },
    "calls-whole": {"structured_outputs": {"regex": "(<tool_call>f\n</tool_call>){1,90}"}},
    "brackets": {
        "structured_outputs": {
            "regex": '<\\|tool_call\\|>\\[\\{"name": "f", "arguments": \\[{1,400}'
        }
    },
    "deep-required": {
        "tools": [tool(parameters={"$ref": "#/$defs/n", "$defs": NESTED})],
        "tool_choice": "required",
    },
    "deep-named": {
        "tools": [tool(parameters={"$ref": "#/$defs/n", "$defs": NESTED})],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    **{
        f"broken-{name}": {"structured_outputs": {"choice": [text]}}
        for name, text in BROKEN_CALLS.items()
    },
}
"""Answers that are hard to read, for the parsers of `targets.own_cluster`."""


def _cases(
    family: str,
    rows: Mapping[str, Fields],
    right: Right,
    short: Sequence[str] = (),
    *,
    thorough: bool = False,
) -> list[Case]:
    return table(family, rows, right, paths=(CHAT,), short=short, thorough=thorough)


def cases() -> list[Case]:
    """Of these families."""
    templates: dict[str, Fields] = {n: {"chat_template": t} for n, t in TEMPLATES.items()}
    answers: dict[str, Fields] = {
        name: {"tools": [tool()], "max_tokens": 400, **fields} for name, fields in ANSWERS.items()
    }
    lenient, rejected = Right(LENIENT), Right(REJECTED)
    return [
        *_cases("messages", MESSAGES_WRONG, rejected, ("none", "image-data", "parts-nested")),
        *_cases("messages", MESSAGES, lenient, ("content-null", "surrogate", "nul")),
        *_cases("templates", templates, lenient, ("endless", "memory", "sandbox"), thorough=True),
        *_cases("templates", TEMPLATE_FIELDS, lenient, ("kwargs-template",), thorough=True),
        *_cases("templates-wrong", TEMPLATES_WRONG, rejected),
        *_cases("tools", TOOLS, lenient, ("min-items-required", "ref-auto"), thorough=True),
        *_cases("tools-wrong", TOOLS_WRONG, rejected, ("choice-unknown-tool",)),
        *_cases("answers", answers, lenient, ("calls-opened", "deep-required"), thorough=True),
    ]
