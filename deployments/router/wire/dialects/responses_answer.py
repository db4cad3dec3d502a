"""A chat completion's answer as a response of OpenAI's, whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from deployments.router.wire.dialects.answers import Chunk, decision_id_of
from deployments.router.wire.dialects.messages_answer import arguments_of

Item = dict[str, Any]

PREFIX = "resp_"


class Tool(NamedTuple):
    """What a tool is called in the request.

    Attributes:
        custom: It takes plain text.
    """

    name: str
    namespace: str | None
    custom: bool


Tools = Mapping[str, Tool]
"""By the name that the model sees; functions without a namespace are left out."""

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Members of the request that a response gives back, and what they are where left out."""


def response_of(asked: Mapping[str, Any], answer: Chunk, *, kept: bool) -> dict[str, Any]:
    """A response without its output.

    Args:
        asked: The body of the request.
        answer: The answer, or a chunk of it.
        kept: Whether a later request can name it as its previous one.
    """
    echoed = {
        name: default if asked.get(name) is None else asked[name]
        for name, default in _ECHOED.items()
    }
    reasoning = asked.get("reasoning") or {}
    return {
        "id": PREFIX + decision_id_of(answer),
        "object": "response",
        "created_at": answer.get("created"),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": answer.get("model"),
        "output": [],
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": kept,
        "usage": None,
        **echoed,
    }


def whole_response(asked: Mapping[str, Any], answer: Chunk, *, kept: bool, tools: Tools) -> bytes:
    """A whole response as JSON.

    Args:
        asked: As for `response_of`.
        answer: The chat completion.
        kept: As for `response_of`.
        tools: Those whose names the model sees otherwise.
    """
    choice = answer["choices"][0]
    said = choice["message"]
    decision_id = decision_id_of(answer)
    finish = choice.get("finish_reason")
    status = "incomplete" if finish == "length" else "completed"
    output: list[Item] = []
    if said.get("reasoning"):
        output.append(reasoning_item(item_id("rs", decision_id, 0), said["reasoning"]))
    if said.get("content"):
        logprobs = logprobs_of(choice.get("logprobs"))
        name = item_id("msg", decision_id, len(output))
        output.append(message_item(name, said["content"], status, logprobs))
    for call in said.get("tool_calls") or ():
        function = call["function"]
        item = {
            "id": item_id("fc", decision_id, len(output)),
            "call_id": call["id"],
            "name": function["name"],
            "status": status,
        }
        output.append(call_item(item, function.get("arguments") or "", tools))
    response = response_of(asked, answer, kept=kept)
    response["output"] = output
    response |= ending(finish)
    response["usage"] = usage_of(answer.get("usage"))
    if "routing" in answer:
        response["routing"] = answer["routing"]
    return orjson.dumps(response)


def ending(finish: str | None) -> dict[str, Any]:
    """The members of a response that say how it ended."""
    if finish == "length":
        reason = {"reason": "max_output_tokens"}
        return {"status": "incomplete", "incomplete_details": reason}
    return {"status": "completed", "incomplete_details": None}


def item_id(kind: str, decision_id: str, number: int) -> str:
    """The id of an item; the same for the same answer, however often it is given."""
    return f"{kind}_{decision_id}{number:02d}"


def reasoning_item(name: str, text: str) -> Item:
    """What the model thought."""
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": name, "type": "reasoning", "summary": [], "content": content}


def text_content(text: str, logprobs: list[Any]) -> Item:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def message_item(name: str, text: str, status: str, logprobs: list[Any]) -> Item:
    """What the model says."""
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [text_content(text, logprobs)],
    }


def call_item(call: Item, arguments: str, tools: Tools) -> Item:
    """A call of a tool.

    Args:
        call: Its `id`, `call_id`, `name` as the model sees it, and `status`.
        arguments: JSON, as far as it is there.
        tools: As for `whole_response`.
    """
    tool = tools.get(call["name"])
    if tool is None:
        return {**call, "type": "function_call", "arguments": arguments}
    named = call | {"name": tool.name}
    if tool.namespace:
        named["namespace"] = tool.namespace
    if tool.custom:
        return {**named, "type": "custom_tool_call", "input": plain_input(arguments)}
    return {**named, "type": "function_call", "arguments": arguments}


def plain_input(arguments: str) -> str:
    """What a tool that takes plain text gets."""
    given = arguments_of(arguments).get("input")
    return given if isinstance(given, str) else ""


def logprobs_of(logprobs: Mapping[str, Any] | None) -> list[Any]:
    """Log probabilities as a message has them."""
    return [
        {
            "token": token["token"],
            "logprob": token["logprob"],
            "bytes": token.get("bytes") or [],
            "top_logprobs": [
                {
                    "token": other["token"],
                    "logprob": other["logprob"],
                    "bytes": other.get("bytes") or [],
                }
                for other in token.get("top_logprobs") or ()
            ],
        }
        for token in (logprobs or {}).get("content") or ()
    ]


def usage_of(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Tokens as a response counts them."""
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    generated = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "input_tokens_details": {
            "cached_tokens": details.get("cached_tokens") or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.get("completion_tokens") or 0,
        "output_tokens_details": {"reasoning_tokens": generated.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or 0,
    }
