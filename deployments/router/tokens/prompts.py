"""The part of a request that becomes input tokens, before anybody has counted them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

# What a chat template adds to each message: role markers and line ends.
TOKENS_PER_MESSAGE = 5

CHAT_MEMBERS = (
    "messages",
    "tools",
    "tool_choice",
    "documents",
    "reasoning_effort",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "truncate_prompt_tokens",
    "kv_transfer_params",
)
SPECIAL_TOKEN_NAMES = frozenset(
    (
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token"),
        *("mask_token", "additional_special_tokens", "extra_special_tokens"),
    )
)
"""What transformers calls special tokens; chat templates print them once for each message."""
COMPLETION_MEMBERS = ("prompt", "add_special_tokens", "prompt_embeds", "truncate_prompt_tokens")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What vLLM counts of a request.

    Attributes:
        members: Those of the body that the count depends on, in a fixed order.
        text_bytes: Length of its text in UTF-8.
        other_tokens: About how many come from no text: what templates add, and token ids.
        token_ids: Their number, where it is made of nothing else.
        source: Member of the body that it comes from, where it is no chat.
    """

    members: Mapping[str, Any]
    text_bytes: int
    other_tokens: int = 0
    token_ids: int | None = None
    source: str = "prompt"

    @property
    def is_chat(self) -> bool:
        """Whether a template makes a text of it."""
        return "messages" in self.members

    @property
    def field(self) -> str:
        """Member of the body that it comes from."""
        return "messages" if self.is_chat else self.source

    def content(self) -> bytes | None:
        """The members as JSON, `None` where they are nested too deep for that."""
        try:
            return orjson.dumps(self.members)
        except orjson.JSONEncodeError:
            return None


def utf8_bytes(text: str) -> int:
    """Length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
