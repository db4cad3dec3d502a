"""Against transformers' own rendering, which it stands in for."""

from __future__ import annotations

import random
from typing import Any

import conversations
import pytest
from jinja2.exceptions import SecurityError, TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from deployments.router.tokens.chat_template import ChatTemplate, TooLongError, without_nulls

MORE = {
    "generation": "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x }}{% endfor %}",
    "loops": "{% for m in messages %}{% if loop.index0 == 3 %}{% break %}{% endif %}{{ m.content }}\n{% endfor %}\n",
    "dict": "{{ dict.fromkeys(['a', 'b'], 1) | tojson }}{{ dict(b=2, a=1) | tojson(sort_keys=true, indent=1) }}",
    "namespace": "{% set n = namespace(self=1, a=2) %}{% set n.a = n.a + n.self %}{{ n.a }}",
    "time": "{{ strftime_now('%d %b %Y') }}",
    "reasoning": "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}|{{ m.reasoning }}{% endfor %}",
    "escapes": "{{ '<b>&\\'\"é' | tojson }}{{ '<b>&é' | tojson(ensure_ascii=true, separators=(',', ':')) }}",
}  # fmt: skip
VARIABLES: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "enable_thinking": False}


def theirs(source: str, messages: list[Any], **variables: Any) -> str:
    (rendered,), _ = render_jinja_template([messages], chat_template=source, **variables)
    return str(rendered)


@pytest.mark.parametrize("source", [*conversations.TEMPLATES.values(), *MORE.values()])
def test_it_renders_what_transformers_renders(source: str) -> None:
    rng = random.Random(3)
    template = ChatTemplate(source)
    compared = 0
    for _ in range(60):
        body = conversations.chat(rng)
        messages = [without_nulls(message) for message in body["messages"]]
        variables = {
            **VARIABLES,
            "tools": body.get("tools"),
            "documents": body.get("documents"),
            "add_generation_prompt": body.get("add_generation_prompt", True),
            "continue_final_message": body.get("continue_final_message", False),
        }
        try:
            expected = theirs(source, messages, **variables)
        except Exception:
            # What they refuse, such as to continue a message that the template leaves out.
            with pytest.raises((TemplateError, ValueError, TypeError)):
                template.render(messages, **variables)
            continue
        assert template.render(messages, **variables) == expected
        compared += 1
    assert compared > 3


@pytest.mark.parametrize("content", ["ends with a blank ", "two words", " \n", [{"text": "a "}]])
@pytest.mark.parametrize("trim", ["", " | trim"])
def test_a_final_message_is_left_open(content: Any, trim: str) -> None:
    text = "m.content" if isinstance(content, str) else "m.content[0].text"
    source = f"{{% for m in messages %}}<{{{{ {text}{trim} }}}}>{{% endfor %}}"
    messages = [{"role": "user", "content": content}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    rendered = ChatTemplate(source).render(messages, **options)
    assert rendered == theirs(source, messages, **options)
    assert not rendered.endswith(">")
    assert messages == [{"role": "user", "content": content}]


def test_there_has_to_be_something_to_continue() -> None:
    with pytest.raises(ValueError, match="no text to continue"):
        ChatTemplate(conversations.TEMPLATES["tools"]).render(
            [{"role": "assistant"}], continue_final_message=True
        )
    with pytest.raises(ValueError, match="leaves out"):
        ChatTemplate("content").render([{"content": "x"}], continue_final_message=True)


@pytest.mark.parametrize(
    "source",
    [
        "{% set n = namespace(_x=1) %}",
        "{% set n = namespace() %}{% set n._x = 1 %}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises((SecurityError, TemplateError)):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_rendering_stops_soon_after_the_most() -> None:
    printed = []
    source = "{% for m in messages %}{{ note(m.content) }}{% endfor %}"
    messages = [{"role": "user", "content": "x" * 10}] * 1000

    def note(text: str) -> str:
        printed.append(text)
        return text

    with pytest.raises(TooLongError, match="more than 100 characters"):
        ChatTemplate(source).render(messages, 100, note=note)
    assert len(printed) == 11


def test_variables_may_have_any_name() -> None:
    variables: dict[str, Any] = {"self": 1, "most_chars": 2, "source": 3}
    template = ChatTemplate("{{ most_chars }}{{ source }}")
    assert template.render([{"role": "user"}], 10, **variables) == "23"


def test_words_of_a_template_are_its_strings() -> None:
    template = ChatTemplate("{{ 'developer' }} \"system\" user")
    assert [template.mentions(w) for w in ("developer", "system", "user")] == [True, True, False]
