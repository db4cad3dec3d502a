"""An OpenAI server of a few lines: answers as many tokens as asked for, in the way it is told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer


class OpenAiDouble:
    """What to do.

    Attributes:
        token_s: Pause before every token of a stream, and before a whole answer.
        together: Tokens that a stream sends at once.
        lost_tokens: Tokens that every answer is short of.
        status: Of every answer.
        most_at_once: The largest number of requests that were being answered at one moment.
        prompts: Of all requests, as they came.
    """

    def __init__(
        self, token_s: float = 0.0, together: int = 1, lost_tokens: int = 0, status: int = 200
    ) -> None:
        self.token_s, self.together = token_s, together
        self.lost_tokens, self.status = lost_tokens, status
        self.most_at_once = self._now = 0
        self.prompts: list[Sequence[object]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.prompts.append(body.get("prompt") or body["messages"][0]["content"])
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._answered(request, body)
        finally:
            self._now -= 1

    async def _answered(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        tokens = body["max_tokens"] - self.lost_tokens
        end = {
            "model": "double",
            "usage": {"completion_tokens": tokens},
            "routing": {"actual": {"energy_joules": 2.0 * tokens}},
        }
        if self.status != 200 or not body.get("stream"):
            await asyncio.sleep(self.token_s)
            return web.Response(body=orjson.dumps(end), status=self.status)
        response = web.StreamResponse()
        await response.prepare(request)
        held = b""
        for number in range(1, tokens + 1):
            await asyncio.sleep(self.token_s)
            held += b'data: {"choices": []}\n\n'
            if number % self.together == 0:
                await response.write(held)
                held = b""
        await response.write(held + b"data: " + orjson.dumps(end) + b"\n\ndata: [DONE]\n\n")
        return response


@asynccontextmanager
async def serving(double: OpenAiDouble) -> AsyncIterator[str]:
    """Its address, while the block runs."""
    app = web.Application()
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.router.add_post(path, double.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")
