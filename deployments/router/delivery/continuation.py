"""How an answer that broke off is resumed elsewhere: what keeps it from that, and what to ask for.

Works on requests and chunks as JSON; read only once something broke, never on the usual path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from deployments.links.frames import Endpoint
from deployments.router.delivery.said import EVENT, Said, event

Forms = Mapping[str, Mapping[str, str]]
"""By what goes on (`answer`, `reasoning`), members of a last message as format strings."""
PLAIN_FORMS: Forms = {"answer": {"content": "{content}"}}
_CREATED = re.compile(rb'"created":\d+')


def obstacle(payload: dict[str, Any], endpoint: Endpoint) -> str | None:
    """Why no other engine can go on with the answer to this request, `None` where one can."""
    get = payload.get
    options = get("stream_options") or {}
    found = {
        "log probabilities are asked for": get("logprobs") or get("prompt_logprobs") is not None,
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


def follows_grammar_behind_reasoning(
    payload: Mapping[str, Any], capabilities: Mapping[str, Any]
) -> bool:
    """Whether an engine cannot take up the grammar of a tool call where another one left it.

    The grammar begins behind the reasoning, and where that ended the engine does not know.

    Args:
        payload: The request.
        capabilities: As the replica describes them.
    """
    if not payload.get("tools") or not capabilities.get("reasoning_parser"):
        return False
    choice = payload.get("tool_choice")
    if choice == "none":
        return False
    if choice == "required" or isinstance(choice, dict):
        return True
    return bool(capabilities.get("constrains_tools")) and any(map(_is_strict, payload["tools"]))


def _is_strict(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and function.get("strict") is True


def is_exact(payload: dict[str, Any]) -> bool:
    """Whether an answer that goes on by token ids is as likely as an undisturbed one.

    A seed starts again, and these penalties count generated tokens only.
    """
    return payload.get("seed") is None and not any(
        payload.get(name) for name in ("presence_penalty", "frequency_penalty")
    )


def reopened_payload(payload: dict[str, Any], tool: str) -> dict[str, Any]:
    """The request that has another model make the call that has begun with the tool's name."""
    return {**payload, "tool_choice": {"type": "function", "function": {"name": tool}}}


def continued_payload(
    payload: dict[str, Any],
    endpoint: Endpoint,
    said: Said,
    generated: int,
    forms: Forms = PLAIN_FORMS,
) -> dict[str, Any] | None:
    """The request that has another model go on behind what was said.

    Args:
        payload: As the client sent it.
        endpoint: Whose.
        said: What the client has got; no tool calls.
        generated: Tokens of it.
        forms: How the model's replica wants it, see `deployments.replica.engine.capabilities`.

    Returns:
        `None` where the model cannot: a prompt of token ids means nothing to others, and reasoning
        goes on as reasoning or not at all.
    """
    new = dict(payload)
    if endpoint == "chat":
        messages = list(payload["messages"])
        last = messages[-1]
        if payload.get("continue_final_message") and isinstance(last.get("content"), str):
            if said.reasoning:
                return None
            messages[-1] = {**last, "content": last["content"] + said.content}
        else:
            form = forms.get("answer" if said.content or not said.reasoning else "reasoning")
            if form is None:
                return None
            fields = {"content": said.content, "reasoning": said.reasoning.lstrip("\n")}
            members = {name: text.format(**fields) for name, text in form.items()}
            messages.append({"role": "assistant", **members})
        new |= {
            "messages": messages,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
    elif isinstance(payload["prompt"], str):
        new["prompt"] = payload["prompt"] + said.content
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


def prompt_tokens(theirs: int, generated: int, counted: int | None) -> int:
    """Input tokens of an answer that another model went on with by text.

    Its tokenizer may need fewer tokens for prompt and answer so far than the first model's needed
    for the answer alone, so the difference is used only where nothing better is known.

    Args:
        theirs: Input tokens of the model that went on: the prompt and what was generated before.
        generated: Tokens of that, by the models that generated it.
        counted: Input tokens of the prompt by the first model's tokenizer, `None` if unknown.

    Returns:
        At least 1: no prompt is empty.
    """
    return counted if counted is not None else max(theirs - generated, 1)


def with_generated(chunk: bytes, generated: int, counted: int | None = None) -> bytes:
    """The usage chunk of a model that went on by text, with the totals of the whole answer.

    Args:
        chunk: Its `usage` counts what was generated before as a part of the prompt.
        generated: Tokens of that.
        counted: As for `prompt_tokens`.
    """
    data = orjson.loads(chunk[len(EVENT) :])
    usage = data["usage"]
    usage["prompt_tokens"] = prompt_tokens(usage["prompt_tokens"], generated, counted)
    usage["completion_tokens"] += generated
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        details["cached_tokens"] = min(details["cached_tokens"], usage["prompt_tokens"])
    return event(data)


def usage_chunk(last: bytes, input_tokens: int, output_tokens: int) -> bytes:
    """The usage chunk that an engine did not come to send.

    Args:
        last: The last chunk that it sent.
        input_tokens: Of the prompt.
        output_tokens: Of the whole answer.
    """
    data = orjson.loads(last[len(EVENT) :])
    data["choices"] = []
    data["usage"] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return event(data)
