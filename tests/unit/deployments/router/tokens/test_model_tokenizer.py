"""The small things; tests/integration/test_engine_tokenizer.py compares the counts with vLLM's."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from small_tokenizer import ENCODER, bundle
from tokenizers import Tokenizer

from deployments.links.tokenizer_bundle import ChatFormat
from deployments.router.tokens.chat_messages import UncountableError
from deployments.router.tokens.model_tokenizer import ModelTokenizer, TemplateRejectionError
from deployments.router.tokens.prompts import Prompt

REFERENCE = Tokenizer.from_str(ENCODER)
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "the fox"}]}
TOOL = {"type": "function", "function": {"name": "f"}}


def tokens(text: str, *, special: bool = False) -> int:
    return len(REFERENCE.encode(text, add_special_tokens=special).ids)


def count(tokenizer: ModelTokenizer | None = None, **members: Any) -> int:
    return (tokenizer or ModelTokenizer(bundle())).count(Prompt(members, 0))


def test_completions_get_special_tokens() -> None:
    assert count(prompt="the fox") == tokens("the fox") + 1
    assert count(prompt="the fox", add_special_tokens=False) == tokens("the fox")
    assert count(prompt=["the fox", "dog"]) == tokens("the fox") + tokens("dog") + 2
    assert count(prompt=[[1, 2, 3], [4]]) == 4
    assert count(prompt=[1, 2, 3]) == 3


def test_chats_get_those_of_their_template() -> None:
    text = "<s>user: the fox</s><s>assistant:"
    assert count(**HELLO) == tokens(text)
    assert count(**HELLO, add_special_tokens=True) == tokens(text) + 1
    assert count(**HELLO, add_generation_prompt=False) == tokens("<s>user: the fox</s>")


def test_special_tokens_in_a_text_are_special_unless_the_engine_splits_them() -> None:
    assert count(prompt="<s></s>", add_special_tokens=False) == 2
    split = ModelTokenizer(bundle(split_special_tokens=True))
    assert count(split, prompt="<s></s>", add_special_tokens=False) > 2


def test_a_truncated_prompt_has_no_more_than_its_limit() -> None:
    assert count(prompt="the fox", truncate_prompt_tokens=2) == 2
    assert count(prompt=["the fox", [1, 2, 3]], truncate_prompt_tokens=2) == 4
    assert count(**HELLO, truncate_prompt_tokens=10_000) == count(**HELLO)
    assert count(**HELLO, truncate_prompt_tokens=3) == 3


def test_tools_have_a_template_of_their_own() -> None:
    tokenizer = ModelTokenizer(
        bundle(
            "plain", chat_with_tools=ChatFormat("{{ tools[0].function.name }} tools", parts=False)
        )
    )
    assert tokenizer.render(HELLO) == "plain"
    assert tokenizer.render({**HELLO, "tools": [TOOL], "tool_choice": "none"}) == "f tools"
    hiding = ModelTokenizer(bundle("{{ tools is none }}", none_hides_tools=True))
    assert hiding.render({**HELLO, "tools": [TOOL], "tool_choice": "none"}) == "True"
    assert hiding.render({**HELLO, "tools": [TOOL], "tool_choice": "auto"}) == "False"


@pytest.mark.parametrize(
    ("members", "rendered"),
    [
        ({}, "<s> 1"),
        ({"chat_template_kwargs": {"a": 2}}, "<s> 2"),
        ({"chat_template_kwargs": {"b": None, "a": "auto"}}, "<s> 1"),
        ({"reasoning_effort": "none"}, "<s> 1 none False"),
        ({"reasoning_effort": "low"}, "<s> 1 low True"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": 0}},
            "<s> 1 low 0",
        ),
        ({"reasoning_effort": None, "chat_template_kwargs": None}, "<s> 1"),
    ],
)
def test_what_a_template_can_read(members: dict[str, Any], rendered: str) -> None:
    template = (
        "{{ bos_token }} {{ a }}"
        "{% if reasoning_effort %} {{ reasoning_effort }} {{ enable_thinking }}{% endif %}"
    )
    variables = {"a": 1, "add_generation_prompt": "not for the template"}
    tokenizer = ModelTokenizer(bundle(template, template_variables=variables))
    assert tokenizer.render({**HELLO, **members}) == rendered


@pytest.mark.parametrize(
    "members",
    [
        {**HELLO, "chat_template": "mine"},
        {**HELLO, "kv_transfer_params": {"prompt_token_ids": [1]}},
        {**HELLO, "chat_template_kwargs": {"tools": []}},
        {**HELLO, "chat_template_kwargs": [1]},
        {**HELLO, "add_generation_prompt": "false"},
        {**HELLO, "truncate_prompt_tokens": -1},
        {"prompt": "x", "truncate_prompt_tokens": True},
        {"prompt": "x", "prompt_embeds": "abc"},
        {"prompt": "x", "add_special_tokens": None},
    ],
)
def test_prompts_that_only_the_engine_can_count(members: dict[str, Any]) -> None:
    with pytest.raises(UncountableError):
        count(**members)


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "image_token"])
@pytest.mark.parametrize("value", ["a b" * 6666, None])
def test_special_tokens_are_the_models(name: str, value: str | None) -> None:
    special = {"bos_token": "<s>", "image_token": "<image>"}
    tokenizer = ModelTokenizer(bundle(special_tokens=special))
    given = {"enable_thinking": True, name: value}
    with pytest.raises(TemplateRejectionError, match=rf"chat_template_kwargs\.{name} is a special"):
        tokenizer.render({**HELLO, "chat_template_kwargs": given})


def test_a_text_that_a_template_multiplies_is_not_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = "{% for m in messages %}{{ m.content + a }}{% endfor %}"
    tokenizer = ModelTokenizer(bundle(template))
    members = {"messages": HELLO["messages"] * 100, "chat_template_kwargs": {"a": "b" * 93}}
    assert len(tokenizer.render(members, 10_000)) == 10_000
    assert tokenizer.count(Prompt(members, 0), 10_000) == tokens(("the fox" + "b" * 93) * 100)
    monkeypatch.setattr(ModelTokenizer, "_encode", lambda *_: pytest.fail("was encoded"))
    for read in (tokenizer.count, tokenizer.ids):
        with pytest.raises(UncountableError, match="more than 9999 characters"):
            read(Prompt(members, 0), 9_999)


def test_a_model_without_a_template_counts_completions() -> None:
    tokenizer = ModelTokenizer(bundle(None))
    assert count(tokenizer, prompt="the fox") == tokens("the fox") + 1
    with pytest.raises(UncountableError, match="no chat template"):
        count(tokenizer, **HELLO)


def test_what_is_no_template_is_found_at_once() -> None:
    with pytest.raises(TemplateError):
        ModelTokenizer(bundle("{% if %}"))
