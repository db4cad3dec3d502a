"""The engine core follows a grammar up to where another replica's answer broke off."""

from __future__ import annotations

from typing import Any

import pytest
from engine_core import compiled
from tiny_checkpoints import build_tiny_checkpoints
from transformers import AutoTokenizer
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from deployments.demo_models.catalog import cache_folder
from deployments.replica.engine_worker import RESUMED, guard_constraints

# Of vLLM, to xgrammar.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")

PROMPT = [5, 6, 7]
WHOLE = '{"where": "river", "n": 12}'
SCHEMA = {
    "type": "object",
    "properties": {"where": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["where", "n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    """A manager of the engine core, and the tokenizer."""
    folder = str(build_tiny_checkpoints(cache_folder() / "tests")["tiny-phi3"])
    config = EngineArgs(model=folder, max_model_len=512, enforce_eager=True).create_engine_config()
    guard_constraints()
    return StructuredOutputManager(config), AutoTokenizer.from_pretrained(folder)


def grammar_of(manager: Any, begun: list[int]) -> Any:
    outputs = StructuredOutputsParams(json=SCHEMA)
    outputs._backend = "xgrammar"
    params = SamplingParams(
        max_tokens=99,
        structured_outputs=outputs,
        extra_args={RESUMED: len(begun)} if begun else None,
    )
    request = Request("r", [*PROMPT, *begun], params, None)
    manager.grammar_init(request)
    return compiled(request)


def test_it_goes_on_wherever_it_broke_off(parts: tuple[Any, Any]) -> None:
    manager, tokenizer = parts
    ids = tokenizer(WHOLE, add_special_tokens=False).input_ids
    wrong = tokenizer('{"where"', add_special_tokens=False).input_ids
    for broke_at in range(1, len(ids)):
        grammar = grammar_of(manager, ids[:broke_at])
        assert grammar.accept_tokens("r", ids[broke_at:])
    # From the beginning only the beginning fits, and behind it nothing that begins again.
    assert not grammar_of(manager, []).accept_tokens("r", ids[3:])
    assert not grammar_of(manager, ids[:-1]).accept_tokens("r", wrong)


def test_a_beginning_that_breaks_the_grammar_fails_its_request(parts: tuple[Any, Any]) -> None:
    manager, tokenizer = parts
    begun = tokenizer("no JSON", add_special_tokens=False).input_ids
    # vLLM keeps what went wrong in the grammar's place, and fails the request with it.
    assert "does not follow its grammar" in str(grammar_of(manager, begun))
