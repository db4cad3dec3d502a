"""What an engine takes, found out once at its start; private names of vLLM 0.29.0.

Most of it is in the engine's configuration. What its chat template takes is found by rendering
conversations of a few words, as requests are rendered. tests/integration/test_engine_contract.py
holds the names. The features are those of `scheduler.capabilities`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vllm import envs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers import merge_kwargs
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.utils.mistral import is_mistral_tokenizer

from scheduler.capabilities import ALL_LOGPROBS, Feature

MODALITIES = (Feature.IMAGE, Feature.AUDIO, Feature.VIDEO)
SHOWN_CHARS = 200
NOT_GENERATED = (
    "its engine generates no text (engine_kwargs: runner: pooling); "
    "it is asked at /v1/embeddings, /v1/rerank or /v1/score"
)
NOT_POOLED = {
    Feature.EMBEDDINGS: (
        "its engine makes no embeddings (engine_kwargs: {runner: pooling, convert: embed})"
    ),
    Feature.SCORES: (
        "its engine scores no texts "
        "(engine_kwargs: {runner: pooling, convert: embed}, or classify with one label)"
    ),
}
"""What a pooling engine may do -> why another one does not."""

_WORD = "heliotrope"
"""What a probe looks for in the prompt: no template has it by itself."""
_USER = {"role": "user", "content": "Hello"}
_ASSISTANT = {"role": "assistant", "content": "Hello to you"}
_SYSTEM = {"role": "system", "content": f"Answer with {_WORD}."}
_TOOL = {
    "type": "function",
    "function": {
        "name": f"find_{_WORD}",
        "description": "Finds it",
        "parameters": {"type": "object", "properties": {"where": {"type": "string"}}},
    },
}
_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "chatcmpltl",
            "type": "function",
            "function": {"name": f"find_{_WORD}", "arguments": '{"where": "here"}'},
        }
    ],
}
_RESULT = {"role": "tool", "tool_call_id": "chatcmpltl", "content": f"a {_WORD} in the garden"}

_PROBES: tuple[tuple[Feature, str, Sequence[Mapping[str, Any]], Mapping[str, Any]], ...] = (
    (Feature.SYSTEM, "a system message", (_SYSTEM, _USER), {}),
    (Feature.LATE_SYSTEM, "a later system message", (_USER, _ASSISTANT, _SYSTEM, _USER), {}),
    (Feature.REPEATED_USER, "two turns of the user in a row", (_USER, _USER), {}),
    (
        Feature.REPEATED_ASSISTANT,
        "two turns of the assistant in a row",
        (_USER, _ASSISTANT, _ASSISTANT, _USER),
        {},
    ),
    (Feature.ASSISTANT_FIRST, "a first turn of the assistant", (_ASSISTANT, _USER), {}),
    (Feature.ASSISTANT_LAST, "a last turn of the assistant", (_USER, _ASSISTANT), {}),
    (
        Feature.CONTINUATION,
        "an answer to continue",
        (_USER, _ASSISTANT),
        {"add_generation_prompt": False, "continue_final_message": True},
    ),
    (Feature.TOOL_RESULTS, "the result of a tool", (_USER, _CALL, _RESULT), {"tools": [_TOOL]}),
)
"""Feature, its name for readers, a conversation that has it, more members of the request."""
_SEEN_BY_WORD = frozenset({Feature.SYSTEM, Feature.LATE_SYSTEM, Feature.TOOL_RESULTS})


@dataclass(slots=True)
class _Found:
    """What `Capabilities` has, while it is being found out."""

    lacks: dict[Feature, str] = field(default_factory=dict)
    ignores: dict[Feature, str] = field(default_factory=dict)
    at_most: dict[Feature, int] = field(default_factory=dict)


def describe_capabilities(
    online: OnlineRenderer | None,
    settings: Mapping[str, Any],
    loras: Sequence[str],
    pools: Collection[Feature] = (),
) -> dict[str, Any]:
    """The member `capabilities` of a replica's description, as JSON has it. Takes milliseconds.

    Args:
        online: Renders the engine's requests; `None` where it generates no text.
        settings: Arguments of the engine, for the names of its parsers.
        loras: Names of its adapters.
        pools: Which of `NOT_POOLED` it does.
    """
    found = _Found()
    facts = _find(online, settings, found)
    found.lacks |= {one: reason for one, reason in NOT_POOLED.items() if one not in pools}
    for name in ("lacks", "ignores", "at_most"):
        facts[name] = {feature.value: said for feature, said in getattr(found, name).items()}
    return facts | {"loras": list(loras)}


def _find(
    online: OnlineRenderer | None, settings: Mapping[str, Any], found: _Found
) -> dict[str, Any]:
    lacks, at_most = found.lacks, found.at_most
    facts: dict[str, Any] = {
        "modalities": ["text"],
        "tool_parser": None,
        "reasoning_parser": settings.get("reasoning_parser"),
        "constrains_tools": False,
        "continues": {},
    }
    if online is None:
        lacks[Feature.CHAT] = lacks[Feature.COMPLETION] = NOT_GENERATED
        return facts
    model_config = online.model_config
    most = int(model_config.max_logprobs)
    at_most[Feature.LOGPROBS] = ALL_LOGPROBS if most == -1 else most
    if not model_config.enable_prompt_embeds:
        lacks[Feature.PROMPT_EMBEDS] = (
            "its engine takes no embeddings as a prompt (engine_kwargs: enable_prompt_embeds)"
        )
    if not online.trust_request_chat_template:
        lacks[Feature.OWN_TEMPLATE] = (
            "its engine takes no chat template of a request "
            "(engine_kwargs: trust_request_chat_template)"
        )
    limits = _media_limits(online)
    for modality in MODALITIES:
        if limits.get(modality):
            facts["modalities"].append(modality.value)
            at_most[modality] = limits[modality]
        else:
            lacks[modality] = f"its engine takes no {modality}; a model that reads it is needed"
    facts["tool_parser"] = _tool_parser(online, settings, lacks)
    facts["constrains_tools"] = _constrains_tools(online)
    if not online.use_harmony:
        with _quiet():
            _probe_template(online, found)
            if Feature.CONTINUATION not in lacks:
                facts["continues"] = _continues(online)
    return facts


def _constrains_tools(online: OnlineRenderer) -> bool:
    """Whether an answer with tools follows a grammar although none has to be called."""
    parser = online.parser.tool_parser_cls if online.parser is not None else None
    return bool(
        parser and parser.structural_tag_model is not None and envs.VLLM_ENFORCE_STRICT_TOOL_CALLING
    )


def _continues(online: OnlineRenderer) -> dict[str, Any]:
    """How a last message of the assistant has to look for the engine to go on behind it.

    Returns:
        Templates of the message's members, with `{content}`, and `{reasoning}` for what another
        model has thought; `answer` goes on with the text, `reasoning` with the reasoning. A member
        is absent where no form works.
    """
    kind = online.parser.reasoning_parser_cls if online.parser is not None else None
    if kind is None or online.parser is None:
        return {"answer": {"content": "{content}"}}
    tokenizer = online.renderer.get_tokenizer()
    kwargs = online.default_chat_template_kwargs
    try:
        parser = online.parser(
            tokenizer, None, model_config=online.model_config, chat_template_kwargs=kwargs
        )
    except Exception:
        # Not a parser for this tokenizer: vLLM answers each chat with an error.
        return {}
    marks = parser.reasoning_parser
    start, end = marks.reasoning_start_str, marks.reasoning_end_str
    thought, said = "It thinks", "It says"
    forms: list[tuple[str, dict[str, str]]] = [
        ("answer", {"content": "{content}", "reasoning": "{reasoning}"}),
    ]
    if start and end:
        opening, closing = (mark.replace("{", "{{").replace("}", "}}") for mark in (start, end))
        inside = f"{opening}\n{{reasoning}}"
        forms.append(("answer", {"content": f"{inside}\n{closing}\n\n{{content}}"}))
        forms.append(("reasoning", {"content": inside}))
    found: dict[str, Any] = {}
    for name, form in forms:
        filled = {
            member: text.format(reasoning=thought, content=said) for member, text in form.items()
        }
        try:
            text = render(
                online,
                [_USER, {"role": "assistant", **filled}],
                add_generation_prompt=False,
                continue_final_message=True,
            )
            ended = parser.is_reasoning_end(tokenizer.encode(text, add_special_tokens=False))
        except Exception:
            # A template or a parser that does not take this form.
            continue
        seam = said if name == "answer" else f"{start}\n{thought}"
        if text.endswith(seam) and ended == (name == "answer"):
            found.setdefault(name, form)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without vLLM's traceback in the log for each probe that a template rejects."""
    vllm_logger = logging.getLogger("vllm.renderers.hf")
    before, vllm_logger.disabled = vllm_logger.disabled, True
    try:
        yield
    finally:
        vllm_logger.disabled = before


