from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.bandit.features import FEATURES, context_of
from scheduler.prompts.tasks import TASKS


def features(text: str, task: str = "chat", input_tokens: int = 10) -> dict[str, float]:
    return dict(zip(FEATURES, context_of(text, task, input_tokens).numbers, strict=True))


@given(st.text(st.characters(exclude_categories=[])), st.sampled_from(TASKS), st.integers(0, 10**6))
def test_any_text_has_features_in_bounds(text: str, task: str, tokens: int) -> None:
    numbers = context_of(text, task, tokens).numbers
    assert len(numbers) == len(FEATURES)
    assert all(-1.0 <= number <= 2.0 for number in numbers)


def test_features_of_a_question_with_options() -> None:
    found = features("What is 2+2?\nA. 3\nB. 4", "mathematics")
    assert (found["one"], found["mathematics"], found["chat"]) == (1.0, 1.0, 0.0)
    assert (found["options"], found["question"], found["beyond_ascii"]) == (1.0, 0.0, 0.0)
    # 4 digits of 22 bytes, two line ends.
    assert found["digits"] == pytest.approx(5 * 4 / 22)
    assert features("Is it?  ")["question"] == features("真的吗？")["question"] == 1.0
    assert features("真的吗")["beyond_ascii"] == 1.0


def test_a_task_of_the_clients_own_is_no_feature() -> None:
    assert sum(features("Hi", "poetry")[task] for task in TASKS) == 0.0


def test_token_ids_have_a_length() -> None:
    assert features("", input_tokens=1000)["length"] > features("", input_tokens=10)["length"]
    assert features("", input_tokens=0)["length"] == -1.0
    assert features("x" * 2**20)["length"] == 1.5
