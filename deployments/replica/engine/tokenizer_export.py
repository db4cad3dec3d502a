"""Takes out of a running vLLM what it counts tokens with; private names of vLLM 0.29.0.

Not the files of the checkpoint: classes of transformers change what they read from them (which
special tokens are added, added tokens, pre-tokenizers), and vLLM chooses among chat templates.
tests/integration/test_engine_tokenizer.py holds the names and compares the counts.
"""

from __future__ import annotations

from typing import Any

import orjson
from transformers import PreTrainedTokenizerBase, TokenizersBackend
from vllm.renderers.hf import (
    HfRenderer,
    resolve_chat_template,
    resolve_chat_template_content_format,
)
from vllm.renderers.online_renderer import OnlineRenderer

from deployments.links.tokenizer_bundle import ChatFormat, TokenizerBundle


class NoBundleError(Exception):
    """This engine counts in a way that cannot be handed on; the message says which."""


def export_tokenizer(online: OnlineRenderer) -> TokenizerBundle:
    """What the engine of a renderer counts with.

    Raises:
        NoBundleError: It has no fast tokenizer of the usual kind.
    """
    renderer = online.renderer
    tokenizer = renderer.tokenizer
    if type(renderer) is not HfRenderer or online.use_harmony:
        raise NoBundleError(f"vLLM renders with {_renderer_name(online)}")
    if not isinstance(tokenizer, TokenizersBackend) or not _is_plain(type(tokenizer)):
        raise NoBundleError(f"{_kind(type(tokenizer)).__name__} is no plain fast tokenizer")
    return TokenizerBundle(
        encoder=_encoder(tokenizer),
        split_special_tokens=bool(tokenizer.split_special_tokens),
        special_tokens=dict(tokenizer.special_tokens_map),
        chat=_chat_format(online, None),
        chat_with_tools=_chat_format(online, [{}]),
        template_variables=dict(online.default_chat_template_kwargs),
        none_hides_tools=online.exclude_tools_when_tool_choice_none,
    )


def _renderer_name(online: OnlineRenderer) -> str:
    return "harmony" if online.use_harmony else type(online.renderer).__name__


def _kind(tokenizer: type) -> type:
    """The tokenizer's class below the proxies that vLLM wraps around it."""
    return next(kind for kind in tokenizer.__mro__ if not kind.__module__.startswith("vllm."))


def _is_plain(tokenizer: type) -> bool:
    kind: Any = _kind(tokenizer)
    return (
        kind._encode_plus is TokenizersBackend._encode_plus
        and kind.__call__ is PreTrainedTokenizerBase.__call__
        and kind.apply_chat_template is PreTrainedTokenizerBase.apply_chat_template
        and kind.get_chat_template is PreTrainedTokenizerBase.get_chat_template
    )


def _encoder(tokenizer: TokenizersBackend) -> str:
    encoder = orjson.loads(tokenizer.backend_tokenizer.to_str())
    # Left over from whatever was encoded last; they would give the same tokenizer another digest.
    encoder["truncation"] = encoder["padding"] = None
    return orjson.dumps(encoder).decode()


def _chat_format(online: OnlineRenderer, tools: list[dict[str, Any]] | None) -> ChatFormat | None:
    renderer = online.renderer
    arguments = (renderer.tokenizer, online.chat_template, tools)
    template = resolve_chat_template(*arguments, model_config=online.model_config)
    if template is None:
        return None
    form = resolve_chat_template_content_format(
        online.chat_template,
        tools,
        online.chat_template_content_format,
        renderer.tokenizer,
        model_config=online.model_config,
    )
    return ChatFormat(template, parts=form == "openai")
