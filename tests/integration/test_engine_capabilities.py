"""What vLLM's own renderers and parsers say of a checkpoint with several chat templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import build_tiny_checkpoints

from deployments.demo_models.catalog import cache_folder
from scheduler.capabilities import Capabilities, Feature

pytestmark = pytest.mark.integration

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_TOOLS = (
    "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}\n{% endfor %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m.content }}\n{% endfor %}"
)
DROPPING = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.content }}\n"
    "{% endif %}{% endfor %}"
)
WITH_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
)
TURNS = {Feature.SYSTEM, Feature.LATE_SYSTEM, Feature.REPEATED_USER, Feature.ASSISTANT_FIRST}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Describes a tiny checkpoint whose tokenizer knows `<think>`."""
    from transformers import AutoTokenizer
    from vllm.engine.arg_utils import EngineArgs
    from vllm.renderers import renderer_from_config
    from vllm.renderers.online_renderer import OnlineRenderer

    from deployments.replica.engine.capabilities import describe_capabilities

    folder = tmp_path_factory.mktemp("thinking") / "model"
    source: Path = build_tiny_checkpoints(cache_folder() / "tests")["tiny-phi3"]
    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    args = EngineArgs(model=str(folder), max_model_len=512, enforce_eager=True)
    config = args.create_engine_config()
    renderer = renderer_from_config(config)

    def describe(template: str, **options: Any) -> Any:
        online = OnlineRenderer(
            config.model_config,
            renderer,
            request_logger=None,
            chat_template=template,
            chat_template_content_format="auto",
            **options,
        )
        settings = {"tool_call_parser": options.get("tool_parser")}
        # A replica's description is JSON for whoever lists the models.
        return json.loads(json.dumps(describe_capabilities(online, settings, ["adapter"])))

    return describe


def lacking(described: Any) -> set[str]:
    return set(Capabilities.from_dict(described).lacks)


def test_a_template_of_any_turns(described: Callable[..., Any]) -> None:
    found = described(CHATML)
    assert not TURNS & lacking(found)
    assert {Feature.TOOLS, Feature.IMAGE, Feature.AUDIO, Feature.VIDEO} <= lacking(found)
    assert found["ignores"].keys() == {"tools"}
    assert (found["modalities"], found["loras"], found["at_most"]) == (
        ["text"],
        ["adapter"],
        {"logprobs": 20},
    )


def test_a_template_that_wants_turns_to_alternate(described: Callable[..., Any]) -> None:
    found = described(ALTERNATING)
    assert lacking(found) >= TURNS | {Feature.TOOL_RESULTS}
    assert Feature.ASSISTANT_LAST not in lacking(found)
    assert "Roles must alternate" in found["lacks"]["system"]


def test_a_template_that_leaves_out_what_it_does_not_know(described: Callable[..., Any]) -> None:
    found = described(DROPPING)
    assert not TURNS & lacking(found)
    assert found["ignores"].keys() >= {"system", "late_system", "tool_results", "tools"}


def test_tools(described: Callable[..., Any]) -> None:
    found = described(WITH_TOOLS, tool_parser="hermes", enable_auto_tools=True)
    assert not {Feature.TOOLS, Feature.TOOL_CHOICE, Feature.TOOL_RESULTS} & lacking(found)
    assert not found["ignores"]
    assert (found["tool_parser"], found["constrains_tools"]) == ("hermes", True)
    # As vLLM: a parser without the permission to use it is none.
    assert Feature.TOOLS in lacking(described(WITH_TOOLS, tool_parser="hermes"))


def test_how_an_answer_is_continued(described: Callable[..., Any]) -> None:
    assert described(CHATML)["continues"] == {"answer": {"content": "{content}"}}
    thinking = {"reasoning_parser": "deepseek_r1"}
    inside = "<think>\n{reasoning}"
    assert described(CHATML, **thinking)["continues"] == {
        "answer": {"content": f"{inside}\n</think>\n\n{{content}}"},
        "reasoning": {"content": inside},
    }
    assert described(WITH_THOUGHT, **thinking)["continues"] == {
        "answer": {"content": "{content}", "reasoning": "{reasoning}"},
        "reasoning": {"content": inside},
    }
