from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.replica.request_trace import StepFeed, Trail


def test_token_ids_are_taken_once() -> None:
    trail = Trail()
    trail.new_token_ids.extend([1, 2])
    assert trail.take_token_ids() == (1, 2)
    trail.new_token_ids.append(3)
    assert trail.take_token_ids() == (3,)
    assert trail.take_token_ids() == ()


def test_no_two_requests_share_one() -> None:
    first, second = Trail(), Trail()
    first.new_token_ids.append(1)
    assert second.new_token_ids == []
    assert second.started >= first.started


@pytest.mark.parametrize(
    ("ended", "cut", "expected"), [(0, 0, False), (1, 0, False), (2, 1, False), (2, 2, True)]
)
def test_an_answer_is_cut_where_all_its_choices_are(ended: int, cut: int, expected: bool) -> None:
    assert Trail(ended_choices=ended, cut_choices=cut).cut is expected


def test_a_step_is_told_on() -> None:
    told: list[tuple[int, int]] = []
    trail = Trail()
    trail.step(5, 1)
    trail.on_step = lambda prefill, decode: told.append((prefill, decode))
    trail.step(0, 2)
    assert told == [(0, 2)]
    assert trail.decoded == 3


def test_a_request_is_accepted_when_all_of_its_prompts_are() -> None:
    async def run() -> list[bool]:
        accepted = asyncio.get_running_loop().create_future()
        trail = Trail(accepted=accepted, offered=2)
        seen = []
        for _ in range(2):
            trail.accept()
            seen.append(accepted.done())
        return seen

    assert asyncio.run(run()) == [False, True]


class Processor:
    """What vLLM's `OutputProcessor` shows: its requests by the engine's ids, until they end."""

    def __init__(self) -> None:
        self.request_states: dict[str, Any] = {}
        self.processed: list[Any] = []

    def add(self, request_id: str, external: str) -> None:
        self.request_states[request_id] = SimpleNamespace(external_req_id=external)

    def process_outputs(self, outputs: list[Any], timestamp: float, stats: object = None) -> str:
        self.processed.append((outputs, timestamp, stats))
        for output in outputs:
            if output.finished:
                self.request_states.pop(output.request_id, None)
        return "processed"


def output(request_id: str, tokens: int, computed: int | None = None, *, end: bool = False) -> Any:
    stats = None if computed is None else SimpleNamespace(num_computed_tokens=computed)
    return SimpleNamespace(
        request_id=request_id, new_token_ids=[7] * tokens, prefill_stats=stats, finished=end
    )


def note(steps: list[tuple[int, int]], prefilled: int, decoded: int) -> None:
    steps.append((prefilled, decoded))


def test_every_step_of_the_engine_reaches_its_trail() -> None:
    processor, feed = Processor(), StepFeed()
    process = feed.wrap(processor.process_outputs, processor.request_states)
    steps: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    for name, told in steps.items():
        feed.open(name, Trail(on_step=partial(note, told)))
    # Two choices of one request, one request of which nobody keeps a trail.
    for request_id, name in [("0_a-1", "a"), ("1_a-1", "a"), ("b-2", "b"), ("c-3", "c")]:
        processor.add(request_id, name)
    first = [output("0_a-1", 1, 30), output("1_a-1", 1, 2), output("c-3", 1, 9)]
    assert process(first, 1.5, stats="s") == "processed"
    process([output("0_a-1", 1, end=True), output("b-2", 3, 50), output("gone", 1)], 2.5)
    process([output("0_a-1", 1)], 3.5)
    assert steps == {"a": [(30, 1), (2, 1), (0, 1)], "b": [(50, 3)]}
    assert processor.processed[0] == (first, 1.5, "s")
    assert len(processor.processed) == 3


def test_every_step_is_told_once_whomever_it_concerns() -> None:
    told: list[None] = []
    processor = Processor()
    feed = StepFeed(lambda: told.append(None))
    process = feed.wrap(processor.process_outputs, processor.request_states)
    process([output("a-1", 1), output("b-1", 1)], 0.0)
    process([], 0.0)
    assert len(told) == 2


def test_a_feed_forgets_requests_that_are_over() -> None:
    processor, feed = Processor(), StepFeed()
    process = feed.wrap(processor.process_outputs, processor.request_states)
    processor.add("a-1", "a")
    early, late = Trail(), Trail()
    feed.open("a", early)
    feed.open("a", late)  # the same id once more
    feed.close("a", early)
    process([output("a-1", 1)], 0.0)
    assert (early.decoded, late.decoded) == (0, 1)
    feed.close("a", late)
    feed.close("a", late)
    process([output("a-1", 1)], 0.0)
    assert late.decoded == 1
