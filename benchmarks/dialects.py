"""What Anthropic's and OpenAI's other dialect add to a request, in CPU time of the router.

    python benchmarks/dialects.py [--rounds N]

The translation of a request into a chat completion, and of each chunk of its stream; the rest of
the way is the same for all three. The least of the rounds, for the machine may be busy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson

from deployments.router.wire.dialects import messages_request, responses_request
from deployments.router.wire.dialects.messages_answer import MessageWriter
from deployments.router.wire.dialects.responses_stream import ResponseWriter

REPEATS = 400
TEXT = "x" * 400
MESSAGES: dict[str, Any] = {
    "model": "auto",
    "max_tokens": 64,
    "system": TEXT,
    "messages": [{"role": "user", "content": TEXT}],
    "stream": True,
}
RESPONSES: dict[str, Any] = {"model": "auto", "instructions": TEXT, "input": TEXT, "stream": True}
CHUNK = orjson.dumps(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
    }
)


def cpu_us(work: Callable[[], object], rounds: int) -> float:
    """CPU time of one call, the least of the rounds."""
    least = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(REPEATS):
            work()
        least = min(least, (time.thread_time() - began) / REPEATS)
    return least * 1e6


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args(arguments).rounds
    messages, responses = orjson.dumps(MESSAGES), orjson.dumps(RESPONSES)
    message = MessageWriter()
    response = ResponseWriter(RESPONSES, kept=False, tools={})
    for name, request, chunk in (
        (
            "/v1/messages",
            lambda: orjson.dumps(messages_request.chat_of(orjson.loads(messages))),
            lambda: message.chunk(orjson.loads(CHUNK)),
        ),
        (
            "/v1/responses",
            lambda: orjson.dumps(responses_request.chat_of(orjson.loads(responses), []).body),
            lambda: response.chunk(orjson.loads(CHUNK)),
        ),
    ):
        print(
            f"{name:<14} request {cpu_us(request, rounds):6.1f} us, "
            f"chunk {cpu_us(chunk, rounds):5.1f} us"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
