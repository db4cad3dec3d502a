from __future__ import annotations

from typing import Any

from deployments.router.tokens.prompts import Prompt, utf8_bytes


def test_content_is_the_members_and_nothing_else() -> None:
    one = Prompt({"messages": [{"content": "日"}]}, text_bytes=3, other_tokens=5)
    assert one.content() == '{"messages":[{"content":"日"}]}'.encode()
    assert one.is_chat


def test_what_is_nested_too_deep_has_no_content() -> None:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    assert Prompt({"messages": [], "tools": nested}, 0).content() is None


def test_bytes_of_a_text() -> None:
    assert [utf8_bytes(text) for text in ("", "ab", "é", "日本", "🙂")] == [0, 2, 2, 6, 4]
