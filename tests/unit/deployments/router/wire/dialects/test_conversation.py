"""Messages of a chat completion from pieces; the work grows with the pieces, not their square."""

from __future__ import annotations

import pytest

from deployments.router.wire.dialects import conversation
from deployments.router.wire.dialects.conversation import (
    Conversation,
    content_of,
    image_part,
    text_part,
    with_system,
)

PIECES = 300


class Whole(str):
    """A text that is copied once, not added to what stands before it."""

    __slots__ = ()

    def __radd__(self, before: str) -> str:
        raise AssertionError("joined piece by piece")


def test_pieces_of_a_turn_become_one_message() -> None:
    said = Conversation()
    said.say("system", [text_part("s")])
    said.say("user", [text_part("a")])
    said.say("user", [text_part("b"), image_part("u")])
    said.reason("r1")
    said.say("assistant", [text_part("c")])
    said.call("1", "f", "{}")
    said.reason("r2")
    said.say("assistant", [text_part("d")])
    said.result("1", [text_part("x"), image_part("v")])
    said.say("user", [text_part("e")])
    messages = said.messages()
    assert messages == said.messages()
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "tool", "user")
    ]
    assert messages[1]["content"] == [text_part("a"), text_part("b"), image_part("u")]
    assert (messages[2]["reasoning"], messages[2]["content"]) == ("r1r2", "cd")
    assert len(messages[2]["tool_calls"]) == 1
    assert messages[4]["content"] == [image_part("v"), text_part("e")]


@pytest.mark.parametrize(("role", "message"), [
    ("user", {"role": "user", "content": ""}),
    ("assistant", {"role": "assistant", "content": ""}),
    ("system", {"role": "system", "content": ""}),
])  # fmt: skip
def test_a_message_without_parts_is_empty(role: str, message: dict[str, str]) -> None:
    said = Conversation()
    said.say(role, [])
    assert said.messages() == [message]


def test_parts_of_a_turn_are_gathered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []

    def counting(parts: list[conversation.Part]) -> object:
        handled.append(len(parts))
        return content_of(parts)

    monkeypatch.setattr(conversation, "content_of", counting)
    said = Conversation()
    for _ in range(PIECES):
        said.say("user", [text_part("a")])
    assert len(said.messages()[0]["content"]) == PIECES
    assert sum(handled) == PIECES


def test_texts_of_a_turn_are_joined_once() -> None:
    said = Conversation()
    for _ in range(PIECES):
        said.reason(Whole("ab"))
    assert said.messages() == [{"role": "assistant", "reasoning": "ab" * PIECES}]


def test_all_system_messages_that_begin_a_conversation_are_one() -> None:
    system = [{"role": "system", "content": "s"}] * 3
    user = {"role": "user", "content": "a"}
    late = {"role": "system", "content": "late"}
    first, *rest = with_system("t", [*system, user, late])
    assert first == {"role": "system", "content": "t\n\ns\n\ns\n\ns"}
    assert rest == [user, late]
    assert with_system(None, [user]) == [user]
