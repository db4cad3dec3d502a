"""`/tokenize` and `/detokenize`, as vLLM has them, by the tokenizers that the router has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from cluster.naming import AUTO
from deployments.config.app import RouterArgs
from deployments.router.decision.decide import Decider
from deployments.router.endpoints.dialects import read_object
from deployments.router.tokens.chat_messages import UncountableError
from deployments.router.tokens.counting import TokenCounter, most_rendered
from deployments.router.tokens.model_tokenizer import ModelTokenizer, TemplateRejectionError
from deployments.router.tokens.prompts import Prompt
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.body import read_body
from deployments.router.wire.dialects.members import array, flag
from deployments.router.wire.error_codes import ErrorCode
from deployments.router.wire.limits.body import parse_bounded
from deployments.router.wire.members import too_much
from deployments.router.wire.openai import invalid_value, json_object
from deployments.router.wire.respond import JsonResponse

Result = TypeVar("Result")


class Tokenize:
    """The two routes.

    Args:
        args: Limits.
        decider: Knows the models.
        counter: Has their tokenizers.
    """

    def __init__(self, args: RouterArgs, decider: Decider, counter: TokenCounter) -> None:
        self._args = args
        self._decider = decider
        self._counter = counter

    async def encode(self, request: Request) -> Response:
        """A prompt or a conversation as token ids."""
        body = await read_body(request.scope, request.receive, self._args)
        parsed = self._decider.named(parse_bounded(body, None, self._decider.config.limits))
        data = json_object(body)
        model, tokenizer = self._tokenizer(parsed.model)
        field = parsed.prompt.field
        if not parsed.prompt.is_chat and not isinstance(data["prompt"], str):
            raise invalid_value("prompt", "must be a string", data["prompt"])
        most = self._decider.config.exact_count_bytes
        if len(body) > most:
            raise too_much(field, len(body), most, " bytes as JSON (exact_count_bytes)")
        named = flag(data, "return_token_strs")
        ids, names = await _in_thread(
            field, lambda: _encoded(tokenizer, parsed.prompt, most, named)
        )
        answer = {
            "count": len(ids),
            "max_model_len": self._longest(model),
            "tokens": ids,
            "token_strs": names,
        }
        return JsonResponse(answer)

    async def decode(self, request: Request) -> Response:
        """The text that token ids stand for."""
        data = await read_object(request.scope, request.receive, self._args, self._decider)
        name = data.get("model")
        if name is not None and (not isinstance(name, str) or not name):
            raise invalid_value("model", "must be a model's id", name)
        _, tokenizer = self._tokenizer(self._decider.meaning(name or ""))
        ids = array(data, "tokens", required=True)
        return JsonResponse({"prompt": await _in_thread("tokens", lambda: _text(tokenizer, ids))})

    def _tokenizer(self, model: str) -> tuple[str, ModelTokenizer]:
        if model == AUTO:
            raise invalid_value("model", "each model has its own tokenizer: name a model", model)
        if not self._decider.knows(model):
            raise self._decider.unknown_model(model)
        found = self._counter.tokenizer(model)
        if found is None:
            fault = self._counter.report(model)["fault"]
            message = f"model: the tokenizer of {model!r} is not here: {fault}"
            raise ApiError(503, message, param="model", retry_after_s=5)
        return model, found

    def _longest(self, model: str) -> Any:
        description: Mapping[str, Any] = self._decider.directory[model].description or {}
        return description.get("max_model_len")


def _encoded(
    tokenizer: ModelTokenizer, prompt: Prompt, exact_bytes: int, named: bool
) -> tuple[list[int], list[str | None] | None]:
    """Token ids, and the tokens as the vocabulary writes them where they are wanted."""
    ids = tokenizer.ids(prompt, most_rendered(exact_bytes))
    return ids, [tokenizer.token(number) for number in ids] if named else None


def _text(tokenizer: ModelTokenizer, ids: Sequence[Any]) -> str:
    """The text of token ids.

    Raises:
        ApiError: 400, one of them is none.
    """
    for index, number in enumerate(ids):
        if type(number) is not int or not 0 <= number < 2**32 or not tokenizer.token(number):
            raise invalid_value(f"tokens.{index}", "must be a token id of the model", number)
    return tokenizer.text(ids)


async def _in_thread(field: str, work: Callable[[], Result]) -> Result:
    """Off the event loop, which a long text would hold.

    Raises:
        ApiError: 400, only the engine could do it, or the chat template refuses.
    """
    try:
        return await asyncio.to_thread(work)
    except (UncountableError, TemplateRejectionError, ValueError) as error:
        raise ApiError(400, f"{field}: {error}", param=field, code=ErrorCode.UNSUPPORTED) from error
