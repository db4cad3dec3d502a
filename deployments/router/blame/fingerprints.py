"""What makes two requests the same to an engine: hashes of a body without what clients vary.

Two hashes. `whole` is the text with everything else that an engine compiles or computes.
`shape` is only the part that is no text (schemas, grammars, tools, biases), so that the same schema
under another message is the same kind; a plain request has none. A shape belongs to one API key: a
client that sends the schema of another one together with what breaks an engine blocks itself only.

The members that count are listed, so that one that no engine reads makes at most one other request
of it. Whatever is not listed, or not of its usual form, sets a request apart from those without it:
what breaks an engine with such a member says nothing of the same text alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

MAX_WALKED_BYTES = 100_000
"""In a larger body annotations and blanks count too: leaving them out would hold up the router."""
MAX_DEPTH = 60
"""What is nested deeper counts as equal; the encoder takes 254 levels."""

_TEXT = ("messages", "prompt", "suffix", "stop", "echo", "logprobs", "top_logprobs",
         "prompt_logprobs", "documents", "add_special_tokens", "add_generation_prompt",
         "continue_final_message", "bad_words", "stop_token_ids", "prompt_embeds",
         "use_beam_search", "ignore_eos", "reasoning_effort")  # fmt: skip
"""Only in `whole`."""
_POOLED = ("input", "query", "queries", "documents", "items", "text_1", "text_2", "data_1",
           "data_2", "dimensions", "instruction", "add_special_tokens", "truncation_side",
           "padding", "use_activation", "max_tokens_per_query", "max_tokens_per_doc")  # fmt: skip
"""The same of a request for embeddings or scores: no other engine reads these."""
_SHAPE = ("tools", "functions", "tool_choice", "logit_bias", "allowed_token_ids", "chat_template",
          "chat_template_kwargs", "mm_processor_kwargs", "media_io_kwargs", "vllm_xargs",
          "logits_processors", "truncate_prompt_tokens", "repetition_detection")  # fmt: skip
_ORDINARY: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (-1.0, 1000.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.0, 10.0),
    "length_penalty": (-10.0, 10.0),
    "n": (1.0, 8.0),
    "best_of": (1.0, 8.0),
    "max_tokens": (0.0, 1e6),
    "max_completion_tokens": (0.0, 1e6),
    "min_tokens": (0.0, 1e6),
    "seed": (-(2.0**63), 2.0**63),
    "priority": (-(2.0**31), 2.0**31),
}
"""Numbers that a client varies from try to try; only one outside of its range counts."""
_UNREAD: Mapping[str, type] = {
    **dict.fromkeys(("stream", "store", "parallel_tool_calls", "include_reasoning"), bool),
    **dict.fromkeys(("model", "user", "request_id", "session_id", "cache_salt"), str),
    **dict.fromkeys(("service_tier", "safety_identifier", "prompt_cache_key"), str),
    **dict.fromkeys(("routing", "stream_options", "metadata"), dict),
}
"""Members that do not count in their usual form."""
_ANSWERED = ("response_format", "structured_outputs")
"""What an answer has to look like; a part of the shape."""
_COMPILED = {"json": "json", "json_schema": "json", "regex": "regex", "grammar": "grammar",
             "choice": "choice", "structural_tag": "structural_tag"}  # fmt: skip
"""What a grammar is made of, by the names that it has in the three places of a request."""
_NO_CHOICE = ("auto", "none")
_NOTES = {"title": str, "description": str, "$id": str, "$comment": str, "examples": list,
          "default": object}  # fmt: skip
"""Annotations of a schema in their usual form."""
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Members whose own members have names of the client's, `title` among them."""
_IDS = frozenset({"id", "tool_call_id", "name"})
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A kind of request.

    Attributes:
        whole: Of all that an engine works on.
        shape: Of the part that is no text and of the API key; `None` for a plain request.
    """

    whole: bytes
    shape: bytes | None = None

    @property
    def kind(self) -> bytes:
        """By which requests of one kind are counted."""
        return self.shape or self.whole

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Both."""
        return (self.whole,) if self.shape is None else (self.whole, self.shape)


