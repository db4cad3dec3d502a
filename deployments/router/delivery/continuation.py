"""How an answer that broke off goes on elsewhere: what keeps it from that, and what to ask for.

Works on requests and chunks as JSON; read only once something broke, never on the usual path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from deployments.links.frames import Endpoint

_EVENT = b"data: "
_CREATED = re.compile(rb'"created":\d+')


def obstacle(payload: dict[str, Any], endpoint: Endpoint) -> str | None:
    """Why no other engine can go on with the answer to this request, `None` where one can."""
    get = payload.get
    options = get("stream_options") or {}
    found = {
        "log probabilities are asked for": get("logprobs") or get("prompt_logprobs") is not None,
        "it may be a tool call": get("tools") and get("tool_choice") != "none",
        "structured output is asked for": get("structured_outputs")
        or (get("response_format") or {}).get("type", "text") != "text"
        or any(name.startswith("guided_") for name in payload),
        "`echo` is asked for": get("echo"),
        "token ids are asked for": get("return_token_ids"),
        "usage is asked for in every chunk": options.get("continuous_usage_stats"),
        "it has several prompts": endpoint == "completions"
        and isinstance(get("prompt"), list)
        and not all(type(item) is int for item in payload["prompt"]),
    }
    return next((reason for reason, holds in found.items() if holds), None)


def is_exact(payload: dict[str, Any]) -> bool:
    """Whether an answer that goes on by token ids is as likely as an undisturbed one.

    A seed starts again, and these penalties count generated tokens only.
    """
    return payload.get("seed") is None and not any(
        payload.get(name) for name in ("presence_penalty", "frequency_penalty")
    )


def text_of(chunks: Sequence[bytes], endpoint: Endpoint) -> str:
    """The text that the client has got.

    Args:
        chunks: Server-sent events as they went out.
        endpoint: Whose chunks.
    """
    parts = []
    for chunk in chunks:
        for choice in orjson.loads(chunk[len(_EVENT) :])["choices"]:
            part = choice["delta"].get("content") if endpoint == "chat" else choice["text"]
            parts.append(part or "")
    return "".join(parts)


def continued_payload(
    payload: dict[str, Any], endpoint: Endpoint, text: str, generated: int
) -> dict[str, Any] | None:
    """The request that has another model go on behind the text.

    Args:
        payload: As the client sent it.
        endpoint: Whose.
        text: What the client has got.
        generated: Tokens of it.

    Returns:
        `None` where only the model of before can: a prompt of token ids means nothing to others.
    """
    new = dict(payload)
    if endpoint == "chat":
        messages = list(payload["messages"])
        last = messages[-1]
        if payload.get("continue_final_message") and isinstance(last.get("content"), str):
            messages[-1] = {**last, "content": last["content"] + text}
        else:
            messages.append({"role": "assistant", "content": text})
        new |= {
            "messages": messages,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
    elif isinstance(payload["prompt"], str):
        new["prompt"] = payload["prompt"] + text
    else:
        return None
    for name in ("max_completion_tokens", "max_tokens", "min_tokens"):
        if isinstance(new.get(name), int):
            new[name] = max(new[name] - generated, 0 if name == "min_tokens" else 1)
    if endpoint == "completions" and "max_tokens" not in new:
        # vLLM's default counts for the whole answer.
        new["max_tokens"] = max(16 - generated, 1)
    return new


def created_of(chunk: bytes) -> bytes | None:
    """The member `created` of a chunk, encoded."""
    found = _CREATED.search(chunk)
    return found.group() if found else None


def with_created(chunk: bytes, created: bytes) -> bytes:
    """The chunk with the time at which the stream began, as `created_of` gives it."""
    return _CREATED.sub(created, chunk, count=1)


def with_generated(chunk: bytes, generated: int) -> bytes:
    """The usage chunk of a model that went on by text, with the totals of the whole answer.

    Args:
        chunk: Its `usage` counts what was generated before as a part of the prompt.
        generated: Tokens of that.
    """
    data = orjson.loads(chunk[len(_EVENT) :])
    usage = data["usage"]
    usage["prompt_tokens"] -= generated
    usage["completion_tokens"] += generated
    return event(data)


def usage_chunk(last: bytes, input_tokens: int, output_tokens: int) -> bytes:
    """The usage chunk that an engine did not come to send.

    Args:
        last: The last chunk that it sent.
        input_tokens: Of the prompt.
        output_tokens: Of the whole answer.
    """
    data = orjson.loads(last[len(_EVENT) :])
    data["choices"] = []
    data["usage"] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return event(data)


def event(data: Any) -> bytes:
    """A server-sent event."""
    return _EVENT + orjson.dumps(data) + b"\n\n"
