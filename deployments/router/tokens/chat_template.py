"""Chat templates, rendered as transformers renders them, without importing transformers.

That would take the router half a second of CPU and 15 MB for one function. The environment, its
filters and globals and the treatment of messages are those of
`transformers.utils.chat_template_utils`, version 5.23.0; the twin test compares the two.

Templates come with models from elsewhere and run in Jinja's sandbox.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

Message = dict[str, Any]

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

# Marks where the last message ends, so that what the template adds after it can be cut off. The
# blank tells whether the template trims messages.
_END_MARK = "CONTINUE_FINAL_MESSAGE_TAG "


class TooLongError(Exception):
    """The template makes more text of a conversation than is wanted."""


class ChatTemplate:
    """One compiled template.

    Args:
        source: Jinja.

    Raises:
        jinja2.TemplateError: It is no template.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._template = _environment().from_string(source)

    def mentions(self, word: str) -> bool:
        """Whether the template has the word as a string of its own."""
        return f'"{word}"' in self._source or f"'{word}'" in self._source

    def render(
        self,
        messages: Sequence[Message],
        most_chars: float = math.inf,
        /,
        *,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as one text.

        Args:
            messages: At least one; not changed.
            most_chars: Of the text; rendering stops soon after them.
            continue_final_message: End with the last message's own text, so that the model goes on
                with it.
            variables: Whatever else the template reads: `tools`, `documents`,
                `add_generation_prompt`, special tokens.

        Raises:
            jinja2.TemplateError: The template refuses the conversation.
            ValueError: There is nothing to continue, or the template leaves it out.
            TooLongError: The text is longer than `most_chars`.
        """
        chat = [_with_reasoning_names(message) for message in messages]
        if not continue_final_message:
            return self._text(most_chars, {**variables, "messages": chat})
        chat[-1], final = _marked(chat[-1])
        rendered = self._text(most_chars, {**variables, "messages": chat})
        mark = _END_MARK.strip()
        if "content" not in self._source or final.strip() not in rendered or mark not in rendered:
            raise ValueError("the chat template leaves out the message that is to be continued")
        end = rendered.rindex(mark)
        kept = rendered[:end]
        return kept if rendered.startswith(_END_MARK, end) else kept.rstrip()

    def _text(self, most_chars: float, variables: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(variables):
            size += len(piece)
            if size > most_chars:
                raise TooLongError(f"the chat template makes more than {most_chars} characters")
            pieces.append(piece)
        return "".join(pieces)


def _with_reasoning_names(message: Message) -> Message:
    """Templates read a message's reasoning under one of several names."""
    found = (message[name] for name in REASONING_FIELDS if message.get(name) is not None)
    reasoning = next(found, None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _marked(message: Message) -> tuple[Message, str]:
    """The message with the mark at its end, and its text without."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": content + _END_MARK}, content
    parts = list(content or ())
    for index in reversed(range(len(parts))):
        text = parts[index].get("text")
        if text is not None:
            parts[index] = {**parts[index], "text": text + _END_MARK}
            return {**message, "content": parts}, text
    raise ValueError("the last message has no text to continue")


class _GenerationTag(Extension):
    """`{% generation %}` marks what a model is trained on; it renders what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_enclosed"), [], [], body).set_lineno(line)

    @staticmethod
    def _enclosed(caller: Macro) -> str:
        return str(caller())


class _Dict:
    """What a template gets for `dict`: no attributes to climb out of the sandbox with."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    @staticmethod
    def fromkeys(*args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _PlainNamespace(Namespace):
    """Jinja's, without attributes that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # Like Jinja's own: `self` may be the name of an attribute.
        self, *given = args
        attributes: dict[str, Any] = dict(*given, **kwargs)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"a chat template may not set {name!r} on a namespace")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, LoopControlExtension]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _Dict(),
        "namespace": _PlainNamespace,
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def without_nulls(message: Mapping[str, Any]) -> Message:
    """A message without the members that are null: many templates would write `None`."""
    return {name: value for name, value in message.items() if value is not None}