def fingerprint(body: bytes, key: str | None = None, *, pooled: bool = False) -> Fingerprint:
    """The fingerprint of a request.

    Args:
        body: As the client sent it: a JSON object.
        key: Name of its API key.
        pooled: It asks for embeddings or scores.
    """
    data = orjson.loads(body)
    if not isinstance(data, dict):
        return Fingerprint(_hash(body))
    plain = len(body) > MAX_WALKED_BYTES
    shape = _shape(data, _same if plain else _schema)
    read = _POOLED if pooled else _TEXT
    text = {name: data[name] for name in read if data.get(name) not in (None, False, [], {})}
    if isinstance(messages := text.get("messages"), list):
        text["messages"] = [_without_ids(message) for message in messages]
    odd = {
        name: repr(data[name]) for name, usual in _ORDINARY.items() if _is_odd(data, name, usual)
    }
    others = any(_sets_apart(name, value, read) for name, value in data.items())
    whole = _hash(_canonical([text, shape, odd, [key] if others else None]))
    if not shape:
        return Fingerprint(whole)
    return Fingerprint(whole, _hash(_canonical([key, shape])))


def _sets_apart(name: str, value: Any, read: Sequence[str]) -> bool:
    """Whether a member is none of those that count, and not one that never does."""
    if value in (None, False, [], {}) or isinstance(value, _UNREAD.get(name, ())):
        return False
    listed = name in read or name in _SHAPE or name in _ORDINARY or name in _ANSWERED
    return not listed and not name.startswith("guided_")


def _shape(data: dict[str, Any], plain: Callable[[Any], Any]) -> list[Any]:
    """Every part that is no text, one name for the same thing in whichever place it stands."""
    parts: list[Any] = []
    wanted = data.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
        schema = wanted.get("json_schema")
        schema = schema.get("schema") if isinstance(schema, dict) else schema
        others = {k: v for k, v in wanted.items() if k not in ("type", "json_schema")}
        parts.append(["json", plain(schema)] if schema is not None else [wanted["type"]])
        parts += [[others]] if others else []
    elif wanted not in (None, {}, {"type": "text"}):
        parts.append(["response_format", plain(wanted)])
    structured = data.get("structured_outputs")
    if isinstance(structured, dict):
        parts += [
            [_COMPILED.get(name, name), plain(value)]
            for name, value in structured.items()
            if value is not None
        ]
    elif structured is not None:
        parts.append(["structured_outputs", plain(structured)])
    parts += [
        [_COMPILED.get(name.removeprefix("guided_"), name), plain(value)]
        for name, value in data.items()
        if name.startswith("guided_") and value is not None
    ]
    parts += [[name, plain(data[name])] for name in _SHAPE if data.get(name) not in (None, [], {})]
    if not data.get("tools"):
        # Without tools these ask for nothing.
        parts = [part for part in parts if part not in (["tool_choice", c] for c in _NO_CHOICE)]
    return sorted(parts, key=_canonical)


def _same(value: Any) -> Any:
    return value


def _schema(value: Any, depth: int = 0, *, names: bool = False) -> Any:
    """A schema or a grammar without annotations and with blanks as one.

    Args:
        value: Any JSON.
        depth: Of nesting.
        names: The members of this object have names of the client's.
    """
    if depth > MAX_DEPTH:
        return "deeper"
    if isinstance(value, str):
        if not depth and value.lstrip().startswith("{"):
            try:
                # A schema may come as text.
                return _schema(orjson.loads(value), 1)
            except orjson.JSONDecodeError:
                pass
        return " ".join(value.split())
    if isinstance(value, list):
        return [_schema(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            name: _schema(item, depth + 1, names=not names and name in _NAMED)
            for name, item in value.items()
            if names or not isinstance(item, _NOTES.get(name, ()))
        }
    return value


def _without_ids(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    kept = {name: value for name, value in message.items() if not _is_id(name, value)}
    if isinstance(calls := kept.get("tool_calls"), list):
        kept["tool_calls"] = [_without_ids(call) for call in calls]
    return kept


def _is_id(name: str, value: Any) -> bool:
    return name in _IDS and isinstance(value, str) and len(value) <= _LONGEST_ID


def _is_odd(data: dict[str, Any], name: str, usual: tuple[float, float]) -> bool:
    value = data.get(name)
    if value is None:
        return False
    number = type(value) in (int, float) and math.isfinite(value)
    return not number or not usual[0] <= value <= usual[1]


def _cut(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        return "deeper"
    if isinstance(value, dict):
        return {name: _cut(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, depth + 1) for item in value]
    return value


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Nested too deeply for the encoder, which a chat's content may be.
        return orjson.dumps(_cut(value), option=orjson.OPT_SORT_KEYS)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
