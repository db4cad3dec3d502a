"""Random conversations and prompts, and chat templates of the kinds that there are."""

from __future__ import annotations

import json
import random
from typing import Any

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
WORDS = ["the", "Planet", "naïve", "東京", "🙂", "δοκιμή", "x=1;", "\tdef f():", "\n\n", "  ", "don't",
         "http://a.b/c?d=e", "0123456789", "и", "\u200b", "ﬁ", "</s>", "{{ x }}", "{% y %}", *SPECIAL]  # fmt: skip

TEMPLATES = {
    "tools": """{%- if tools %}<|im_start|>system
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n' }}{% endif %}
{%- for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- set ns = namespace(last=none) %}
{%- for message in messages %}
    {%- if loop.first and tools and message.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.last = message.role %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.tool_calls %}
        {%- for call in message.tool_calls %}{{ call | tojson }}{{ call.function.arguments | tojson(indent=2) }}{% endfor %}
    {%- endif %}
    {%- if message.name is defined %}{{ message.name }}: {% endif %}
    {%- if message.reasoning_content is defined %}<think>{{ message.reasoning_content }}</think>{% endif %}
    {{- message.content if message.content is defined else 'nothing' }}{{ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}""",
    "parts": """{{ bos_token }}{% for message in messages %}
{{ message['role'] }}:
{%- for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] | trim }} {% endif %}{% endfor %}
{% endfor %}{% for document in documents or [] %}[{{ document.title }}] {{ document.text }}{% endfor %}""",
    "strict": """{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif -%}
{%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system + '\\n' if loop.first and system else '') + message['content'].strip() + ' [/INST]' }}
{%- else %}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{% endif -%}
{%- endfor -%}""",
    "developer": """{% for message in messages %}{% if message.role == "developer" %}# {{ message.content }}{% else %}{{ message.role ~ ' ' ~ (message | tojson) }}{% endif %}{% endfor %}{{ dict(a=1) | tojson }}{{ reasoning_effort }}""",
}  # fmt: skip


def text(rng: random.Random, words: int = 30) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(words)))


def completion(rng: random.Random) -> dict[str, Any]:
    """A plain completion: text or ids, one or several."""
    ids = [rng.randrange(17, 1000) for _ in range(rng.randrange(1, 40))]
    prompt = rng.choice([text(rng) + "x", [text(rng) + "x", text(rng) + "y"], ids, [ids, ids[:3]]])
    body: dict[str, Any] = {"prompt": prompt}
    if rng.random() < 0.3:
        body["add_special_tokens"] = rng.random() < 0.5
    return body


def chat(rng: random.Random) -> dict[str, Any]:
    """A conversation with whatever a well-behaved client may send."""
    messages = [_message(rng) for _ in range(rng.randrange(1, 6))]
    body: dict[str, Any] = {"messages": messages}
    if rng.random() < 0.3:
        body |= {"tools": [_tool(rng) for _ in range(rng.randrange(1, 3))], "tool_choice": "none"}
    if rng.random() < 0.2:
        body["add_generation_prompt"] = False
        if rng.random() < 0.7:
            body["continue_final_message"] = True
    if rng.random() < 0.2:
        body["add_special_tokens"] = rng.random() < 0.5
    if rng.random() < 0.2:
        body["reasoning_effort"] = rng.choice(["none", "low", "high", None])
    if rng.random() < 0.2:
        body["chat_template_kwargs"] = rng.choice(
            [
                {"enable_thinking": False},
                {"enable_thinking": None},
                {"greeting": "B", "x": [1]},
                {},
            ]
        )
    if rng.random() < 0.1:
        body["documents"] = [{"title": text(rng, 3), "text": text(rng, 9)}]
    return body


def _message(rng: random.Random) -> dict[str, Any]:
    role = rng.choice(["user", "user", "assistant", "system", "developer", "tool"])
    content: Any = text(rng)
    if rng.random() < 0.3:
        content = [{"type": "text", "text": text(rng, 8)} for _ in range(rng.randrange(1, 4))]
    message: dict[str, Any] = {"role": role, "content": content}
    if rng.random() < 0.1:
        message["name"] = rng.choice(["ann", "bob"])
    if role == "tool":
        message["tool_call_id"] = "call_1"
    if role == "assistant":
        if rng.random() < 0.3:
            message["tool_calls"] = [_tool_call(rng) for _ in range(rng.randrange(3))]
            if rng.random() < 0.5:
                message["content"] = None
        if rng.random() < 0.2:
            message[rng.choice(["reasoning", "reasoning_content"])] = text(rng, 6)
    return message


def _tool_call(rng: random.Random) -> dict[str, Any]:
    arguments = rng.choice([json.dumps({"city": text(rng, 4), "n": 3}), "", "[1]", "{broken", "{}"])
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def _tool(rng: random.Random) -> dict[str, Any]:
    function: dict[str, Any] = {"name": rng.choice(["weather", "zeit"])}
    if rng.random() < 0.7:
        function["description"] = text(rng, 6)
    if rng.random() < 0.7:
        parameters = {"city": {"type": "string", "enum": ["東京", "<Rome>"]}}
        function["parameters"] = {"type": "object", "properties": parameters}
    if rng.random() < 0.3:
        function["strict"] = rng.random() < 0.5
    return {"type": "function", "function": function}