def _media_limits(online: OnlineRenderer) -> dict[str, int]:
    if not online.model_config.is_multimodal_model:
        return {}
    limits = online.renderer.get_mm_processor().info.allowed_mm_limits
    return {str(modality): int(most) for modality, most in limits.items()}


def _tool_parser(
    online: OnlineRenderer, settings: Mapping[str, Any], lacks: dict[Feature, str]
) -> str | None:
    """Name of the parser, with what is missing without one; vLLM checks the same."""
    parser = online.parser.tool_parser_cls if online.parser is not None else None
    if parser is not None or online.use_harmony or is_mistral_tokenizer(online.renderer.tokenizer):
        return str(settings.get("tool_call_parser") or "built in")
    needed = "(engine_kwargs: enable_auto_tool_choice, tool_call_parser)"
    lacks[Feature.TOOLS] = lacks[Feature.TOOL_CHOICE] = f"its engine has no tool parser {needed}"
    return None


def _probe_template(online: OnlineRenderer, found: _Found) -> None:
    lacks, ignores = found.lacks, found.ignores
    try:
        render(online, [_USER])
    except Exception as error:
        lacks[Feature.CHAT] = f"it cannot chat: {_said(error)}"
        return
    for feature, name, messages, members in _PROBES:
        try:
            text = render(online, messages, **members)
        except Exception as error:
            lacks[feature] = f"its chat template rejects {name}: {_said(error)}"
            continue
        if feature in _SEEN_BY_WORD and _WORD not in text.replace(f"find_{_WORD}", ""):
            ignores[feature] = f"its chat template leaves out {name}"
    try:
        if f"find_{_WORD}" not in render(online, [_USER], tools=[_TOOL]):
            ignores[Feature.TOOLS] = "its chat template leaves out tools"
    except Exception as error:
        lacks.setdefault(Feature.TOOLS, f"its chat template rejects tools: {_said(error)}")


