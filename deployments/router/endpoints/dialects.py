"""`/v1/messages` and `/v1/responses`: a chat completion in another wire format.

The request is turned into the body of a chat completion, which the route of completions answers
like any other; its answer is turned back as it leaves. So the decision, budgets, failover,
idempotency and the record know no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.config.app import RouterArgs
from deployments.router.access.budgets import Account
from deployments.router.decision.decide import Decider
from deployments.router.endpoints.completions import Completions, Recorded
from deployments.router.endpoints.feedback.route import may_rate
from deployments.router.sync.decision_log import DecisionLog
from deployments.router.sync.profiles import ProfileSource
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.body import read_body
from deployments.router.wire.dialects import messages_request, responses_request
from deployments.router.wire.dialects.answers import EventSplitter, Writer
from deployments.router.wire.dialects.counts import check_messages, check_responses
from deployments.router.wire.dialects.errors import (
    ANTHROPIC_NAMES,
    RESPONSES_NAMES,
    anthropic_error,
    anthropic_status,
    renamed,
)
from deployments.router.wire.dialects.history import conversation_of
from deployments.router.wire.dialects.members import Message as ChatMessage
from deployments.router.wire.dialects.members import text
from deployments.router.wire.dialects.messages_answer import MessageWriter
from deployments.router.wire.dialects.responses_answer import PREFIX
from deployments.router.wire.dialects.responses_stream import ResponseWriter
from deployments.router.wire.error_codes import ErrorCode
from deployments.router.wire.limits.body import (
    check_depth,
    check_members,
    check_size,
    parse_bounded,
)
from deployments.router.wire.openai import json_object
from deployments.router.wire.paths import CHAT, COUNT_TOKENS, MESSAGES
from deployments.router.wire.respond import JsonResponse

RECORD_PERIOD_S = 0.7
"""After so long another router has reported to the store what it answered."""


class _Dialect:
    """One route: reads its own form, and has completions answer.

    Attributes:
        names: Members of a chat completion, by what the clients of this route call them.
    """

    names: Mapping[str, str]

    def __init__(self, args: RouterArgs, decider: Decider, completions: Completions) -> None:
        self._args = args
        self._decider = decider
        self._completions = completions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            data = await read_object(scope, receive, self._args, self._decider)
            chat, writer, recorded = await self._translate(scope, data)
        except Exception as refusal:
            await self._completions.refuse(refusal, scope, send)
            return
        inner = {
            **scope,
            "path": CHAT,
            # What an `Idempotency-Key` belongs to, too.
            "asked_path": scope["path"],
            "headers": [pair for pair in scope["headers"] if pair[0] != b"content-encoding"],
            "recorded": recorded,
        }
        answer = _AnswerIn(writer, self.names, send)
        await self._completions(inner, _given(orjson.dumps(chat), receive), answer.send)

    async def _translate(
        self, scope: Scope, data: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Writer, Recorded]:
        raise NotImplementedError


class MessagesRoute(_Dialect):
    """`POST /v1/messages`."""

    names = ANTHROPIC_NAMES

    async def _translate(
        self, scope: Scope, data: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Writer, Recorded]:
        check_messages(data, self._decider.config.limits)
        chat = messages_request.chat_of(data)
        return chat, MessageWriter(), Recorded(orjson.dumps(data))


class ResponsesRoute(_Dialect):
    """`POST /v1/responses`.

    Args:
        args: Limits, and whether contents are recorded.
        decider: As of completions.
        completions: Answers.
        log: Knows earlier responses, where contents are recorded.
        profiles: Knows the store.
    """

    names = RESPONSES_NAMES

    def __init__(
        self,
        args: RouterArgs,
        decider: Decider,
        completions: Completions,
        log: DecisionLog,
        profiles: ProfileSource,
    ) -> None:
        super().__init__(args, decider, completions)
        self._log = log
        self._profiles = profiles

    async def _translate(
        self, scope: Scope, data: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Writer, Recorded]:
        check_responses(data, self._decider.config.limits)
        previous = text(data, "previous_response_id")
        before = await self._before(previous, scope.get("account")) if previous else []
        chat = responses_request.chat_of(data, before)
        kept = self._args.record_content and data.get("store") is not False
        history = orjson.dumps(chat.history) if kept else b""
        writer = ResponseWriter(data, kept=kept, tools=chat.tools)
        return chat.body, writer, Recorded(orjson.dumps(data), history)

    async def _before(self, response_id: str, account: Account | None) -> list[ChatMessage]:
        """The conversation that a response ended.

        Raises:
            ApiError: 404, it is not kept, or belongs to another key.
        """
        decision_id = response_id.removeprefix(PREFIX)
        record = None
        if self._args.record_content:
            record = await self._log.find(self._profiles.store, decision_id)
            if record is None:
                await asyncio.sleep(RECORD_PERIOD_S)
                record = await self._log.find(self._profiles.store, decision_id)
        found = None
        if record is not None and may_rate(record, account) and record["error"] is None:
            found = conversation_of(record.get("content") or {})
        if found is None:
            why = "" if self._args.record_content else ": record_content is off"
            raise ApiError(
                404,
                f"previous_response_id: no response {response_id[:100]!r} is kept{why}",
                param="previous_response_id",
                code=ErrorCode.RESPONSE_NOT_FOUND,
            )
        return found


class TokenCountRoute:
    """`POST /v1/messages/count_tokens`: the most that any model of the request counts."""

    def __init__(self, args: RouterArgs, decider: Decider) -> None:
        self._args = args
        self._decider = decider

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        data = await read_object(request.scope, request.receive, self._args, self._decider)
        limits = self._decider.config.limits
        check_messages(data, limits)
        chat = messages_request.chat_of(data, counting=True)
        body = orjson.dumps(chat)
        parsed = self._decider.named(parse_bounded(body, "chat", limits))
        if not self._decider.knows(parsed.model):
            raise self._decider.unknown_model(parsed.model)
        counts = await self._decider.count(parsed)
        most = max((count.tokens for count in counts.values()), default=0)
        return JsonResponse({"input_tokens": most})


async def read_object(
    scope: Scope, receive: Receive, args: RouterArgs, decider: Decider
) -> dict[str, Any]:
    """The body of a request as a JSON object that is not too large or deep.

    Raises:
        ApiError: 400, 408, 413 or 415.
    """
    body = await read_body(scope, receive, args)
    limits = decider.config.limits
    containers, values = check_size(body, limits)
    data = json_object(body)
    check_members(body, data, values, limits)
    if containers > limits.depth:
        check_depth(data, limits.depth)
    return data


def _given(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that has this body, and then what the client does."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


class _AnswerIn:
    """The answer to a chat completion on its way out, in another dialect.

    An error keeps its form here, and names the field as the client does.
    """

    def __init__(self, writer: Writer, names: Mapping[str, str], send: Send) -> None:
        self._writer = writer
        self._names = names
        self._send = send
        self._events: EventSplitter | None = None
        # The start of what has a length, which is not known yet.
        self._held: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Of ASGI."""
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            if not kind.startswith(b"text/event-stream"):
                self._held = message
                return
            self._events = EventSplitter()
        elif message["type"] == "http.response.body":
            if self._events is not None:
                await self._stream(self._events, message)
                return
            self._body += message.get("body", b"")
            if self._held is not None and not message.get("more_body"):
                await self._whole(self._held)
            return
        await self._send(message)

    async def _stream(self, events: EventSplitter, message: Message) -> None:
        more = bool(message.get("more_body"))
        data = b"".join(map(self._translated, events.feed(message.get("body", b""))))
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def _translated(self, event: bytes) -> bytes:
        if not event.startswith(b"data: "):
            # A comment that keeps the connection alive.
            return event + b"\n\n"
        content = event[len(b"data: ") :]
        if content == b"[DONE]":
            return self._writer.end()
        chunk = orjson.loads(content)
        if "error" in chunk:
            return self._writer.fail(chunk["error"])
        return self._writer.chunk(chunk)

    async def _whole(self, start: Message) -> None:
        answer = orjson.loads(self._body)
        if start["status"] == 200:
            body = self._writer.whole(answer)
        else:
            body = orjson.dumps({"error": renamed(answer["error"], self._names)})
        await _send_again(start, start["status"], body, self._send)


class AnthropicErrors:
    """ASGI middleware: errors of Anthropic's paths in its form, wherever they are raised.

    Args:
        app: The router, its access guard included.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on."""
        if scope["type"] == "http" and scope["path"] in (MESSAGES, COUNT_TOKENS):
            send = _AnthropicErrors(send).send
        await self._app(scope, receive, send)


class _AnthropicErrors:
    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Of ASGI."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._held = message
        elif self._held is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                status = anthropic_status(self._held["status"])
                error = anthropic_error(status, orjson.loads(self._body)["error"])
                await _send_again(self._held, status, orjson.dumps(error), self._send)
        else:
            await self._send(message)


async def _send_again(start: Message, status: int, body: bytes, send: Send) -> None:
    headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
