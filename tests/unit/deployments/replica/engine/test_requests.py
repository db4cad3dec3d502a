"""Bodies at which vLLM's own validators break; its real types."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.exceptions import VLLMValidationError

from deployments.replica.engine.requests import UnreadableError, as_request

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
KINDS = ((CompletionRequest, {"prompt": "Hi"}), (ChatCompletionRequest, CHAT))
SHAPES: tuple[Any, ...] = ("x", 3, 1.5, True, None, [], [1], [[]], [{}], {}, {"a": 1}, {"a": {}})


@pytest.mark.parametrize(("kind", "body"), KINDS)
@pytest.mark.parametrize("value", ["x", 3, [1], True])
def test_the_member_is_named_that_it_breaks_at(
    kind: type[BaseModel], body: dict[str, Any], value: Any
) -> None:
    with pytest.raises(UnreadableError, match="structured_outputs: cannot be") as caught:
        as_request(kind, {**body, "max_tokens": 8, "structured_outputs": value})
    assert caught.value.field == "structured_outputs"


@pytest.mark.parametrize(("kind", "body"), KINDS)
@pytest.mark.parametrize("stream", [True, False])
def test_whatever_the_shape_of_a_member_it_is_read_or_refused(
    kind: type[BaseModel], body: dict[str, Any], stream: bool
) -> None:
    unnamed = []
    for field in kind.model_fields:
        for value in SHAPES:
            try:
                as_request(kind, {**body, "stream": stream, field: value})
            except (ValidationError, VLLMValidationError):
                continue
            except UnreadableError as error:
                unnamed += [(field, value)] if error.field != field else []
    assert unnamed == []


def test_a_body_that_is_none_is_told_by_pydantic() -> None:
    with pytest.raises(ValidationError, match="max_tokens"):
        as_request(CompletionRequest, {"prompt": "Hi", "max_tokens": "many"})


def test_where_no_single_member_is_to_blame_none_is_named() -> None:
    class Pair(BaseModel):
        a: int = 0
        b: int = 0

        def model_post_init(self, context: Any) -> None:
            if self.a and self.b:
                raise TypeError("both")

    with pytest.raises(UnreadableError, match="do not fit together") as caught:
        as_request(Pair, {"a": 1, "b": 1})
    assert caught.value.field is None