def render(online: OnlineRenderer, messages: Sequence[Mapping[str, Any]], **members: Any) -> str:
    """The prompt of a chat request, as vLLM makes it.

    Raises:
        Exception: Whatever the template or vLLM has against it.
    """
    return _decoded(online, render_prompt(online, messages, **members))


def render_prompt(
    online: OnlineRenderer, messages: Sequence[Mapping[str, Any]], **members: Any
) -> Any:
    """The same as vLLM hands it on: with `prompt`, `prompt_token_ids` or both."""
    request = ChatCompletionRequest.model_validate({"messages": list(messages), **members})
    tools = [tool.model_dump() for tool in request.tools] if request.tools else None
    tokenize = is_mistral_tokenizer(online.renderer.tokenizer)
    defaults = merge_kwargs(
        online.default_chat_template_kwargs, {"tools": tools, "tokenize": tokenize}
    )
    params = request.build_chat_params(
        online.chat_template, online.chat_template_content_format
    ).with_defaults(defaults)
    _, prompt = online.renderer.render_messages(request.messages, params)
    return prompt


def _decoded(online: OnlineRenderer, prompt: Any) -> str:
    text = prompt.get("prompt")
    if isinstance(text, str):
        return text
    return str(online.renderer.get_tokenizer().decode(prompt["prompt_token_ids"]))


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__)[:SHOWN_CHARS]
