"""Numbers and lists of the sampling: too many, too few, of another type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostile.cases import (
    ABSENT,
    CHAT,
    COMPLETIONS,
    LENIENT,
    REJECTED,
    Case,
    Fields,
    RawJson,
    Right,
    table,
)

NAN, INFINITY = float("nan"), float("inf")

# Field -> values that mean nothing.
WRONG: Mapping[str, tuple[Any, ...]] = {
    "max_tokens": (-1, 0, 10**18, 2**63, 10**30, 1.5, NAN, INFINITY, -INFINITY, "8", [], {}),
    "n": (0, -1, 1.5, "two", 10**9, 2**63, 10**30, [2]),
    "temperature": (-1, NAN, INFINITY, "hot", [0]),
    "top_p": (-1, 2, NAN, "x"),
    "top_k": (-5, 1.5, "x", 2**70),
    "min_p": (-1, 2, NAN),
    "presence_penalty": (10**9, NAN, "x"),
    "frequency_penalty": (-(10**9), INFINITY),
    "repetition_penalty": (-1, NAN, "x"),
    "seed": (10**30, -(10**30), "x", 1.5),
    "min_tokens": (-1, 10**18, "x"),
    "stop": ({"a": 1}, 5, [None], [[1]]),
    "stop_token_ids": (["x"], "x", [2**70]),
    "logit_bias": ([1], "x", {"x": 1}, {"999999999": 1}, {"-1": 5}, {"1": NAN}, {"1": "x"}),
    "allowed_token_ids": ([10**9], [-1], "x", [2**70]),
    "bad_words": (5, [None], [[1]]),
    "priority": (5, -(10**9), "x", NAN),
    "stream": ("perhaps", 5, [], {}),
    "stream_options": ("x", [], 5, {"include_usage": "perhaps"}),
    "truncate_prompt_tokens": (-2, "x", 2**70),
    "prompt_logprobs": (-2, "x", 1.5),
    "model": ("", 5, [], {}, "../../etc/passwd", "no such model", "\0"),
}

# Field -> values that a server may take, if nothing comes of it.
ODD: Mapping[str, tuple[Any, ...]] = {
    "model": (None,),
    "max_tokens": (None, 511, 2_000, RawJson("1e2"), True),
    "n": (64, True, "2"),
    "prompt_logprobs": (10**9, 20, -1),
    "temperature": (10**308, 0, RawJson("1e400"), RawJson("1e-320")),
    "top_k": (2**31, 2**40, 2**62),
    "top_p": (0, RawJson("1e-320")),
    "repetition_penalty": (0, RawJson("1e300")),
    "presence_penalty": (2, -2),
    "seed": (-1, 2**63 - 1, 2**63, 0),
    "min_tokens": (8, 100),
    "stop": ("", [""], ["a" * 10**6], ["\0"], ["\ud800"], [f"s{i}" for i in range(10_000)]),
    "stop_token_ids": ([-1], [10**12], list(range(100_000))),
    "logit_bias": (
        {str(i): 1 for i in range(100_000)},
        {str(i): -100 for i in range(49_152)},
        {"1": RawJson("1e308")},
        {"1": RawJson("1e400")},
        {},
    ),
    "allowed_token_ids": ([], list(range(100_000)), [1]),
    "bad_words": ([""], ["a b c"] * 1000, [f"word{i}" for i in range(100_000)], "x"),
    "truncate_prompt_tokens": (0, 1, 10**9),
    "use_beam_search": (True,),
    "length_penalty": (NAN, RawJson("1e308")),
    "thinking_token_budget": (-5, 10**12),
    "stream_interval": (0, 10**12),
    "logprob_token_ids": ([10**9], [-1], list(range(100_000))),
    "repetition_detection": ({}, {"max_pattern_size": 10**9, "min_count": 0}, "x"),
    "echo": (True, "x"),
    "ignore_eos": ("perhaps",),
    "return_token_ids": (True, "x"),
    "return_prompt_text": (True,),
    "return_token_offsets": (True,),
    "routed_experts_prompt_start": (-1, 10**12),
}

CHAT_WRONG: Mapping[str, tuple[Any, ...]] = {
    "top_logprobs": (-2, 10**9, "x"),
    "max_completion_tokens": (-1, 0, NAN, 10**18, "x"),
    "logprobs": ("perhaps", [1]),
}
COMPLETIONS_WRONG: Mapping[str, tuple[Any, ...]] = {
    "logprobs": (-2, 10**9, "x", 1.5),
    "prompt": (None, 5, {}, [None], [{}], [], [[]], [1.5], ["a", 1], ABSENT),
}
COMPLETIONS_ODD: Mapping[str, tuple[Any, ...]] = {
    "suffix": ("x", "a" * 10**6),
    "best_of": (10**9, -1, 1),
    "prompt": ("", "\0", "\ud800", [""], ["a"] * 5_000, [True], "a" * 10**6, "a b " * 250_000),
    "logprobs": (0, 20),
}

COMBINED: Mapping[str, Mapping[str, Any]] = {
    "min-over-max": {"min_tokens": 100, "max_tokens": 5},
    "beams": {"use_beam_search": True, "n": 64, "max_tokens": 30},
    "beams-huge": {"use_beam_search": True, "n": 10**6},
    "n-and-greedy": {"n": 64, "temperature": 0},
    "n-64-long": {"n": 64, "max_tokens": 30, "ignore_eos": True},
    "stop-in-stop": {"stop": ["a", "ab", "abc"] * 10, "include_stop_str_in_output": True},
    "allowed-and-biased": {"allowed_token_ids": [1], "logit_bias": {"1": -100}, "min_tokens": 8},
    "all-banned": {"logit_bias": {str(i): -100 for i in range(2_000)}, "top_k": 1, "min_p": 1},
    "stop-at-once": {"stop": [" ", "a", "e", "\n"], "min_tokens": 8},
    "many-of-all": {
        "logprobs": 5,
        "prompt_logprobs": 5,
        "n": 8,
        "stop": ["x"] * 4,
        "bad_words": ["y"] * 20,
        "seed": 1,
    },
}

TOKENS: Mapping[str, tuple[bool, Any]] = {
    "out-of-vocabulary": (False, [10**9]),
    "just-out": (False, [49_152, 49_153]),
    "negative": (False, [-1]),
    "2**31": (False, [2**31]),
    "2**63": (False, [2**63]),
    "2**70": (False, [2**70]),
    "one-of-many": (False, [[1, 2], [10**9]]),
    "mixed": (False, [[1], "a"]),
    "too-many": (False, list(range(100_000))),
    "same-1m": (False, [5] * 1_000_000),
    "one": (True, [1]),
    "special": (True, [0, 1, 2, 3]),
    "prompts-1000": (True, [[1]] * 1_000),
    "nested": (False, [[[1]]]),
}


def _rows(fields: Mapping[str, tuple[Any, ...]], *, by: str) -> dict[str, Fields]:
    rows: dict[str, Fields] = {}
    for field, values in fields.items():
        for number, value in enumerate(values):
            rows[f"{field}-{by}{number}-{_brief(value)}"] = {field: value}
    return rows


def _brief(value: Any) -> str:
    """For a name."""
    text = value.text if isinstance(value, RawJson) else repr(value)
    text = "absent" if value is ABSENT else text
    kept = "".join(c for c in text[:40] if c.isalnum() or c in "-+.")
    return kept[:16] or "empty"


def cases() -> list[Case]:
    """Of these families."""
    wrong, lenient = Right(REJECTED | {404}), Right(LENIENT)
    tokens_wrong: dict[str, Fields] = {
        name: {"prompt": p} for name, (fine, p) in TOKENS.items() if not fine
    }
    tokens_fine: dict[str, Fields] = {
        name: {"prompt": p} for name, (fine, p) in TOKENS.items() if fine
    }
    embeds: dict[str, Fields] = {
        "embeds-no-base64": {"prompt_embeds": "!!!", "prompt": ABSENT},
        "embeds-zeros": {"prompt_embeds": "A" * 400, "prompt": ABSENT},
        "embeds-pickle": {"prompt_embeds": "gASVDgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOULg==", "n": 1},
        "embeds-null": {"prompt_embeds": None, "prompt": ABSENT},
        "embeds-list": {"prompt_embeds": ["AAAA"] * 1_000, "prompt": ABSENT},
    }
    return [
        *table("numbers", _rows(WRONG, by="wrong"), wrong, short=SHORT),
        *table("numbers", _rows(ODD, by="odd"), lenient),
        *table("numbers", COMBINED, lenient, short=("min-over-max", "n-64-long"), thorough=True),
        *table("numbers", _rows(CHAT_WRONG, by="chat"), wrong, paths=(CHAT,)),
        *table("numbers", _rows(COMPLETIONS_WRONG, by="plain"), wrong, paths=(COMPLETIONS,)),
        *table("numbers", _rows(COMPLETIONS_ODD, by="plain-odd"), lenient, paths=(COMPLETIONS,)),
        *table(
            "tokens",
            tokens_wrong,
            Right(REJECTED),
            paths=(COMPLETIONS,),
            short=("out-of-vocabulary", "negative", "2**63"),
        ),
        *table("tokens", tokens_fine, lenient, paths=(COMPLETIONS,)),
        *table("tokens", embeds, lenient, paths=(COMPLETIONS,), short=("embeds-pickle",)),
    ]


SHORT = (
    "max_tokens-wrong0--1",
    "max_tokens-wrong6-nan",
    "n-wrong4-1000000000",
    "logit_bias-wrong3-9999999991",
    "seed-wrong0-1000000000000000",
    "allowed_token_ids-wrong0-1000000000",
)
