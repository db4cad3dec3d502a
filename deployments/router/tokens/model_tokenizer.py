"""Counts the tokens of a prompt exactly as one engine does, from what a replica handed over."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from deployments.links.tokenizer_bundle import ChatFormat, TokenizerBundle
from deployments.router.tokens.chat_messages import UncountableError, conversation, tool_schemas
from deployments.router.tokens.chat_template import ChatTemplate, TooLongError
from deployments.router.tokens.prompts import SPECIAL_TOKEN_NAMES, Prompt

# A batch of one gains nothing from a pool of threads, and the pool would be as wide as the node.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Arguments of transformers' `apply_chat_template`, which a request's `chat_template_kwargs` would
# replace instead of reaching the template.
_NOT_FOR_TEMPLATES = frozenset(
    (
        *("conversation", "messages", "tools", "documents", "chat_template"),
        *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens"),
        *("tokenize", "tokenizer_kwargs", "padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
    )
)

MOST_CHARS = 1_000_000
"""Of a conversation's text, unless said otherwise; some megabytes take seconds to encode."""


class TemplateRejectionError(Exception):
    """The model's chat template does not take the conversation; the message is the template's."""


class _Chat:
    """One way to render: with tools or without."""

    def __init__(self, form: ChatFormat) -> None:
        self.parts = form.parts
        self.template = ChatTemplate(form.template)
        self.developer = self.template.mentions("developer")


class ModelTokenizer:
    """One tokenizer with its chat templates. May be used by several threads at once.

    Loading holds the interpreter: 0.1 s for a vocabulary of 49,000 tokens.

    Args:
        bundle: From a replica.

    Raises:
        Exception: The tokenizers library cannot read it, or a template is none.
    """

    def __init__(self, bundle: TokenizerBundle) -> None:
        self._encoder = Tokenizer.from_str(bundle.encoder)
        self._encoder.encode_special_tokens = bundle.split_special_tokens
        self._special_tokens = bundle.special_tokens
        self._variables = {
            name: value
            for name, value in bundle.template_variables.items()
            if name not in _NOT_FOR_TEMPLATES
        }
        self._none_hides_tools = bundle.none_hides_tools
        self._chat = _Chat(bundle.chat) if bundle.chat else None
        self._chat_with_tools = _Chat(bundle.chat_with_tools) if bundle.chat_with_tools else None

    def count(self, prompt: Prompt, most_chars: int = MOST_CHARS) -> int:
        """Input tokens, as the engine will report them.

        Args:
            prompt: What is counted.
            most_chars: Of the text that a chat template makes of it.

        Raises:
            UncountableError: Only the engine can tell, or the text is longer.
            TemplateRejectionError: The template rejects the conversation, as the engine's will.
        """
        members = prompt.members
        limit = members.get("truncate_prompt_tokens")
        if limit is not None and (type(limit) is not int or limit < 0):
            raise UncountableError("truncate_prompt_tokens depends on the engine")
        if prompt.is_chat:
            text = self.render(members, most_chars)
            total = self._encode(text, _flag(members, "add_special_tokens", False))
            return total if limit is None else min(total, limit)
        if members.get("prompt_embeds") is not None:
            raise UncountableError("prompt_embeds are no text")
        special = _flag(members, "add_special_tokens", True)
        counts = [
            self._encode(text, special) if isinstance(text, str) else len(text)
            for text in _single_prompts(members["prompt"])
        ]
        return sum(counts if limit is None else (min(count, limit) for count in counts))

    def render(self, members: Mapping[str, Any], most_chars: int = MOST_CHARS) -> str:
        """The text that the chat template makes of a conversation.

        Args:
            members: As `Prompt` has them.
            most_chars: As for `count`.

        Raises:
            UncountableError: As `count`, and the other errors too.
        """
        if members.get("chat_template") or members.get("kv_transfer_params"):
            raise UncountableError("the request brings its own prompt")
        tools = tool_schemas(members.get("tools"))
        if self._none_hides_tools and members.get("tool_choice") == "none":
            tools = None
        chat = self._chat if tools is None else self._chat_with_tools
        if chat is None:
            raise UncountableError("the model has no chat template")
        seen = conversation(members["messages"], parts=chat.parts, developer=chat.developer)
        variables = {
            "continue_final_message": _flag(members, "continue_final_message", False),
            "add_generation_prompt": _flag(members, "add_generation_prompt", True),
            "tools": tools,
            "documents": members.get("documents"),
            **self._template_variables(members),
        }
        try:
            return chat.template.render(seen, most_chars, **variables)
        except TooLongError as error:
            raise UncountableError(str(error)) from error
        except Exception as error:
            # Whatever it raises, the engine answers 400 with it.
            raise TemplateRejectionError(str(error) or type(error).__name__) from error

    def ids(self, prompt: Prompt, most_chars: int = MOST_CHARS) -> list[int]:
        """The token ids of one text, or of a conversation.

        Args:
            prompt: What is encoded.
            most_chars: As for `count`.

        Raises:
            UncountableError: As `count`, and the other errors too.
        """
        members = prompt.members
        if prompt.is_chat:
            text = self.render(members, most_chars)
            special = _flag(members, "add_special_tokens", False)
        else:
            text, special = members["prompt"], _flag(members, "add_special_tokens", True)
        (encoding,) = self._encoder.encode_batch_fast([text], add_special_tokens=special)
        found: list[int] = encoding.ids
        return found

    def text(self, ids: Sequence[int]) -> str:
        """The text that token ids stand for, special tokens included."""
        found: str = self._encoder.decode(list(ids), skip_special_tokens=False)
        return found

    def token(self, number: int) -> str | None:
        """A token as the vocabulary writes it, `None` where there is no such id."""
        found: str | None = self._encoder.id_to_token(number)
        return found

    def _template_variables(self, members: Mapping[str, Any]) -> dict[str, Any]:
        given = members.get("chat_template_kwargs") or {}
        if not isinstance(given, dict) or not _NOT_FOR_TEMPLATES.isdisjoint(given):
            raise UncountableError("chat_template_kwargs that are not for the template")
        own = given.keys() & (SPECIAL_TOKEN_NAMES | self._special_tokens.keys())
        if own:
            name = f"chat_template_kwargs.{min(own)}"
            raise TemplateRejectionError(f"{name} is a special token of the model's tokenizer")
        effort = members.get("reasoning_effort")
        if effort is not None:
            given = {"enable_thinking": effort != "none"} | given | {"reasoning_effort": effort}
        # vLLM takes null and "auto" for "not given".
        said = {name: value for name, value in given.items() if value not in (None, "auto")}
        return {**self._special_tokens, **self._variables, **said}

    def _encode(self, text: str, add_special_tokens: bool) -> int:
        # The batch, because encoding a single text holds the interpreter and looks for offsets.
        (encoding,) = self._encoder.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return len(encoding)


def _single_prompts(prompt: Any) -> list[Any]:
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return prompt if several else [prompt]


def _flag(members: Mapping[str, Any], name: str, default: bool) -> bool:
    value = members.get(name, default)
    if type(value) is not bool:
        raise UncountableError(f"{name} is not true or false")
    return value
