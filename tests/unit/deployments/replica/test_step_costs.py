"""What a constraint costs the engine core is its own request's."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from engine_core import compiled
from tiny_checkpoints import build_tiny_checkpoints
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1 import structured_output
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from deployments.demo_models.catalog import cache_folder
from deployments.replica.engine_worker import (
    COSTLY,
    COSTLY_THREADS,
    TOO_COSTLY,
    guard_constraints,
)
from deployments.replica.vetting.compile_check import CompileCheck, RejectedError
from deployments.replica.vetting.step_costs import BEYOND_S, TOKEN_S, MeteredGrammar

# Of vLLM, to xgrammar.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")

GROWING: dict[str, dict[str, Any]] = {
    "splits in the grammar": {"grammar": "root ::= s\ns ::= s s | [a-z]"},
    "stars in the grammar": {"grammar": "root ::= (([a-z]*)*)*"},
    "stars in the expression": {"regex": "((.*)*)*"},
}
ORDINARY: dict[str, dict[str, Any]] = {
    "text": {"regex": "(.|\\n)*"},
    "words": {"regex": "(\\w+ )*"},
    "list": {"json": {"type": "array", "items": {"type": "string"}}},
    "list for guidance": {"json": {"type": "array", "items": {"multipleOf": 7, "type": "integer"}}},
}


@pytest.fixture(scope="module")
def config() -> Any:
    folder = str(build_tiny_checkpoints(cache_folder() / "tests")["tiny-phi3"])
    return EngineArgs(model=folder, max_model_len=512, enforce_eager=True).create_engine_config()


@pytest.fixture(scope="module")
def manager(config: Any) -> StructuredOutputManager:
    guard_constraints()
    return StructuredOutputManager(config)


class Stub:
    """A grammar whose tokens cost what the test says, in seconds."""

    def __init__(self, costs: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self._costs = 0.0, iter(costs)
        monkeypatch.setattr(time, "thread_time", lambda: self.now)

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        self.now += next(self._costs)
        return True


def accepted_of(costs: list[float], monkeypatch: pytest.MonkeyPatch) -> int:
    """Tokens that are accepted until there is an excess."""
    grammar = MeteredGrammar(Stub(costs, monkeypatch))
    for number in range(len(costs)):
        if not grammar.accept_tokens("r", [1]):
            return number
    return len(costs)


def test_what_every_token_may_take_is_never_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accepted_of([TOKEN_S] * 5000, monkeypatch) == 5000


def test_a_dear_token_is_forgiven_once(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [BEYOND_S] + [0.0] * 20 + [BEYOND_S] + [0.0] * 20
    assert accepted_of(costs, monkeypatch) == len(costs)
    assert accepted_of([BEYOND_S] * 4, monkeypatch) == 1


def test_several_tokens_of_a_step_count_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    costs = [0.0, 2 * BEYOND_S, 0.0]
    grammar = MeteredGrammar(Stub(costs, monkeypatch), reasons.append)
    assert not grammar.accept_tokens("r", [1, 2, 3])
    assert reasons == [grammar.excess]
    assert "costs the engine 1.00 s to follow at token 2" in grammar.excess


def compiling(manager: Any, constraint: dict[str, Any], **extra_args: Any) -> Request:
    """A request whose constraint the engine core has begun to compile."""
    params = SamplingParams(
        max_tokens=400,
        structured_outputs=StructuredOutputsParams(**constraint),
        extra_args=extra_args,
    )
    config = manager.vllm_config
    params._validate_structured_outputs(
        config.model_config, config.structured_outputs_config, manager.tokenizer
    )
    request = Request("r", [5, 6, 7], params, None)
    manager.grammar_init(request)
    return request


def follow(manager: Any, constraint: dict[str, Any], most_tokens: int) -> tuple[Request, int]:
    """A request that is followed as the engine core follows it, and how many tokens it got."""
    request = compiling(manager, constraint)
    grammar = compiled(request)
    choice, config = random.Random(0), manager.vllm_config
    size, eos = config.model_config.get_vocab_size(), manager.tokenizer.eos_token_id
    for number in range(most_tokens):
        if grammar.is_terminated():
            return request, number
        mask = manager.grammar_bitmask({"r": request}, ["r"], {})
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:size])
        going_on = allowed[allowed != eos]
        token = choice.choice(going_on if len(going_on) else allowed)
        if not grammar.accept_tokens("r", [int(token)]):
            return request, number
    return request, most_tokens


@pytest.mark.parametrize("name", GROWING)
def test_the_engine_core_ends_what_grows_too_dear(manager: Any, name: str) -> None:
    began = time.thread_time()
    request, tokens = follow(manager, GROWING[name], 400)
    assert tokens < 200
    assert str(request.stop_reason).startswith(TOO_COSTLY)
    # Without the meter it takes minutes. Its last token may take more than all before.
    assert time.thread_time() - began < 30 * BEYOND_S


@pytest.mark.parametrize("name", ORDINARY)
def test_it_leaves_ordinary_constraints_alone(manager: Any, name: str) -> None:
    request, _ = follow(manager, ORDINARY[name], 300)
    assert request.stop_reason is None


def test_a_trial_finds_what_grows_soon(config: Any) -> None:
    check = CompileCheck(config)
    for constraint in (GROWING["stars in the grammar"], GROWING["stars in the expression"]):
        with pytest.raises(RejectedError, match="s to follow at token"):
            check.check(constraint)
    for constraint in ORDINARY.values():
        assert check.check(constraint)


def test_steps_have_a_backend_while_another_one_is_made(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard_constraints()
    manager = StructuredOutputManager(config)
    compiled(compiling(manager, ORDINARY["words"]))
    there_is, seen = manager.backend, []
    make = structured_output.GuidanceBackend

    def slowly(*args: Any, **kwargs: Any) -> Any:
        seen.append(manager.backend)
        return make(*args, **kwargs)

    monkeypatch.setattr(structured_output, "GuidanceBackend", slowly)
    compiled(compiling(manager, ORDINARY["list for guidance"]))
    assert seen == [there_is]
    assert there_is is not None
    assert set(manager.backends) == {"xgrammar", "guidance"}


def test_nobody_waits_for_what_takes_long_to_compile(manager: Any) -> None:
    follow(manager, ORDINARY["words"], 0)
    go_on = threading.Event()
    busy = [manager.executors[True].submit(go_on.wait) for _ in range(COSTLY_THREADS)]
    costly = compiling(manager, {"regex": "cost[a-z]*"}, **{COSTLY: True})
    try:
        assert compiled(compiling(manager, {"regex": "quick[a-z]*"}))
        assert costly.structured_output_request is not None
        assert costly.structured_output_request.grammar is None
    finally:
        go_on.set()
    assert compiled(costly)
    assert all(one.result() for one in busy)
